"""One task in one language: predict, write the official file, read the metric back from that file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jax.sharding import Mesh

from xlmr_flax.config import Evaluation
from xlmr_flax.data.batches import row_lengths
from xlmr_flax.data.encode import encode
from xlmr_flax.data.sources import DataError, read_pairs, read_split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.eval import files
from xlmr_flax.eval.metrics.retrieval import nearest_accuracy
from xlmr_flax.eval.predict import embed_sentences, predict_logits
from xlmr_flax.eval.retrieval import nearest, retrieval_layer
from xlmr_flax.eval.score import score_files
from xlmr_flax.models.model import HeadSpec, Model, Params
from xlmr_flax.tasks.base import Task, TaskError

Progress = Callable[[int, int], None]  # (rows done, rows in all) of one language


@dataclass(frozen=True)
class Evaluator:
    """What stays the same over languages. head: (name in params['heads'], spec) for tasks that have one; label_order:
    the head's output that stands for each of the task's labels, () = in order (a foreign checkpoint's may differ)."""

    model: Model
    params: Params
    tokenizer: Tokenizer
    mesh: Mesh
    evaluation: Evaluation
    data_root: str
    max_length: int
    head: tuple[str, HeadSpec] | None = None
    label_order: tuple[int, ...] = ()

    def run(self, task: Task, language: str, split: str, out: Path, progress: Progress | None = None) -> tuple[dict[str, float], int]:
        """(metrics in percent, number of examples); the prediction file lies under `out` in XTREME's layout."""
        if task.kind == 'retrieval':
            return self._retrieve(task, language, split, out, progress)
        if task.kind == 'pair':
            return self._classify(task, language, split, out, progress)
        raise TaskError(f'task {task.name!r}: evaluation of kind {task.kind!r} is not built yet')

    def _classify(self, task: Task, language: str, split: str, out: Path, progress: Progress | None) -> tuple[dict[str, float], int]:
        if self.head is None:
            raise TaskError(f'task {task.name!r} needs a fine-tuned head; this encoder has none')
        examples = read_split(task, language, split, self.data_root, self.evaluation.max_examples or None)
        data = encode(task, examples, self.tokenizer, self.max_length)
        name, spec = self.head
        logits = predict_logits(
            self.model, self.params, name, spec, data.tokens, lengths=row_lengths(self.max_length),
            batch_tokens=self.evaluation.batch_tokens, pad=self.tokenizer.pad, mesh=self.mesh, tick=_counter(progress, len(examples)),
        )
        if self.label_order:
            logits = logits[:, list(self.label_order)]
        path = files.prediction_path(out, task, language, split)
        files.write_labels(path, [task.labels[i] for i in logits.argmax(-1)])
        return score_files(task, language, path, examples), len(examples)

    def _retrieve(self, task: Task, language: str, split: str, out: Path, progress: Progress | None) -> tuple[dict[str, float], int]:
        """English asks, the foreign side answers (XTREME's direction, the file); the other direction is measured too."""
        limit = self.evaluation.max_examples or None
        english, foreign = read_pairs(task, language, split, self.data_root, limit)
        vectors, tick = [], _counter(progress, len(english) + len(foreign))
        for side in (english, foreign):
            max_length = min(self.evaluation.max_length, self.model.config.max_length)
            data = encode(task, side, self.tokenizer, max_length)
            vectors.append(embed_sentences(
                self.model, self.params, data.tokens,
                layer=retrieval_layer(self.model.config, self.evaluation.retrieval_layer),
                pooling=self.evaluation.pooling, lengths=row_lengths(max_length),
                batch_tokens=self.evaluation.batch_tokens, pad=self.tokenizer.pad, mesh=self.mesh, tick=tick,
            ))
        path = files.prediction_path(out, task, language, split)
        files.write_labels(path, nearest(vectors[0], vectors[1]))
        scores = score_files(task, language, path, english)
        back = nearest_accuracy(range(len(foreign)), nearest(vectors[1], vectors[0]).tolist())
        return scores | {'accuracy_to_en': back['accuracy']}, len(english)


def _counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    done = 0

    def tick(rows: int) -> None:
        nonlocal done
        done += rows
        if progress:
            progress(done, total)

    return tick


def label_order(task: Task, labels: Sequence[str]) -> tuple[int, ...]:
    """For each label of the task, its place among a checkpoint's labels; () when they agree or say nothing.

    Raises DataError when the checkpoint's labels are not the task's (compared in lower case).
    """
    if not labels or tuple(labels) == task.labels:
        return ()
    lower = [label.lower() for label in labels]
    if sorted(lower) != sorted(label.lower() for label in task.labels):
        raise DataError(f'the checkpoint\'s labels are {", ".join(labels)}; task {task.name!r} has {", ".join(task.labels)}')
    return tuple(lower.index(label.lower()) for label in task.labels)
