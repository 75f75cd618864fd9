"""The evaluate command on a user's own file: writes predictions of a fine-tuned head, or sentence vectors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlmr_flax.data.batches import pass_tokens, row_lengths
from xlmr_flax.data.inputs import Input, read_input
from xlmr_flax.data.sources import with_labels
from xlmr_flax.encoders.config import ModelError
from xlmr_flax.eval.predict import Forward, embed_sentences
from xlmr_flax.eval.records import predict_records, readable
from xlmr_flax.eval.retrieval import layer_note, retrieval_layer, with_prefixes
from xlmr_flax.eval.zero_shot import counter, label_order
from xlmr_flax.experiment.evaluate import (
    Opened,
    Request,
    choose_head,
    class_names,
    list_heads,
    open_model,
    require_one_request,
)
from xlmr_flax.experiment.workdir.bad_rows import BadRows
from xlmr_flax.kinds import HeadSpec, encode, kind_of
from xlmr_flax.kinds.base import Kind, Record, name_problem
from xlmr_flax.kinds.retrieval import Retrieval
from xlmr_flax.models.source import EncoderSource, open_source
from xlmr_flax.parallel.distributed import is_leader, on_leader
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import Example, SentenceExample
from xlmr_flax.util.console import Line, be_quiet, say
from xlmr_flax.util.errors import closest
from xlmr_flax.util.files import write_atomically

VECTORS = '.npy'  # the file extension of --out that selects sentence vectors
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class ChosenHead:
    """A head of an encoder source: its name, its shape, and a label for each of its outputs."""

    name: str
    spec: HeadSpec
    labels: tuple[str, ...]


def input_head(source: EncoderSource, task_name: str, data_root: str = '', given: tuple[str, ...] = ()) -> ChosenHead:
    """Chooses the head for a user's rows: the head `task_name`, else the head that fits that task, else the only head.

    The labels of its outputs are `given`, else those of the checkpoint (for a task, in the spelling of the task), else
    the output numbers (only if no task is named). Raises ModelError, which lists the heads or says that the order of a
    task's classes is unknown; TaskError; and DataError if the labels differ from the task's.
    """
    if problem := name_problem(given):
        raise ModelError(f'--labels: {problem}')
    usable = {name: spec for name, spec in source.heads.items() if kind_of(spec).input}
    have = list_heads(source)
    if not usable:
        raise ModelError(
            f'{source.name}: no head that predicts something (heads: {have}); --out=FILE{VECTORS} writes sentence '
            'vectors, and xlmr-flax run fine-tunes a head'
        )
    if not task_name and len(usable) > 1:
        raise ModelError(f'{source.name}: several heads, choose one with --task (heads: {have})')
    name = task_name or next(iter(usable))
    labels = given or source.labels.get(name, ())
    if name not in usable and name in all_tasks():
        task = with_labels(get_task(name), data_root)
        name, spec = choose_head(source, task)
        if labels := class_names(source, (name, spec), given):
            order = label_order(task, labels) or range(spec.outputs)
            labels = tuple(label for _, label in sorted(zip(order, task.labels, strict=True)))
    if name not in usable:
        raise ModelError(f'{source.name}: no head or task {name!r}{closest(name, usable)} (heads: {have})')
    if given and len(given) != usable[name].outputs:
        raise ModelError(f'--labels: {len(given)} names for the {usable[name].outputs} outputs of head {name!r}')
    return ChosenHead(name, usable[name], labels or tuple(map(str, range(usable[name].outputs))))


def annotate(request: Request) -> list[Record]:
    """Writes predictions for the rows of request.input to request.out; returns the records ([] for vectors).

    The file has one JSON object per line: row (its index in the input, from 0), id (if the input has one), and the
    fields of eval/records.predict_records. If request.out ends in .npy, it gets float32 [rows, D] sentence vectors
    instead. Both files are written atomically. Raises DataError, which names file, line and column of the input.
    """
    if not is_leader():
        be_quiet()
    source, path = open_source(request.encoder), Path(request.input)
    require_one_request(request, source)
    vectors = request.out.suffix == VECTORS
    head = None if vectors else input_head(source, request.task, request.data_root, request.labels)
    bad_rows = BadRows(request.out.with_name(f'{request.out.name}.bad_rows.tsv')) if request.skip_bad_rows else None
    limit = request.evaluation.max_examples or None
    form = kind_of(head.spec).input if head else Retrieval.input
    assert form is not None
    rows = read_input(path, form, limit, bad_rows)
    opened, mesh = open_model(request, source, heads=head is not None), make_mesh()
    pooling = '' if head else request.evaluation.pooling
    lengths, pad = row_lengths(opened.max_length), opened.tokenizer.pad
    tokens = pass_tokens(request.evaluation.batch_tokens, mesh.devices.flat[0].platform, mesh.size)
    forward = Forward(opened.model, opened.load(mesh, head is not None, pooling), mesh, lengths, tokens, pad)
    if source.note:
        say(source.note)
    if head is None:
        _write_vectors(request, opened, forward, rows)
        records = []
    else:
        records = _predicted(forward, opened, head, rows, Line(f'{head.name} {path.name}'))
        lines = (json.dumps(r, ensure_ascii=False, allow_nan=False) + '\n' for r in records)
        on_leader('records', lambda: write_atomically(request.out, ''.join(lines)))
        for record, example in zip(records[:_SHOWN], rows.examples, strict=False):
            say(f'{record["row"]}  {readable(head.spec, example, record)}')
        say(f'{len(records)} rows, head {head.name} ({head.spec.kind}): {request.out}')
    if bad_rows:
        bad_rows.close()
    return records


def _predicted(forward: Forward, opened: Opened, head: ChosenHead, inputs: Input, line: Line) -> list[Record]:
    records: list[dict[str, Any]] = [{} for _ in inputs.examples]
    tick = counter(lambda done, total: line(done, total, done), len(inputs.examples))
    for part in _parts(kind_of(head.spec), inputs.examples):
        examples = [inputs.examples[i] for i in part]
        data = encode(inputs.task, examples, opened.tokenizer, opened.max_length)
        outputs = predict_records(forward, head.name, head.spec, examples, data, head.labels)
        for i, record in zip(part, outputs, strict=True):
            about = {'row': inputs.rows[i]} | ({'id': inputs.examples[i].id} if inputs.examples[i].id else {})
            records[i] = about | record
        tick(len(part))
    line.close(f'{len(records)} rows')
    return records


def _parts(kind: Kind, examples: Sequence[Example], size: int = 4096) -> list[list[int]]:
    """Groups the indices of examples that can be encoded together: with the same number of choices, and all with or all
    without a second text. A group has at most `size` examples, which limits the memory of tokens and logits."""
    groups: dict[int, list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(kind.encoding_group(example), []).append(i)
    return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]


def _write_vectors(request: Request, opened: Opened, forward: Forward, inputs: Input) -> None:
    asked, pooling, config = request.evaluation.retrieval_layer, request.evaluation.pooling, opened.source.config
    layer = retrieval_layer(config, asked, pooling)
    line = Line(f'vectors {Path(request.input).name}')
    sentences = [each for each in inputs.examples if isinstance(each, SentenceExample)]
    data = encode(inputs.task, with_prefixes(sentences, pooling), opened.tokenizer, opened.max_length)
    tick = counter(lambda done, total: line(done, total, done), len(inputs.examples))
    out = request.out if is_leader() else None
    vectors = embed_sentences(forward, data.tokens, layer=layer, pooling=pooling, out=out, tick=tick)
    line.close(f'{len(vectors)} rows')
    say(f'float32 {list(vectors.shape)}, {layer_note(config, asked, pooling)}: {request.out}')
