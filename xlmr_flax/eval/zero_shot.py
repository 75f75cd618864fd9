"""Zero-shot evaluation of a task in a language: predicts, writes the official file and computes metrics from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from xlmr_flax.config import Evaluation
from xlmr_flax.data.batches import pass_tokens, row_lengths
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, are_labelled, read_pairs, read_split
from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.eval.by_gold import Embed, mine, rank
from xlmr_flax.eval.predict import Forward, VectorFiles, embed_sentences, head_outputs
from xlmr_flax.eval.retrieval import nearest, retrieval_layer, with_prefixes
from xlmr_flax.kinds import HeadSpec, encode_cached, kind_of, prediction_path, score_files
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.distributed import is_leader, on_leader, process_index
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics.classification import accuracy
from xlmr_flax.scoring.reference_spans import decode_reference
from xlmr_flax.scoring.spans import Decoder, decode
from xlmr_flax.tasks.base import Example, SentenceExample, Task, TaskError

Progress = Callable[[int, int], None]  # called with (rows done, total rows)
Scored = tuple[dict[str, float], int]  # (metrics in percent, number of examples)
_PASSES = 64  # minimum number of full batches, so that the cost of a last partial batch is negligible


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a model on tasks; the fields are the settings that are the same for all languages.

    head: (name in params['heads'], spec) for tasks that have a head. label_order: for each label of the task, the index
      of the head's output; () = same order (another project's checkpoint may differ).
    lengths: padded row lengths, () = the default ones. remap: maps token ids to those of a reduced word table.
    bad_rows: a list to which rows that cannot be read are appended; None = the first such row raises an error.
      Retrieval tasks never skip rows, because this would change the pool.
    """

    model: Model
    params: Params
    tokenizer: Tokenizer
    mesh: Mesh
    evaluation: Evaluation
    data_root: str
    max_length: int
    head: tuple[str, HeadSpec] | None = None
    label_order: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    remap: Callable[[Ragged], Ragged] | None = None
    bad_rows: list[BadRow] | None = None
    # Embeddings of the last English side, by its tokens: parallel sets (the embedded world) use it for every language.
    _english: dict[bytes, np.ndarray] = field(default_factory=dict)

    @property
    def batch_tokens(self) -> int:
        """Number of tokens in a forward pass, padding included."""
        return pass_tokens(self.evaluation.batch_tokens, self.mesh.devices.flat[0].platform, self.mesh.size)

    def forward(self, lengths: tuple[int, ...]) -> Forward:
        """A Forward for this model with these row lengths."""
        wanted = self.evaluation
        return Forward(
            self.model, self.params, self.mesh, lengths, self.batch_tokens, self.tokenizer.pad, wanted.packing
        )

    def run(self, task: Task, language: str, split: str, out: Path, progress: Progress | None = None) -> Scored:
        """Evaluates one language: returns (metrics in percent, number of examples) and writes the prediction file under
        `out` in XTREME's layout."""
        if task.embeds:
            return self._retrieve(task, language, split, out, progress)
        examples = self._read(task, language, split)
        path = prediction_path(out, task, language, split)
        self.predict(task, examples, path, progress, task.answer_language(language, split))
        scores = on_leader('scores', lambda: score_files(task, language, path, examples, split))
        return scores, len(examples)

    def run_all(
        self, task: Task, languages: Sequence[str], split: str, out: Path, progress: Progress | None = None
    ) -> Iterator[tuple[str, dict[str, float], int]]:
        """Evaluates several languages: yields (language, metrics in percent, number of examples) in order, as `run`.

        With packing, consecutive languages share batches, so that a language does not end with a batch that is mostly
        padding. Languages are read until there are tokens for `_PASSES` full batches, and then computed together. If a
        language cannot be read, the languages before it are finished first. progress: counts the rows of the languages
        that are computed together.
        """
        if task.embeds or not self.evaluation.packing:
            for language in languages:
                yield language, *self.run(task, language, split, out, progress)
            return
        waiting: list[tuple[str, Sequence[Example], Encoded]] = []
        for language in languages:
            try:
                examples = self._read(task, language, split)
                waiting.append((language, examples, self._encode(task, examples)))
            except Exception:
                yield from self._finish(task, split, out, waiting, progress)
                raise
            if sum(len(data.tokens.flat) for *_, data in waiting) >= _PASSES * self.batch_tokens:
                yield from self._finish(task, split, out, waiting, progress)
                waiting = []
        yield from self._finish(task, split, out, waiting, progress)

    def _read(self, task: Task, language: str, split: str) -> list[Example]:
        """Reads the rows of a language. Raises DataError for rows that cannot be read, and if only some have labels."""
        limit = self.evaluation.max_examples or None
        examples = read_split(task, language, split, self.data_root, limit, self.bad_rows)
        are_labelled(task, language, split, self.data_root, examples)
        return examples

    def _finish(
        self,
        task: Task,
        split: str,
        out: Path,
        waiting: Sequence[tuple[str, Sequence[Example], Encoded]],
        progress: Progress | None,
    ) -> Iterator[tuple[str, dict[str, float], int]]:
        """Computes the waiting languages together, writes their prediction files and scores them."""
        if not waiting:
            return
        outputs = self.outputs(task, [data.tokens for *_, data in waiting], progress)
        for (language, examples, data), values in zip(waiting, outputs, strict=True):
            path = prediction_path(out, task, language, split)
            decoder = self.decoder(task.answer_language(language, split))
            write = partial(kind_of(task).write_outputs, task, path, examples, data, values, self.label_order, decoder)
            score = partial(score_files, task, language, path, examples, split)
            on_leader('prediction file', write)
            yield language, on_leader('scores', score), len(examples)

    def predict(
        self,
        task: Task,
        examples: Sequence[Example],
        path: Path,
        progress: Progress | None = None,
        language: str = 'en',
    ) -> None:
        """Predicts the examples of a task with a head and writes the prediction file. language: that of the answers.
        Raises TaskError if this model has no head.
        """
        data, decoder = self._encode(task, examples), self.decoder(language)
        (out,) = self.outputs(task, [data.tokens], progress)
        write = partial(kind_of(task).write_outputs, task, path, examples, data, out, self.label_order, decoder)
        on_leader('prediction file', write)

    def decoder(self, language: str) -> Decoder:
        """The function that decodes span logits to answers, by `Evaluation.qa_decoding`. language: that of the
        answers."""
        if self.evaluation.qa_decoding == 'offsets':
            return decode
        realign = language not in self.evaluation.qa_unaligned
        return partial(decode_reference, pieces=self.tokenizer.pieces, realign=realign)

    def _encode(self, task: Task, examples: Sequence[Example]) -> Encoded:
        return encode_cached(task, examples, self.tokenizer, self.max_length)

    def outputs(
        self, task: Task, sets: Sequence[Ragged], progress: Progress | None = None
    ) -> list[np.ndarray | list[np.ndarray]]:
        """The head's outputs for the token rows of each set (eval.predict.head_outputs). All sets are computed
        together. Raises TaskError if this model has no head."""
        if self.head is None:
            raise TaskError(f'task {task.name!r} needs a fine-tuned head; this encoder has none')
        tokens = Ragged.joined(sets)
        tokens = self.remap(tokens) if self.remap else tokens
        out = self._head_outputs(*self.head, tokens, counter(progress, len(tokens)))
        ends = np.cumsum([len(rows) for rows in sets]).tolist()
        return [out[end - len(rows) : end] for end, rows in zip(ends, sets, strict=True)]

    def _head_outputs(
        self, name: str, spec: HeadSpec, tokens: Ragged, tick: Callable[[int], None]
    ) -> np.ndarray | list[np.ndarray]:
        forward = self.forward(row_lengths(self.max_length, self.lengths))
        return head_outputs(forward, name, spec, tokens, tick=tick)

    def _retrieve(self, task: Task, language: str, split: str, out: Path, progress: Progress | None) -> Scored:
        """Evaluates retrieval with English queries and a foreign pool (XTREME's direction, written to the file); also
        measures the other direction ('accuracy_to_en').
        """
        if split in task.gold:
            return self._by_gold(task, language, split, out, progress)
        english, foreign = read_pairs(task, language, split, self.data_root, self.evaluation.max_examples or None)
        tick = counter(progress, len(english) + len(foreign))
        sides = [self.sentence_tokens(task, side) for side in (english, foreign)]
        key = sides[0].flat.tobytes() + sides[0].offsets.tobytes()
        if key not in self._english:
            self._english.clear()
            self._english[key] = self._embed(task.name, sides[0], tick)
        else:
            tick(len(english))
        vectors = (self._english[key], self._embed(task.name, sides[1], tick))
        path = prediction_path(out, task, language, split)

        def scores() -> dict[str, float]:
            order = task.query_order([each.text for each in english])
            files.write_labels(path, nearest(vectors[0], vectors[1])[order])
            metrics = score_files(task, language, path, english)
            if not metrics:
                return {}
            back = accuracy(range(len(foreign)), nearest(vectors[1], vectors[0]).tolist())
            return metrics | {'accuracy_to_en': back['accuracy']}

        return on_leader('scores', scores), len(english)

    def _by_gold(self, task: Task, language: str, split: str, out: Path, progress: Progress | None) -> Scored:
        """Evaluates mining (tasks with F1: BUCC) or ranking (other tasks) with gold pairs by id. max_examples is not
        applied, because the pool is part of the task. The vectors are stored in a temporary folder
        SPLIT-LANG.embeddings next to the predictions; if they are less than 64 MiB in total, they stay in memory.
        """
        path = prediction_path(out, task, language, split)

        def embedder(answers: bool) -> Embed:
            def embed(sentences: Sequence[SentenceExample], file: Path | None = None) -> np.ndarray:
                tick, place = counter(progress, len(sentences)), vectors.place(file, len(sentences))
                tokens = self.sentence_tokens(task, sentences, answers=answers)
                return self._embed(task.name, tokens, tick, place)

            return embed

        # Each process reads blocks of all vectors, so it has its own files.
        folder = path.with_suffix('.embeddings' if is_leader() else f'.embeddings-{process_index()}')
        with VectorFiles(folder, self.model.config.hidden_size) as vectors:
            if task.mines:
                repeated = self.evaluation.repeated_sentences
                return mine(task, language, split, self.data_root, embedder(False), path, self.mesh, repeated)
            queries, pool, ranking = embedder(False), embedder(True), path.with_suffix('.json')
            return rank(task, language, split, self.data_root, queries, ranking, self.mesh, pool)

    @property
    def _sentence_length(self) -> int:
        """The largest number of tokens of an embedded sentence."""
        return min(self.evaluation.max_length, self.model.config.max_length)

    def sentence_tokens(self, task: Task, sentences: Sequence[SentenceExample], *, answers: bool = False) -> Ragged:
        """The token rows of sentences that are embedded. answers: they are the candidates of a ranking."""
        given = with_prefixes(sentences, self.evaluation.pooling, answers=answers)
        return encode_cached(task, given, self.tokenizer, self._sentence_length).tokens

    def sentence_forward(self) -> Forward:
        """The Forward that embeds rows of `sentence_tokens`."""
        return self.forward(row_lengths(self._sentence_length))

    def _embed(self, task: str, tokens: Ragged, tick: Callable[[int], None], out: Path | None = None) -> np.ndarray:
        return embed_sentences(
            self.sentence_forward(),
            tokens,
            layer=retrieval_layer(self.model.config, self.evaluation.layer_of(task), self.evaluation.pooling),
            pooling=self.evaluation.pooling,
            out=out,
            tick=tick,
        )


def counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    """A callback for the number of rows just done that calls `progress` with (rows done so far, total)."""
    done = 0

    def tick(rows: int) -> None:
        nonlocal done
        done += rows
        if progress:
            progress(done, total)

    return tick


def label_order(task: Task, labels: Sequence[str]) -> tuple[int, ...]:
    """The index of each label of the task among a checkpoint's labels; () if the orders are equal or the checkpoint has
    no labels.

    Raises DataError if the checkpoint's labels are not those of the task (compared in lower case).
    """
    if not labels or tuple(labels) == task.labels:
        return ()
    lower = [label.lower() for label in labels]
    if sorted(lower) != sorted(label.lower() for label in task.labels):
        raise DataError(
            f"the checkpoint's labels are {', '.join(labels)}; task {task.name!r} has {', '.join(task.labels)}; if the "
            "head's classes mean the same, give it these names in its order: --labels=A,B,..."
        )
    return tuple(lower.index(label.lower()) for label in task.labels)
