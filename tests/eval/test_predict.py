"""Forward passes over a set, and nearest neighbours: every row once, in file order, whatever the batches."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.eval.predict import embed_sentences, predict_logits
from xlmr_flax.eval.retrieval import nearest, normalise, retrieval_layer
from xlmr_flax.models.config import SIZES, EncoderConfig, ModelError
from xlmr_flax.models.model import HeadSpec, Model
from xlmr_flax.parallel.mesh import make_mesh, put_tree

CONFIG = EncoderConfig(
    vocab_size=60, hidden_size=8, num_layers=2, num_heads=2, ffn_size=12, max_positions=18, initializer_range=0.5
)
PAIR = HeadSpec('pair', 3)
LENGTHS = [3, 16, 5, 9, 2, 12, 7, 16, 4, 8, 6]


@pytest.fixture(scope='module')
def setting() -> dict[str, Any]:
    model, mesh = Model(CONFIG), make_mesh()
    random = np.random.default_rng(0)
    tokens = Ragged.from_rows([random.integers(5, 60, n) for n in LENGTHS])
    params = put_tree(jax.device_get(model.init(jax.random.key(0), {'x': PAIR})), mesh)
    return {'model': model, 'params': params, 'tokens': tokens, 'mesh': mesh, 'pad': 1, 'lengths': (8, 16)}


def alone(setting: dict[str, Any], i: int) -> tuple[np.ndarray, np.ndarray]:
    ids = setting['tokens'][i][None]
    return ids, np.ones_like(ids)


@pytest.fixture(scope='module')
def one_by_one(setting: dict[str, Any]) -> dict[int, np.ndarray]:
    """Logits of some rows without padding or neighbours."""
    logits = jax.jit(lambda *inputs: setting['model'].logits(setting['params'], 'x', PAIR, *inputs)[0])
    return {i: np.asarray(logits(*alone(setting, i))) for i in (1, 4, 10)}


@pytest.mark.parametrize('batch_tokens', [1, 64, 4096])
def test_logits_are_each_rows_own_in_file_order(
    batch_tokens: int, setting: dict[str, Any], one_by_one: dict[int, np.ndarray]
) -> None:
    ticks: list[int] = []
    found = predict_logits(**setting, name='x', head=PAIR, batch_tokens=batch_tokens, tick=ticks.append)
    assert (found.shape, found.dtype) == ((len(LENGTHS), 3), np.float32)
    assert sum(ticks) == len(LENGTHS)
    for i in one_by_one:
        np.testing.assert_allclose(found[i], one_by_one[i], atol=1e-5)


@pytest.mark.parametrize(('layer', 'pooling'), [(None, 'mean'), (1, 'mean'), (0, 'cls')])
def test_vectors_are_of_the_layer_and_pooling(layer: int | None, pooling: str, setting: dict[str, Any]) -> None:
    found = embed_sentences(**setting, layer=layer, pooling=pooling, batch_tokens=64)
    encode = jax.jit(partial(setting['model'].encode, all_layers=True))
    states = encode(setting['params'], *alone(setting, 3))
    hidden = np.asarray(states)[2 if layer is None else layer, 0]
    np.testing.assert_allclose(found[3], hidden.mean(0) if pooling == 'mean' else hidden[0], atol=1e-5)


def test_the_nearest_is_by_cosine_and_of_equals_the_first() -> None:
    queries = np.array([[1.0, 0.0], [0.0, 5.0], [-3.0, 0.1], [0.0, 0.0]], np.float32)
    pool = np.array([[0.1, 0.2], [100.0, 30.0], [0.2, 0.4], [-1.0, 0.0]], np.float32)
    assert nearest(queries, pool).tolist() == [1, 0, 3, 0]
    np.testing.assert_allclose(np.linalg.norm(normalise(queries), axis=1), [1, 1, 1, 0])


def test_many_queries_are_the_same_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    queries, pool = (random.normal(size=(n, 5)).astype(np.float32) for n in (33, 17))
    cosine = queries @ pool.T / np.linalg.norm(pool, axis=1)
    assert nearest(queries, pool).tolist() == cosine.argmax(1).tolist()
    monkeypatch.setattr('xlmr_flax.eval.retrieval._BLOCK', 8)
    assert nearest(queries, pool).tolist() == cosine.argmax(1).tolist()


def test_the_layer_that_is_compared() -> None:
    """14 of 24 (jiant and XTREME), the last of any other depth, or as asked."""
    assert retrieval_layer(SIZES['large'], -1) == 14
    assert retrieval_layer(SIZES['base'], -1) == 12
    assert [retrieval_layer(SIZES['large'], layer) for layer in (0, 24)] == [0, 24]
    with pytest.raises(ModelError, match=r'evaluation\.retrieval_layer 3: the encoder has 2 layers'):
        retrieval_layer(dataclasses.replace(SIZES['tiny'], num_layers=2), 3)
