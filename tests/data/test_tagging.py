"""Tag rows: labels on first sub-tokens, long sentences split and joined, words without sub-tokens kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.tagging import TagRows, join_tags, tag_rows
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import TagExample


@pytest.fixture(scope='module')
def tokenizer(tiny_tokenizer: Path) -> Tokenizer:
    return Tokenizer(tiny_tokenizer, 2048)


def _gold(rows: TagRows) -> list[np.ndarray]:
    return [rows.labels[i] for i in range(len(rows.labels))]


def test_label_stands_on_the_first_sub_token_of_each_word(tokenizer: Tokenizer) -> None:
    words = ('Maria', 'sleeps', 'unpronounceable', '.')
    rows = tag_rows(tokenizer, [TagExample('a', words, (3, 1, 2, 0))], 64)
    pieces = [tokenizer.encode([w])[0] for w in words]
    assert len(pieces[2]) > 1
    want = np.concatenate([[0], *pieces, [2]])
    np.testing.assert_array_equal(rows.tokens[0], want)
    first = np.cumsum([1] + [len(p) for p in pieces])[:-1]
    labels = np.full(len(want), IGNORED)
    labels[first] = [3, 1, 2, 0]
    np.testing.assert_array_equal(rows.labels[0], labels)
    np.testing.assert_array_equal(np.flatnonzero(rows.word_starts[0]), first)


@pytest.mark.parametrize('max_length', [8, 11, 16, 64])
def test_no_word_is_lost_whatever_the_length(tokenizer: Tokenizer, max_length: int) -> None:
    task = get_task('world_pos')
    examples = read_split(task, 'de', 'test')[:40]
    assert all(isinstance(e, TagExample) for e in examples)
    rows = tag_rows(tokenizer, examples, max_length)  # type: ignore[arg-type]
    assert rows.tokens.lengths.max() <= max_length - 1  # one is left over: XTREME's budget
    assert (len(rows.tokens) > len(examples)) == (max_length < 64)
    joined = join_tags(rows, _gold(rows), len(examples))
    assert joined == [list(e.tags) for e in examples]  # type: ignore[union-attr]


def test_words_without_sub_tokens_or_with_too_many_become_unknown(tokenizer: Tokenizer) -> None:
    words = ('a', '\u200b', 'x' * 400)
    rows = tag_rows(tokenizer, [TagExample('a', words, (0, 1, 2))], 32)
    assert (rows.tokens[0] == tokenizer.unk).sum() >= 2
    assert join_tags(rows, _gold(rows), 1) == [[0, 1, 2]]


def test_unlabelled_sentences_have_word_starts_all_the_same(tokenizer: Tokenizer) -> None:
    rows = tag_rows(tokenizer, [TagExample('a', ('Maria', 'sleeps'), None)], 32)
    assert rows.word_starts[0].sum() == 2
    assert (rows.labels[0] == IGNORED).all()
