"""The evaluate command: evaluates one encoder source on one task without training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

import xlmr_flax
from xlmr_flax.config import LABSE, NONE, Config, EncoderSpec, Evaluation
from xlmr_flax.data.sources import with_labels
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import ModelError
from xlmr_flax.eval.retrieval import layer_note
from xlmr_flax.eval.weights import evaluation_weights
from xlmr_flax.eval.zero_shot import Evaluator, label_order
from xlmr_flax.experiment.out_of_memory import with_messages
from xlmr_flax.experiment.plan.defaults import dtype_of
from xlmr_flax.experiment.plan.runs import Run, default_split
from xlmr_flax.experiment.result_rows import result_rows
from xlmr_flax.experiment.workdir.bad_rows import collector
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.kinds import HeadSpec, head_spec, kind_of
from xlmr_flax.kinds.base import name_problem
from xlmr_flax.models.model import Model, Params, check_pooling
from xlmr_flax.models.source import EncoderSource, open_source
from xlmr_flax.parallel.distributed import connect, is_leader, require_equal, require_shared
from xlmr_flax.parallel.machine import this_machine
from xlmr_flax.parallel.mesh import make_mesh, put_tree
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task
from xlmr_flax.util.console import Line, be_quiet, say


@dataclasses.dataclass(frozen=True)
class Request:
    """The flags of one evaluate command ('' and 0 = default). input: a user's own file (experiment/predict_file.py)
    instead of the task's data, '' = none; `out` is then a file. labels: names of the head's classes in the order of the
    head, () = the names in the checkpoint."""

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
    skip_bad_rows: bool = False
    input: str = ''
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Opened:
    """A source with its model and tokenizer, ready for forward passes. max_length: most tokens of a row."""

    source: EncoderSource
    model: Model
    tokenizer: Tokenizer
    max_length: int

    def load(self, mesh: Mesh, heads: bool, pooling: str = '') -> Params:
        """Loads the parameters onto the mesh. heads: with the pooler and the heads. pooling: of sentence vectors, which
        may need the pooler. Raises ModelError if the source lacks it."""
        params = self.source.load(None if heads else ())
        if pooling:
            check_pooling(params, pooling, self.source.name)
        wanted = ['encoder', *(['pooler', 'heads'] if heads else ['pooler'] if pooling == LABSE else [])]
        return evaluation_weights(put_tree({k: params[k] for k in wanted if k in params}, mesh), self.model, mesh)


def open_model(request: Request, source: EncoderSource, heads: bool) -> Opened:
    """Opens the model and tokenizer of a source. heads: whether a head is used; then the default of --max_length is the
    length of its fine-tuning. Raises ModelError and TokenizerError."""
    tokenizer = Tokenizer(source.tokenizer, source.config.vocab_size)
    dtype = dtype_of(EncoderSpec(dtype=request.dtype), this_machine())
    model = Model(source.config, source.style or 'hf', dtype)
    max_length = request.max_length or (heads and source.max_length) or min(512, source.config.max_length)
    tokenizer.check_length(max_length, source.config.max_length)
    return Opened(source, model, tokenizer, max_length)


def choose_head(source: EncoderSource, task: Task) -> tuple[str, HeadSpec]:
    """Chooses a source's head for a task: the head with the task's name, else the only one with its kind and size.
    Raises ModelError."""
    fitting = {n: s for n, s in source.heads.items() if s == head_spec(task)}
    if task.name in fitting:
        return task.name, fitting[task.name]
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    raise ModelError(
        f'{source.name}: no single head of kind {task.kind!r} with {len(task.labels)} outputs for task {task.name!r} '
        f'(heads: {list_heads(source)}); fine-tune first with xlmr-flax run'
    )


def class_names(source: EncoderSource, head: tuple[str, HeadSpec], given: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the class names of a head, in its order: `given`, else those of the checkpoint; () for a head without
    classes. Raises ModelError if no names are known, since the order of the classes and so the score would be a guess,
    and if names are given for a head without classes.
    """
    name, spec = head
    if not kind_of(spec).classes:
        if given:
            raise ModelError(f'{source.name}: head {name!r} ({spec.kind}) has no classes that --labels could name')
        return ()
    if problem := name_problem(given):
        raise ModelError(f'--labels: {problem}')
    names = given or source.labels.get(name, ())
    if not names:
        raise ModelError(
            f"{source.name}: the classes of head {name!r} have no names (config.json's id2label is missing or has "
            f"transformers' placeholders LABEL_0, ...), so that their order is unknown; name the {spec.outputs} "
            'classes in the order of the head with --labels=A,B,...'
        )
    return names


def require_one_request(request: Request, source: EncoderSource) -> None:
    """Checks a multi-process job: raises DistributedError unless all processes have the same request, encoder and
    package version, and see the folder of `out`.
    """
    asked = {f'--{k}': str(v) for k, v in dataclasses.asdict(request).items() if k != 'command'}
    require_equal({'package': xlmr_flax.__version__, 'encoder': source.digest, **asked})
    require_shared(request.out.parent if request.input else request.out)


def list_heads(source: EncoderSource) -> str:
    """Lists the heads of a source with kind and number of outputs: 'xnli (pair, 3), panx (tag, 7)', or 'none'."""
    names = ', '.join(f'{name} ({spec.kind}, {spec.outputs})' for name, spec in source.heads.items())
    return names or (f'none: {source.missing}' if source.missing else 'none')


def evaluate(request: Request) -> list[dict[str, Any]]:
    """Evaluates every language of a request, writes results.jsonl and predictions, and returns the result rows."""
    task, source = with_labels(get_task(request.task), request.data_root), open_source(request.encoder)
    if not is_leader():
        be_quiet()
    workdir, retrieval = Workdir(request.out, look_only=not is_leader()), task.embeds
    require_one_request(request, source)
    opened = open_model(request, source, heads=not retrieval)
    evaluation = dataclasses.replace(request.evaluation, max_length=opened.max_length)
    head = None if retrieval else choose_head(source, task)
    mesh, bad_rows = make_mesh(), collector(request.skip_bad_rows, request.out)
    connect(mesh)
    evaluator = Evaluator(
        opened.model,
        opened.load(mesh, heads=not retrieval, pooling=evaluation.pooling if retrieval else ''),
        opened.tokenizer,
        mesh,
        evaluation,
        request.data_root,
        opened.max_length,
        head,
        label_order(task, class_names(source, head, request.labels)) if head else (),
        bad_rows=bad_rows,
    )
    languages = request.languages or (task.split_languages(request.split) if request.split else task.languages)
    split = request.split or default_split(task, languages, request.data_root, request.skip_bad_rows)
    config = Config(
        encoder=EncoderSpec(source.name, dtype=opened.model.dtype), evaluation=evaluation, data_root=request.data_root
    )
    run = Run(source.digest[:12], NONE, task.name, '', 0, None, None)
    if source.note:
        say(source.note)
    if retrieval:
        note = layer_note(source.config, evaluation.retrieval_layer, evaluation.pooling)
        say(f'{note}, max length {opened.max_length}')
    assumed = {'class_order': f'--labels={",".join(request.labels)}'} if request.labels else {}
    rows: list[dict[str, Any]] = []
    line = Line(f'{task.name} {split}')

    def progress(done: int, total: int) -> None:
        line(done, total, done)

    outcomes = evaluator.run_all(task, languages, split, request.out / 'predictions', progress)
    for language, metrics, n in with_messages(evaluator, request.encoder, outcomes):
        scored = Split(task, language, split, config.data_root)
        new_rows = result_rows(
            config, source, run, scored, metrics=metrics, n=n, step=0, command=request.command, bad_rows=bad_rows
        )
        new_rows = [row | assumed for row in new_rows]
        rows += new_rows
        line.label += f' {language}'
        line.close(f'n {n}  ' + '  '.join(f'{r["metric"]} {r["value"]:.2f}' for r in new_rows))
        line = Line(f'{task.name} {split}')
        workdir.write_results(rows)
    if bad_rows:
        bad_rows.close()
    return rows
