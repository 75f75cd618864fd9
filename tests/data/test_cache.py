"""The token cache: the same as without it, never something else, and safe with two writers and damaged files."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.data import cache
from xlmr_flax.data.cache import cache_dir, examples_digest, from_arrays, to_arrays
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.kinds import cache_entry, encode, encode_cached, kind_of
from xlmr_flax.kinds.pair import Pair
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import (
    ChoiceExample,
    Example,
    PairExample,
    SentenceExample,
    SpanExample,
    TagExample,
    Task,
    TaskError,
)

CONTEXT = 'The lake froze in May. Nobody had seen that before, not even the old men of the village.'
EXAMPLES: dict[str, list[Example]] = {
    'xnli': [PairExample(f'p{i}-ö', 'the hospital ' * i, 'Paris', i % 3 if i else None) for i in range(7)],
    'hellaswag': [ChoiceExample(f'c{i}', 'She opens', ('a b', 'c', 'd e', 'f'), i % 4) for i in range(5)],
    'udpos': [TagExample(f't{i}', ('The', 'lake', 'froze') * (i + 1), (5, 7, 15) * (i + 1)) for i in range(9)],
    'squad_v2': [
        SpanExample('s1', 'When?', CONTEXT * 3, (('May', 18),)),
        SpanExample('s2', 'Why?', CONTEXT, (), is_impossible=True),
    ],
    'tatoeba': [SentenceExample(f'r{i}', 'Hallo Welt ' * i) for i in range(4)],
    'lareqa': [SentenceExample('q', 'When did it freeze?'), SentenceExample('a', 'In May.', CONTEXT)],
}


@pytest.fixture(scope='module')
def tokenizer(tiny_tokenizer: Path) -> Tokenizer:
    return Tokenizer(tiny_tokenizer, 2048)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that keeps even one example."""
    monkeypatch.setenv('XLMR_CACHE', str(tmp_path / 'tokens'))
    monkeypatch.setattr(cache, 'SMALLEST', 1)
    return tmp_path / 'tokens'


def name_of(task: Task, examples: Any, tokenizer: Tokenizer, max_length: int) -> str:
    return cache.entry_name(task, examples, tokenizer, max_length, kind_of(task).encode)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def same(a: Any, b: Any) -> bool:
    """Equality of nested dataclasses of arrays, types included."""
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize('name', EXAMPLES)
def test_what_is_read_is_what_was_encoded(name: str, tokenizer: Tokenizer) -> None:
    task, examples = get_task(name), EXAMPLES[name]
    plain = encode(task, examples, tokenizer, 24)
    first, second = (cache_entry(task, examples, tokenizer, 24) for _ in range(2))
    assert (first.state, second.state) == ('written', 'read')
    for entry in (first, second):
        assert same(entry.data, plain)
        assert not entry.data.tokens.flat.flags.writeable
        assert isinstance(entry.data.tokens.flat.base, np.memmap)
    assert same(encode_cached(task, examples, tokenizer, 24), plain)


@pytest.mark.parametrize('name', EXAMPLES)
def test_arrays_and_back(name: str, tokenizer: Tokenizer) -> None:
    data = encode(get_task(name), EXAMPLES[name], tokenizer, 24)
    assert same(from_arrays(data.kind, data.group, to_arrays(data)), data)


def test_every_difference_is_another_name(tokenizer: Tokenizer, tiny_tokenizer: Path, tmp_path: Path) -> None:
    task, examples = get_task('xnli'), EXAMPLES['xnli']
    other = tmp_path / 'tokenizer.json'
    other.write_text(tiny_tokenizer.read_text(encoding='utf-8') + '\n', encoding='utf-8')
    names = [
        name_of(task, examples, tokenizer, 24),
        name_of(task, examples, tokenizer, 32),
        name_of(task, examples[1:], tokenizer, 24),
        name_of(task, examples[::-1], tokenizer, 24),
        name_of(task, examples, Tokenizer(other, 2048), 24),
        name_of(get_task('pawsx'), examples, tokenizer, 24),
    ]
    assert len(set(names)) == len(names)
    assert name_of(task, list(examples), tokenizer, 24) == names[0]


def test_the_code_that_encodes_is_in_the_name(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_of(get_task('xnli'), EXAMPLES['xnli'], tokenizer, 24)
    monkeypatch.setattr(cache, '_code_digest', lambda kind: 'changed')
    assert name_of(get_task('xnli'), EXAMPLES['xnli'], tokenizer, 24) != before


@pytest.mark.parametrize(
    'changed',
    [
        PairExample('p', 'a', 'b', 0),
        PairExample('', 'a', 'b', 1),
        PairExample('', 'a', '', 0),
        PairExample('', 'a', None, 0),
        PairExample('', 'a', 'b', None),
        PairExample('', "a', 'b", '', 0),
        SentenceExample('', 'a', 'b'),
    ],
)
def test_the_digest_sees_every_field(changed: Example) -> None:
    assert examples_digest([changed]) != examples_digest([PairExample('', 'a', 'b', 0)])


def test_the_digest_of_many_is_that_of_all() -> None:
    many = [SentenceExample(str(i), 'x') for i in range(5000)]
    assert examples_digest(iter(many)) == examples_digest(many)
    assert examples_digest(many[:4096]) != examples_digest(many)
    assert examples_digest([*many[:-1], SentenceExample('4999', 'y')]) != examples_digest(many)


def truncate(folder: Path) -> None:
    file = folder / 'tokens.npy'
    file.write_bytes(file.read_bytes()[:-4])


def flip(folder: Path) -> None:
    file = folder / 'tokens.npy'
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def drop(folder: Path) -> None:
    (folder / 'label.npy').unlink()


def cut_index(folder: Path) -> None:
    index = folder / 'index.json'
    index.write_text(index.read_text(encoding='utf-8')[:40], encoding='utf-8')


def no_index(folder: Path) -> None:
    (folder / 'index.json').unlink()


def other_format(folder: Path) -> None:
    index = json.loads((folder / 'index.json').read_text(encoding='utf-8'))
    (folder / 'index.json').write_text(json.dumps(index | {'format': 99}), encoding='utf-8')


def other_index(folder: Path) -> None:
    (folder / 'index.json').write_text('[' * 9999, encoding='utf-8')


@pytest.mark.parametrize('damage', [truncate, flip, drop, cut_index, no_index, other_format, other_index])
def test_a_damaged_entry_is_made_again(
    damage: Callable[[Path], None], tokenizer: Tokenizer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task, examples = get_task('xnli'), EXAMPLES['xnli']
    first = cache_entry(task, examples, tokenizer, 24)
    assert first.path is not None
    expected = encode(task, examples, tokenizer, 24)
    damage(first.path)
    with caplog.at_level(logging.WARNING):
        again = cache_entry(task, examples, tokenizer, 24)
    assert again.state == 'written'
    assert same(again.data, expected)
    assert str(first.path) in caplog.text
    assert 'made again' in caplog.text
    assert entries(folder) == [first.path.name]
    assert cache_entry(task, examples, tokenizer, 24).state == 'read'


def test_nothing_is_unpickled(tokenizer: Tokenizer, folder: Path) -> None:
    task, examples = get_task('xnli'), EXAMPLES['xnli']
    path = cache_entry(task, examples, tokenizer, 24).path
    assert path is not None
    np.save(path / 'label.npy', np.asarray([{}], object), allow_pickle=True)
    index = json.loads((path / 'index.json').read_text(encoding='utf-8'))
    file = path / 'label.npy'
    index['files']['label.npy'] = {'bytes': file.stat().st_size, 'sha256': cache._sha256(file)}
    (path / 'index.json').write_text(json.dumps(index), encoding='utf-8')
    assert cache_entry(task, examples, tokenizer, 24).state == 'written'


def test_what_is_not_kept(tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = EXAMPLES['xnli']
    assert cache_entry(get_task('world_nli'), examples, tokenizer, 24).state == 'not kept'
    monkeypatch.setattr(cache, 'SMALLEST', len(examples) + 1)
    assert cache_entry(get_task('xnli'), examples, tokenizer, 24).state == 'not kept'
    monkeypatch.setattr(cache, 'SMALLEST', 1)
    monkeypatch.setenv('XLMR_CACHE', 'off')
    entry = cache_entry(get_task('xnli'), examples, tokenizer, 24)
    assert (entry.state, entry.path) == ('not kept', None)
    assert not folder.exists()


def test_where_entries_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('XLMR_CACHE', '~/tokens')
    assert cache_dir() == Path.home() / 'tokens'
    monkeypatch.delenv('XLMR_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert cache_dir() == tmp_path / 'xlmr_flax' / 'tokens'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert cache_dir() == Path.home() / '.cache' / 'xlmr_flax' / 'tokens'


def test_errors_are_those_of_encode(tokenizer: Tokenizer, folder: Path) -> None:
    with pytest.raises(TaskError, match='no examples'):
        cache_entry(get_task('xnli'), [], tokenizer, 24)
    uneven = [ChoiceExample('a', 'p', ('x', 'y'), 0), ChoiceExample('b', 'p', ('x',), 0)]
    with pytest.raises(TaskError, match='1, 2'):
        cache_entry(get_task('hellaswag'), uneven, tokenizer, 24)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_no_error(
    tokenizer: Tokenizer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text('a file')
    with caplog.at_level(logging.WARNING):
        entry = cache_entry(get_task('xnli'), EXAMPLES['xnli'], tokenizer, 24)
    assert entry.state == 'not kept'
    assert str(folder) in caplog.text


def test_a_writer_that_comes_second_uses_the_first(
    tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, examples = get_task('xnli'), EXAMPLES['xnli']
    inner: list[cache.Entry] = []
    real = Pair.encode

    def slow(*arguments: Any) -> Encoded:  # while this one encodes, another one writes
        monkeypatch.setattr(Pair, 'encode', real)
        inner.append(cache_entry(task, examples, tokenizer, 24))
        return real(*arguments)

    slow.__module__ = real.__module__  # part of the entry's name
    monkeypatch.setattr(Pair, 'encode', slow)
    outer = cache_entry(task, examples, tokenizer, 24)
    assert [inner[0].state, outer.state] == ['written', 'read']
    assert same(inner[0].data, outer.data)
    assert len(entries(folder)) == 1


def test_what_a_killed_writer_left_is_deleted_a_day_later(
    tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = folder / '.xnli-abc-123'
    left.mkdir(parents=True)
    cache_entry(get_task('xnli'), EXAMPLES['xnli'], tokenizer, 24)
    assert left.is_dir()
    monkeypatch.setattr(cache, '_ABANDONED', -1.0)
    cache_entry(get_task('xnli'), EXAMPLES['xnli'], tokenizer, 32)
    assert not left.exists()


def _process(path: Path, root: str, start: Any, found: Any) -> None:
    import os

    os.environ['XLMR_CACHE'] = root
    cache.SMALLEST = 1
    tokenizer = Tokenizer(path, 2048)
    states = []
    start.wait()
    for length in range(16, 36):
        entry = cache_entry(get_task('xnli'), EXAMPLES['xnli'], tokenizer, length)
        states.append((entry.state, int(entry.data.tokens.flat.sum())))
    found.put(states)


def test_two_processes_at_once(tiny_tokenizer: Path, tokenizer: Tokenizer, folder: Path) -> None:
    context = multiprocessing.get_context('spawn')
    start, found = context.Event(), context.Queue()
    processes = [context.Process(target=_process, args=(tiny_tokenizer, str(folder), start, found)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    results = [found.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    sums = [
        int(encode(get_task('xnli'), EXAMPLES['xnli'], tokenizer, length).tokens.flat.sum()) for length in range(16, 36)
    ]
    for states in results:
        assert [total for _, total in states] == sums
    for pair in zip(*results, strict=True):  # at least one has written, and what it has written is whole
        assert {state for state, _ in pair} <= {'written', 'read'}
        assert 'written' in {state for state, _ in pair}
    assert len(entries(folder)) == len(sums)
    shutil.rmtree(folder)
