"""Examples as arrays: which text goes where, labels, ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.data.encode import NO_LABEL
from xlmr_flax.data.sources import read_pairs, read_split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.kinds import encode
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import PairExample, SentenceExample


@pytest.fixture(scope='module')
def tokenizer(tiny_tokenizer: Path) -> Tokenizer:
    return Tokenizer(tiny_tokenizer, 2048)


def test_a_pair_is_two_texts_in_order_with_its_label(tokenizer: Tokenizer) -> None:
    task = get_task('world_nli')
    examples = [PairExample('x', 'the hospital', 'Paris', 2), PairExample('y', 'Paris', 'the hospital', None)]
    data = encode(task, examples, tokenizer, 32)
    a, b = (tokenizer.encode([text])[0].tolist() for text in ('the hospital', 'Paris'))
    assert data.tokens[0].tolist() == [0, *a, 2, 2, *b, 2]
    assert data.tokens[1].tolist() == [0, *b, 2, 2, *a, 2]
    assert data.label.tolist() == [2, NO_LABEL]
    assert data.label.dtype == np.int32
    assert (data.ids, len(data)) == (('x', 'y'), 2)


def test_a_pair_without_a_second_text_is_a_single_one(tokenizer: Tokenizer) -> None:
    data = encode(get_task('world_pairs'), [PairExample('x', 'Paris', None, 1)], tokenizer, 32)
    assert data.tokens[0].tolist() == [0, *tokenizer.encode(['Paris'])[0].tolist(), 2]


def test_sentences_have_no_label(tokenizer: Tokenizer) -> None:
    data = encode(get_task('world_retrieval'), [SentenceExample('x', 'Paris')], tokenizer, 32)
    assert data.tokens[0].tolist() == [0, *tokenizer.encode(['Paris'])[0].tolist(), 2]
    assert len(data.label) == 0


def test_nothing_is_longer_than_asked_for(tokenizer: Tokenizer) -> None:
    pairs = encode(get_task('world_nli'), read_split(get_task('world_nli'), 'en', 'dev', limit=20), tokenizer, 14)
    assert pairs.tokens.lengths.max() == 14
    english, _ = read_pairs(get_task('world_retrieval'), 'de', 'dev', limit=20)
    assert encode(get_task('world_retrieval'), english, tokenizer, 6).tokens.lengths.max() == 6
