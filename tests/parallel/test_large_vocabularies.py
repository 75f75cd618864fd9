"""Vocabularies of 401,145 (Glot500) and 901,629 (XLM-V) pieces, both odd: sharding, and the active rows of a run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import AXES, spec_for
from xlmr_flax.train.vocabulary import ActiveRows

WORDS = 'encoder/embeddings/word'
MESH = AbstractMesh((1, 4, 2), AXES)


@pytest.mark.parametrize('size', [401_145, 901_629])
def test_the_word_table_is_sharded(size: int) -> None:
    """A whole table of an odd number of words by columns alone; that of a run's words by words and columns."""
    config = dataclasses.replace(SIZES['base'], vocab_size=size)
    shape = Model(config).shapes({})['encoder']['embeddings']['word'].shape
    assert shape == (size, 768)
    assert spec_for(WORDS, shape, MESH) == PartitionSpec(None, 'fsdp')  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    tokens = Ragged.from_rows([random.integers(5, size, 40).astype(np.int32) for _ in range(500)])
    active = ActiveRows.of([tokens], size)
    assert len(active.rows) < 21_000 and len(active.rows) % 512 == 0
    assert spec_for(WORDS, (len(active.rows), 768), MESH) == PartitionSpec('model', 'fsdp')  # type: ignore[arg-type]


def test_a_run_changes_its_own_words_alone() -> None:
    size = 901_629
    word = np.random.default_rng(0).normal(size=(size, 3)).astype(np.float32)
    params = {'encoder': {'embeddings': {'word': word}}}
    tokens = Ragged.from_rows([np.asarray([0, 250_001, 401_145, size - 1, 2], np.int32)])
    active = ActiveRows.of([tokens], size)
    small = active.cut(params)
    ids = active.remap(tokens).flat
    assert ids.max() < len(active.rows) == 512 and ids[0] == 0 and ids[-1] == 2
    np.testing.assert_array_equal(small['encoder']['embeddings']['word'][ids], word[tokens.flat])
    small['encoder']['embeddings']['word'] = small['encoder']['embeddings']['word'] + 1.0
    found = active.restore(small, word, 0.5)['encoder']['embeddings']['word']
    np.testing.assert_array_equal(found[active.rows], word[active.rows] + 1.0)
    rest = np.setdiff1d(np.arange(size), active.rows)
    np.testing.assert_array_equal(found[rest], word[rest] * np.float32(0.5))
