"""Damaged files of every format give rows, bad rows or a user error, never another exception (10,000 with -m slow)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece_files import model_file
from tasks import tiny_files
from tasks.test_tiny_files import EXPECTED, TRANSLATED

from xlmr_flax.analysis.significance import read_tests
from xlmr_flax.analysis.study_report import _saved_config, curves, failures
from xlmr_flax.config import parse, to_dict
from xlmr_flax.data.inputs import read_input
from xlmr_flax.data.readers import tfds
from xlmr_flax.data.sources import read_gold, read_pairs, read_split
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.experiment.plan.cost import reached_speed
from xlmr_flax.experiment.workdir.claims import Claims
from xlmr_flax.experiment.workdir.files import Workdir, read_evaluation
from xlmr_flax.kinds import KINDS, HeadSpec
from xlmr_flax.models import hf
from xlmr_flax.models.model import Model
from xlmr_flax.models.sentencepiece import LAYOUTS, build, read_model
from xlmr_flax.models.source import open_source, save_checkpoint
from xlmr_flax.report import make_study, read_rows
from xlmr_flax.report.rows import check_row
from xlmr_flax.scoring import files
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tools.torch.agreement import read_records
from xlmr_flax.train.checkpoint import saved_facts
from xlmr_flax.util.errors import UserError
from xlmr_flax.util.manifest import MANIFEST

DEFAULT, SLOW = 300, 10_000
MODEL = 'sentencepiece.bpe.model'
# Pieces that have broken readers: of JSON, of fields, of numbers, of Unicode, of CoNLL-U.
PIECES = [
    b'"', b'\\', b'\\ud83d', b'{', b'}', b'[', b']', b',', b':', b'\t', b'\n', b'\r\n', b'\n\n', b' ', b'\x00', b'\xff',
    b'\xe2\x80\xa8', b'\xc2\x85',
    b'\xef\xbb\xbf', b'null', b'true', b'NaN', b'Infinity', b'-1', b'1e999', b'9' * 5000,
    b'[' * 2000,
    b'\xc2\xb2', b'3-1', b'1.1', b'_', b'{"a": 1, "a": 2}', b'-DOCSTART-', b'(<L ', b'<?xml', b'||', b'en:',
]  # fmt: skip
Mutation = tuple[int, int, int, bytes]  # (operation, position and length in 10,000ths, piece)
mutations = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 9_999), st.integers(0, 2_000), st.sampled_from(PIECES)),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, changes: list[Mutation]) -> bytes:
    """Cuts, truncates, repeats, replaces or inserts."""
    for operation, place, length, piece in changes:
        start = place * (len(data) + 1) // 10_000
        end = min(len(data), start + length * len(data) // 10_000 + 1)
        middle = [b'', b'', data[start:end] * 2, piece, piece + data[start:end]][operation]
        data = data[:start] + middle + (b'' if operation == 1 else data[end:])
    return data


OTHERS = [None, True, -1, 0, 1.5, 10**30, '', 'x', '\ud83d', [], [5], {}, {'x': 5}]


def with_another(value: Any, place: int, other: Any) -> Any:
    """The value with one of its parts, or all of it, replaced."""
    if not isinstance(value, dict | list) or not value or place % 4 == 0:
        return other
    keys, rest = list(value) if isinstance(value, dict) else range(len(value)), place // 4
    key = keys[rest % len(keys)]
    made = with_another(value[key], rest // len(keys), other)
    if isinstance(value, dict):
        return {**value, key: made}
    return [*value[:key], made, *value[key + 1 :]]


def mutate_json(data: bytes, changes: list[Mutation]) -> bytes:
    """Whole JSON, or a line of JSON lines, in which values have other types or sizes."""
    try:
        before, line, after = b'', data, b''
        value = json.loads(data)
    except ValueError:
        lines = data.splitlines(keepends=True)
        number = changes[0][1] % len(lines)
        before, line, after = b''.join(lines[:number]), lines[number], b''.join(lines[number + 1 :])
        value = json.loads(line)
    for operation, place, length, _ in changes:
        value = with_another(value, place * 2001 + length, OTHERS[(operation + place) % len(OTHERS)])
    return before + json.dumps(value).encode() + b'\n' + after


def is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text('utf-8').partition('\n')[0] if path.suffix == '.jsonl' else path.read_text('utf-8'))
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def changed(path: Path, changes: list[Mutation], how: Callable[[bytes, list[Mutation]], bytes] = mutate):
    before = path.read_bytes()
    path.write_bytes(how(before, changes))
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_files.write(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """hf: a transformers directory; run: a run's model, without the list of sums; a SentencePiece model."""
    folder, spec = tmp_path_factory.mktemp('model'), HeadSpec('pair', 2)
    params = jax.device_get(Model(SIZES['tiny'], 'hf').init(jax.random.key(0), {'x': spec}))
    hf.save(folder / 'hf', SIZES['tiny'], params, tiny_tokenizer, head=('x', spec))
    save_checkpoint(
        folder / 'run', SIZES['tiny'], params, tiny_tokenizer, style='hf', heads={'x': spec}, labels={'x': ('a', 'b')},
        max_length=16, extra={},
    )  # fmt: skip
    (folder / 'run' / MANIFEST).unlink()
    vocab = json.loads(tiny_tokenizer.read_text('utf-8'))['model']['vocab'][4:-1]
    pieces = [('<unk>', 0.0, 2), ('<s>', 0.0, 3), ('</s>', 0.0, 3), *((piece, score, 1) for piece, score in vocab)]
    (folder / MODEL).write_bytes(model_file(pieces))
    return folder


SPLITS = [*EXPECTED, *TRANSLATED]
RETRIEVAL = [
    (task.name, split)
    for task in all_tasks().values()
    if task.kind == 'retrieval'
    for split in task.splits
    if Split(task, 'en', split).reads_files
]


def a_split(root: Path, choice: int, changes: list[Mutation]) -> None:
    name, language, split = SPLITS[choice % len(SPLITS)]
    task, bad = get_task(name), []
    paths = Split(task, language, split, root).files()
    path = paths[choice % len(paths)]
    with changed(path, changes, mutate_json if is_json(path) and choice // len(SPLITS) % 2 else mutate):
        for row in read_split(task, language, split, root, skip_bad_rows=bad):
            assert row.id
        assert all(0 < len(each.reason) < 1000 for each in bad)


def retrieval(root: Path, choice: int, changes: list[Mutation]) -> None:
    name, split = RETRIEVAL[choice % len(RETRIEVAL)]
    task = get_task(name)
    there = [each for code in task.languages if (each := Split(task, code, split, root)).is_there()]
    if not there:
        return
    language, paths = (each := there[choice % len(there)]).language, each.files()
    path = paths[choice % len(paths)]
    with changed(path, changes, mutate_json if is_json(path) and choice // len(RETRIEVAL) % 2 else mutate):
        read_pairs(task, language, split, root, skip_bad_rows=[])
        if split in task.gold:
            read_gold(task, language, split, root)


ROWS_OF_ONES_OWN = {
    'tsv': 'text_a\ttext_b\tid\na b\tc\t1\nd\te\t2\n', 'csv': 'text_a,text_b\n"a, b",c\nd,"e\nf"\n',
    'txt': 'a b\nc d\n',
    'jsonl': '{"text_a": "a", "prompt": "p", "choices": ["a", "b"], "words": ["w"], "question": "q", "context": "c", '
    '"text": "t", "id": "1"}\n',
    'conll': 'Ada\tB-PER\nruns\tO\n\nOslo\tB-LOC\n', 'conllu': '1\tAda\t_\tX\t_\t_\t0\troot\t_\t_\n\n',
    'json': '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "q", "answers": []}]}]}]}',
}  # fmt: skip


def own_rows(folder: Path, choice: int, changes: list[Mutation]) -> None:
    endings, forms = list(ROWS_OF_ONES_OWN), [kind.input for kind in KINDS.values() if kind.input]
    path = folder / f'rows.{endings[choice % len(endings)]}'
    how = mutate_json if path.suffix.startswith('.json') and choice // len(endings) % 2 else mutate
    path.write_bytes(how(ROWS_OF_ONES_OWN[path.suffix[1:]].encode(), changes))
    read_input(path, forms[choice % len(forms)], skip_bad_rows=[])


PREDICTIONS: list[tuple[Callable[[Path], Any], str]] = [
    (files.read_labels, 'a\nb\n'), (files.read_indices, '0\n1\n'), (files.read_choices, '{"label": 0}\n{"label": 1}\n'),
    (files.read_tags, 'O\nB-PER\n\nO\n'), (files.read_pairs, 'a\tb\nc\td\n'),
    (files.read_answers, '{"a": "x", "b": ""}'),
    (files.read_no_answer_scores, '{"a": 0.5}'), (files.read_rankings, '{"a": ["b", "c"]}'),
    (files.read_gold_answers, tiny_files.squad({'context': 'c d', 'qas': [tiny_files.question('1', 'q', ('c', 0))]})),
]  # fmt: skip


def predictions(folder: Path, choice: int, changes: list[Mutation]) -> None:
    read, text = PREDICTIONS[choice % len(PREDICTIONS)]
    path = folder / 'predictions'
    how = mutate_json if text.startswith('{') and text.count('\n') < 2 and choice // 9 % 2 else mutate
    path.write_bytes(how(text.encode(), changes))
    read(path)


RESULT = {
    'encoder': 'e', 'intermediate': 'none', 'target': 'xnli', 'language': 'de', 'split': 'test', 'metric': 'accuracy',
    'value': 50.0, 'n': 10, 'seed': 1, 'step': 5, 'run': 'r',
}  # fmt: skip


def result_rows(folder: Path, choice: int, changes: list[Mutation]) -> None:
    path = folder / 'results.jsonl'
    lines = [json.dumps(row).encode() for row in (RESULT, {**RESULT, 'language': 'en'}, {**RESULT, 'metric': 'f1'})]
    content = b'\n'.join(lines)
    path.write_bytes(mutate(content, changes) if choice % 2 else mutate_json(lines[0], changes) + content)
    make_study(read_rows(path))


def times(path: Path) -> None:
    workdir = Workdir(path.parent, look_only=True)
    assert workdir.seconds() > float('-inf')
    workdir.sources()


def points(path: Path) -> None:
    records = Workdir(path.parent, look_only=True).metrics()
    make_study([RESULT], {}, (), curves(records, CONFIG))
    reached_speed(records, lambda run: 1.0, 'a device')


def evaluated(path: Path) -> None:
    for row in read_evaluation(path, 'k') or ():
        check_row(row, str(path))


def claimed(path: Path) -> None:
    Claims(path.parent, look_only=True).holder('run')


CONFIG = parse({'encoder': {'source': 'random:tiny'}, 'targets': ['world_pairs'], 'intermediate': ['none']})
RECORD = {'run': 'r', 'intermediate': 'none', 'target': 'world_pairs', 'seed': 1, 'step': 1, 'loss': 0.5} | {
    'examples_per_s': 5.0, 'dev_metric': 0.5, 'task': 'world_pairs',
}  # fmt: skip
TEST = dict.fromkeys(('encoder', 'intermediate', 'target', 'split', 'metric'), 'x') | {
    'languages': 'all', 'p': 0.5, 'difference': 1.0, 'low': 0.5, 'high': 1.5, 'n': 5, 'parts': 1, 'seeds': 1,
    'resamples': 9, 'alpha': 0.05,
}  # fmt: skip
# Files that this package writes: name -> (content, what reads it).
OURS: dict[str, tuple[Any, Callable[[Path], Any]]] = {
    'time.json': ({'seconds': 5.0, 'sources': []}, times),
    'metrics.jsonl': (RECORD, points),
    'records/metrics.jsonl': (RECORD, lambda path: read_records(path, {'run': str, 'seed': int})),
    'config.json': ({'config': to_dict(CONFIG), 'command': 'x'}, lambda path: _saved_config(path.parent)),
    'significance.json': (
        {'format': 1, 'targets': {'k': [TEST]}},
        lambda path: make_study([RESULT], {}, read_tests(path)),
    ),
    'evaluation.json': ({'key': 'k', 'rows': [RESULT]}, evaluated),
    'failed/r.json': (
        {'run': 'none--x', 'type': 'E', 'error': 'e'},
        lambda path: failures(Workdir(path.parent.parent, look_only=True), CONFIG),
    ),
    'claims/run.1.json': (
        {'host': 'h', 'pid': 7, 'space': 's', 'began': 1, 'shard': '', 'since': 1.0, 'released': ''},
        claimed,
    ),
    'checkpoint/facts/metadata': ({'run_hash': 'h', 'decides': {}}, lambda path: saved_facts(path.parent.parent)),
    'tfds/snli/1.1.0/dataset_info.json': (
        {'fileFormat': 'array_record', 'splits': [{'name': 'train'}]},
        lambda path: tfds.find_prepared('intermediate/snli/snli_1.0_train.txt', path.parents[3]),
    ),
}


def own_files(folder: Path, choice: int, changes: list[Mutation]) -> None:
    name = list(OURS)[choice % len(OURS)]
    content, read = OURS[name]
    how = (mutate, mutate_json)[choice // len(OURS) % 2]
    path = folder / 'ours' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(how(json.dumps(content).encode() + b'\n', changes))
    try:
        read(path)
    finally:
        path.unlink()


def model_files(model: Path, choice: int, changes: list[Mutation]) -> None:
    """A transformers directory's files (of model.safetensors the header alone: any bytes are tensors), the description
    of a run's model, and a SentencePiece model.
    """
    name = ('hf/config.json', 'hf/tokenizer.json', 'hf/model.safetensors', 'run/model.json', MODEL)[choice % 5]
    if name == MODEL:
        content = (model / MODEL).read_bytes()
        layout = LAYOUTS[MODEL]
        build(read_model(mutate(content, changes), MODEL, layout), layout, [], MODEL).encode('a text')
        return
    if 'safetensors' in name:
        changes = [(operation, place // 500, length, piece) for operation, place, length, piece in changes]
    how = mutate_json if name.endswith('.json') and choice // 5 % 2 else mutate
    with changed(model / name, changes, how):
        source = open_source(f'hf:{model}/hf' if name.startswith('hf') else f'ckpt:{model}/run')
        Tokenizer(source.tokenizer, source.config.vocab_size).encode(['a text'])
        source.load()


TARGETS = {'split': a_split, 'retrieval': retrieval, 'model': model_files} | {
    each.__name__: each for each in (own_rows, predictions, result_rows, own_files)
}
SHARE = {'split': 0.4, 'retrieval': 0.1, 'model': 0.1, 'own_files': 0.2}


def fuzz(name: str, folder: Path, examples: int) -> None:
    @settings(
        max_examples=max(10, int(examples * SHARE.get(name, 0.1125))), derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(choice=st.integers(0, 10_000), changes=mutations)
    def run(choice: int, changes: list[Mutation]) -> None:
        with contextlib.suppress(UserError):
            TARGETS[name](folder, choice, changes)

    run()


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name = request.node.callspec.params['name']
    fixture = {'split': 'root', 'retrieval': 'root', 'model': 'model'}.get(name)
    return request.getfixturevalue(fixture) if fixture else tmp_path


@pytest.mark.parametrize('name', TARGETS)
def test_a_few_hundred_damaged_files(name: str, folder: Path) -> None:
    fuzz(name, folder, DEFAULT)


@pytest.mark.slow
@pytest.mark.parametrize('name', TARGETS)
def test_ten_thousand_damaged_files(name: str, folder: Path) -> None:
    fuzz(name, folder, SLOW)
