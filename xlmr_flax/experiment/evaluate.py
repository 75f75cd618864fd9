"""The evaluate command: one source, one task, no training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from xlmr_flax.config import Config, EncoderSpec, Evaluation
from xlmr_flax.data.sources import with_labels
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.eval.files import write_atomic
from xlmr_flax.eval.retrieval import retrieval_layer
from xlmr_flax.eval.zero_shot import Evaluator, label_order
from xlmr_flax.experiment.phase import head_spec
from xlmr_flax.experiment.plan import NONE, Run, default_split
from xlmr_flax.experiment.rows import result_rows
from xlmr_flax.experiment.workdir import Workdir
from xlmr_flax.models.config import ModelError
from xlmr_flax.models.model import HeadSpec, Model
from xlmr_flax.models.source import EncoderSource, open_source
from xlmr_flax.parallel.mesh import make_mesh, put_tree
from xlmr_flax.report.progress import Line, say
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Request:
    """One evaluate command, flags as given ('' and 0 = default)."""

    encoder: str
    task: str
    languages: tuple[str, ...]
    split: str
    data_root: str
    out: Path
    dtype: str
    max_length: int
    evaluation: Evaluation
    command: str


def choose_head(source: EncoderSource, task: Task) -> tuple[str, HeadSpec]:
    """The source's head for a task: of its name, else the only one of its kind and size. Raises ModelError."""
    fitting = {n: s for n, s in source.heads.items() if s == head_spec(task)}
    if task.name in fitting:
        return task.name, fitting[task.name]
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    have = ', '.join(f'{n} ({s.kind}, {s.outputs})' for n, s in source.heads.items()) or 'none'
    raise ModelError(
        f'{source.name}: no single head of kind {task.kind!r} with {len(task.labels)} outputs for task {task.name!r} '
        f'(heads: {have}); fine-tune first with xlmr-flax run'
    )


def evaluate(request: Request) -> list[dict[str, Any]]:
    """Evaluates every language, writes results.jsonl and predictions; returns the rows."""
    task, source = with_labels(get_task(request.task), request.data_root), open_source(request.encoder)
    workdir = Workdir(request.out)
    tokenizer = Tokenizer(source.tokenizer, source.config.vocab_size)
    model = Model(source.config, source.style or 'hf', request.dtype)
    retrieval = task.kind == 'retrieval'
    evaluation, max_length = request.evaluation, request.max_length
    if not max_length:
        max_length = (not retrieval and source.max_length) or min(512, source.config.max_length)
    tokenizer.check_length(max_length, source.config.max_length)
    evaluation = dataclasses.replace(evaluation, max_length=max_length)
    head = None if retrieval else choose_head(source, task)
    order = label_order(task, source.labels.get(head[0], ())) if head else ()
    params, mesh = source.load(), make_mesh()
    wanted = ['encoder', *([] if retrieval else ['pooler', 'heads'])]
    params = put_tree({k: params[k] for k in wanted if k in params}, mesh)
    evaluator = Evaluator(model, params, tokenizer, mesh, evaluation, request.data_root, max_length, head, order)
    languages = request.languages or task.languages
    split = request.split or default_split(task, languages, request.data_root)
    config = Config(encoder=EncoderSpec(source.name, dtype=request.dtype), evaluation=evaluation)
    run = Run(source.digest[:12], NONE, task.name, '', 0, '', None)
    if source.note:
        say(source.note)
    if retrieval:
        layer = retrieval_layer(source.config, evaluation.retrieval_layer)
        say(f'layer {layer} of {source.config.num_layers}, {evaluation.pooling} pooling, max length {max_length}')
    rows: list[dict[str, Any]] = []
    for language in languages:
        line = Line(f'{task.name} {split} {language}')

        def progress(done: int, total: int, line: Line = line) -> None:
            line(done, total, done)

        metrics, n = evaluator.run(task, language, split, request.out / 'predictions', progress)
        found = result_rows(config, source, run, task, language, split, metrics, n, 0, request.command)
        rows += found
        line.close(f'n {n}  ' + '  '.join(f'{r["metric"]} {r["value"]:.2f}' for r in found))
        write_atomic(workdir.results_path, ''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows))
    return rows
