"""Damaged files of every format: what is read gives rows, bad rows or a user error, and never another exception.

Mutations are drawn by hypothesis with a fixed seed: a few hundred by default, 10,000 with -m slow.
"""

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
from tasks import tiny_files
from tasks.test_tiny_files import EXPECTED, TRANSLATED

from xlmr_flax.data.inputs import FORMATS, read_input
from xlmr_flax.data.sources import available, needs_data_root, read_gold, read_pairs, read_split, split_files
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.eval import files
from xlmr_flax.experiment.workdir import Workdir
from xlmr_flax.models import hf
from xlmr_flax.models.config import SIZES
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import open_source
from xlmr_flax.report import make_study, read_rows
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.util.errors import UserError

DEFAULT, SLOW = 300, 10_000
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


@contextlib.contextmanager
def changed(path: Path, changes: list[Mutation]):
    before = path.read_bytes()
    path.write_bytes(mutate(before, changes))
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_files.write(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    folder = tmp_path_factory.mktemp('model') / 'm'
    params = jax.device_get(Model(SIZES['tiny'], 'hf').init(jax.random.key(0), {}))
    hf.save(folder, SIZES['tiny'], params, tiny_tokenizer)
    return folder


SPLITS = [*EXPECTED, *TRANSLATED]
RETRIEVAL = [
    (task.name, split)
    for task in all_tasks().values()
    if task.kind == 'retrieval'
    for split in task.splits
    if needs_data_root(task, split)
]


def a_split(root: Path, choice: int, changes: list[Mutation]) -> None:
    name, language, split = SPLITS[choice % len(SPLITS)]
    task, bad = get_task(name), []
    paths = split_files(task, language, split, root)
    with changed(paths[choice % len(paths)], changes):
        for row in read_split(task, language, split, root, skip_bad_rows=bad):
            assert row.id
        assert all(0 < len(each.reason) < 1000 for each in bad)


def retrieval(root: Path, choice: int, changes: list[Mutation]) -> None:
    name, split = RETRIEVAL[choice % len(RETRIEVAL)]
    task = get_task(name)
    there = [code for code in task.languages if available(task, code, split, root)]
    if not there:
        return
    language = there[choice % len(there)]
    paths = split_files(task, language, split, root)
    with changed(paths[choice % len(paths)], changes):
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
    endings, kinds = list(ROWS_OF_ONES_OWN), list(FORMATS)
    path = folder / f'rows.{endings[choice % len(endings)]}'
    path.write_bytes(mutate(ROWS_OF_ONES_OWN[path.suffix[1:]].encode(), changes))
    read_input(path, kinds[choice % len(kinds)], skip_bad_rows=[])


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
    path.write_bytes(mutate(text.encode(), changes))
    read(path)


RESULT = {
    'encoder': 'e', 'intermediate': 'none', 'target': 'xnli', 'language': 'de', 'split': 'test', 'metric': 'accuracy',
    'value': 50.0, 'n': 10, 'seed': 1, 'step': 5, 'run': 'r',
}  # fmt: skip


def result_rows(folder: Path, choice: int, changes: list[Mutation]) -> None:
    path = folder / 'results.jsonl'
    lines = [RESULT, RESULT | {'language': 'en', 'value': 60}, RESULT | {'metric': 'f1'}]
    path.write_bytes(mutate(''.join(json.dumps(row) + '\n' for row in lines).encode(), changes))
    make_study(read_rows(path))


def workdir_files(folder: Path, choice: int, changes: list[Mutation]) -> None:
    path = folder / 'workdir'
    path.mkdir(exist_ok=True)
    (path / 'time.json').write_bytes(mutate(b'{"seconds": 5.0, "sources": []}', changes))
    found = Workdir(path, look_only=True)
    found.seconds()
    found.sources()


def model_files(model: Path, choice: int, changes: list[Mutation]) -> None:
    """config.json, tokenizer.json and the header of model.safetensors (not its tensors, of which any bytes are one)."""
    name = ('config.json', 'tokenizer.json', 'model.safetensors')[choice % 3]
    near = [(operation, place // 500 if choice % 3 == 2 else place, length, piece)
            for operation, place, length, piece in changes]  # fmt: skip
    with changed(model / name, near):
        source = open_source(f'hf:{model}')
        Tokenizer(source.tokenizer, source.config.vocab_size).encode(['a text'])


TARGETS = {'split': a_split, 'retrieval': retrieval, 'model': model_files} | {
    each.__name__: each for each in (own_rows, predictions, result_rows, workdir_files)
}
SHARE = {'split': 0.4, 'retrieval': 0.1, 'model': 0.05}


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
