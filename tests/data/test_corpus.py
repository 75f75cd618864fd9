"""Raw text: which lines are held out, how long ones are divided, the token cache."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.data import cache
from xlmr_flax.data.cache import from_arrays, to_arrays
from xlmr_flax.data.corpus import hold_out, read_texts, text_rows
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.kinds import cache_entry, encode
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Example, SentenceExample, Table, Task, TaskError

TASK = get_task('mlm_text')


@pytest.fixture(scope='module')
def tokenizer(tiny_tokenizer: Path) -> Tokenizer:
    return Tokenizer(tiny_tokenizer, 2048)


def write(root: Path, name: str, lines: list[str]) -> Path:
    path = root / 'raw_text' / 'mlm' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return root


def texts(examples: list[Example]) -> list[str]:
    assert all(isinstance(e, SentenceExample) for e in examples)
    return [e.text for e in examples if isinstance(e, SentenceExample)]


def test_every_line_is_on_one_side(tmp_path: Path) -> None:
    lines = [f'line {i % 150}' for i in range(200)]
    write(tmp_path, 'de.txt', lines)
    train, dev = (read_texts(TASK, 'de', split, tmp_path) for split in ('train', 'dev'))
    assert len(set(texts(dev))) == 7
    assert not set(texts(train)) & set(texts(dev)), 'a repeated line is on one side'
    whole = read_split(TASK, 'de', 'train', tmp_path)
    assert sorted([*train, *dev], key=lambda e: int(e.id.rsplit('-', 1)[1])) == whole
    assert [e.id for e in read_texts(TASK, 'de', 'train', tmp_path, limit=5)] == [e.id for e in train[:5]]
    assert len(read_texts(TASK, 'de', 'dev', tmp_path, limit=3)) == 3


def test_the_order_of_a_file_means_nothing(tmp_path: Path) -> None:
    lines = [f'line {i}' for i in range(100)]
    a = read_texts(TASK, 'de', 'dev', write(tmp_path / 'a', 'de.txt', lines))
    b = read_texts(TASK, 'de', 'dev', write(tmp_path / 'b', 'de.txt', lines[::-1]))
    assert sorted(texts(a)) == sorted(texts(b))
    assert len(a) == 5


@pytest.mark.parametrize(('n', 'held'), [(2, 1), (19, 1), (40, 2), (59, 2)])
def test_how_many_are_held_out(n: int, held: int) -> None:
    train, dev = hold_out([SentenceExample(str(i), f'line {i}') for i in range(n)])
    assert (len(train), len(dev)) == (n - held, held)


def test_a_file_of_one_line_cannot_be_divided(tmp_path: Path) -> None:
    root = write(tmp_path, 'de.txt', ['the same', 'the same'])
    with pytest.raises(DataError, match="task 'mlm_text', language 'de': 2 lines, all alike, cannot be divided"):
        read_texts(TASK, 'de', 'train', root)


def test_a_dev_file_is_read_where_the_task_has_one(tmp_path: Path) -> None:
    table = Table('raw_text/mlm/{language}.dev.txt', 'lines', ('text',))
    task = dataclasses.replace(TASK, splits={**TASK.splits, 'dev': (table,)})
    write(tmp_path, 'de.txt', [f'line {i}' for i in range(30)])
    assert len(read_texts(task, 'de', 'dev', tmp_path)) == 1
    write(tmp_path, 'de.dev.txt', ['one', 'two', 'three'])
    assert texts(read_texts(task, 'de', 'dev', tmp_path)) == ['one', 'two', 'three']
    assert len(read_texts(task, 'de', 'train', tmp_path)) == 30
    assert len(read_texts(task, 'de', 'train', tmp_path, limit=4)) == 4


def test_what_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="task 'xnli' is of kind 'pair', not text"):
        read_texts(get_task('xnli'), 'de', 'train', tmp_path)
    with pytest.raises(TaskError, match="task 'mlm_text': split 'test' is not one of train, dev"):
        read_texts(TASK, 'de', 'test', tmp_path)
    with pytest.raises(DataError, match='de'):
        read_texts(TASK, 'de', 'train', tmp_path)


def test_nothing_of_a_long_line_is_lost(tokenizer: Tokenizer) -> None:
    examples = [SentenceExample('a', 'the hospital in Paris ' * 9), SentenceExample('b', 'Paris')]
    whole = tokenizer.encode([e.text for e in examples])
    tokens, ids = text_rows(tokenizer, examples, 16)
    count = -(-len(whole[0]) // 14)
    assert count > 2
    assert ids == (*(f'a/{i}' for i in range(count)), 'b')
    rows = [tokens[i] for i in range(len(tokens))]
    assert all(row[0] == tokenizer.bos and row[-1] == tokenizer.eos for row in rows)
    np.testing.assert_array_equal(np.concatenate([row[1:-1] for row in rows[:-1]]), whole[0])
    np.testing.assert_array_equal(rows[-1][1:-1], whole[1])
    lengths = tokens.lengths[:-1]
    assert lengths.max() <= 16 and lengths.max() - lengths.min() <= 1, 'no part is a scrap'


def test_a_line_that_just_fits_is_one_row(tokenizer: Tokenizer) -> None:
    examples = [SentenceExample('a', 'the hospital in Paris')]
    n = len(tokenizer.encode([examples[0].text])[0])
    assert text_rows(tokenizer, examples, n + 2)[1] == ('a',)
    assert text_rows(tokenizer, examples, n + 1)[1] == ('a/0', 'a/1')


def test_a_text_without_a_token(tokenizer: Tokenizer) -> None:
    empty, word = SentenceExample('a', ''), SentenceExample('b', 'Paris')
    assert text_rows(tokenizer, [empty, word], 16)[1] == ('b',)
    with pytest.raises(TaskError, match='1 texts have no token'):
        text_rows(tokenizer, [empty], 16)


def test_encoded_text_has_one_id_a_row_and_can_be_cached(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XLMR_CACHE', str(tmp_path))
    monkeypatch.setattr(cache, 'SMALLEST', 1)
    examples: list[Example] = [SentenceExample(f'x-{i}', 'the hospital in Paris ' * i) for i in range(1, 9)]
    data = encode(TASK, examples, tokenizer, 16)
    assert (data.kind, data.group, len(data.label)) == ('mlm', 1, 0)
    assert len(data) == len(data.tokens) == len(data.ids) > len(examples)
    assert data.unit_id(0) == 'x-1'
    assert data.unit_id(len(data) - 1) == f'x-8/{sum(name.startswith("x-8/") for name in data.ids) - 1}'
    first, second = (cache_entry(TASK, examples, tokenizer, 16) for _ in range(2))
    assert (first.state, second.state) == ('written', 'read')
    for found in (first.data, second.data, from_arrays('mlm', 1, to_arrays(data))):
        assert (found.kind, found.ids, len(found)) == (data.kind, data.ids, len(data))
        np.testing.assert_array_equal(found.tokens.flat, data.tokens.flat)
        np.testing.assert_array_equal(found.tokens.offsets, data.tokens.offsets)


@pytest.mark.parametrize('language', ['en', 'sw', 'th', 'zh'])
def test_real_text(language: str, data_root: Path, tokenizer: Tokenizer) -> None:
    task: Task = get_task('udhr')
    train, dev = (read_texts(task, language, split, data_root) for split in ('train', 'dev'))
    assert len(dev) >= 4 and len(train) > 10 * len(dev)
    assert not set(texts(train)) & set(texts(dev))
    data = encode(task, train, tokenizer, 64)
    assert data.tokens.lengths.max() <= 64
    assert int((data.tokens.lengths - 2).sum()) == sum(tokenizer.encode(texts(train)).lengths)
