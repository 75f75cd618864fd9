"""Properties of the encoder that need no reference: padding, segments, dtype, remat, dropout keys."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.kernels.gelu import _twice_cdf, gelu, twice_gelu
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model, Params

CONFIG = EncoderConfig(vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, ffn_size=48, max_positions=34)
PAIR = HeadSpec('pair', 3)


@pytest.fixture(scope='module')
def params() -> Params:
    return Model(CONFIG).init(jax.random.key(0), {'x': PAIR})


def _row(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 64, length).astype(np.int32)


def _padded(rows: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.full((len(rows), length), CONFIG.pad_id, np.int32)
    segments = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)], segments[i, : len(row)] = row, 1
    return ids, segments


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-6), ('bfloat16', 2**-7)])
def test_gelu_and_its_slope(dtype: str, tolerance: float) -> None:
    """Against the definition in float64: x P(X <= x), and P(X <= x) + x p(x), of a standard normal X."""
    x = jnp.linspace(-8, 8, 4001).astype(dtype)
    wide = np.asarray(x, np.float64)
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in wide])
    slope = cdf + wide * np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    for form in (gelu, lambda x: twice_gelu(x) * 0.5):
        value, pull = jax.vjp(form, x)
        assert value.dtype == x.dtype
        np.testing.assert_allclose(np.asarray(value, np.float64), wide * cdf, atol=tolerance, rtol=tolerance)
        pulled = np.asarray(pull(jnp.ones_like(x))[0], np.float64)
        np.testing.assert_allclose(pulled, slope, atol=tolerance, rtol=tolerance)
    np.testing.assert_array_equal(2 * gelu(x), twice_gelu(x))
    np.testing.assert_array_equal(2 * gelu(x), jax.vjp(twice_gelu, x)[0])


def test_gelu_of_narrow_dtypes_is_exact_to_a_fraction_of_their_rounding() -> None:
    x = np.concatenate([np.linspace(-10, 10, 20001), np.geomspace(10, 1e4, 100), -np.geomspace(10, 1e4, 100)])
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    found = x / 2 * np.asarray(_twice_cdf(jnp.asarray(x, jnp.float32), jnp.bfloat16), np.float64)
    assert np.abs(found - x * cdf).max() < 3e-5
    assert np.abs(found - x * cdf)[np.abs(x) < 0.1].max() < 2e-6


def test_padding_changes_no_result(params: Params) -> None:
    model, rows = Model(CONFIG), [_row(5), _row(9, 1), _row(13, 2)]
    logits = jax.jit(lambda ids, segments: model.logits(params, 'x', PAIR, ids, segments))
    together = logits(*_padded(rows, 20))
    for i, row in enumerate(rows):
        alone = logits(*_padded([row], len(row)))
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5)


def test_what_stands_in_padding_is_never_read(params: Params) -> None:
    model = Model(CONFIG)
    ids, segments = _padded([_row(7)], 12)
    other = np.where(segments > 0, ids, 33).astype(np.int32)
    np.testing.assert_array_equal(model.embed(params, ids, segments), model.embed(params, other, segments))


def test_segments_of_one_row_do_not_see_each_other(params: Params) -> None:
    model, a, b = Model(CONFIG), _row(6), _row(8, 1)
    ids = np.concatenate([a, b])[None]
    segments = np.repeat([1, 2], [6, 8])[None].astype(np.int32)
    encode = jax.jit(lambda ids, segments: model.encode(params, ids, segments))
    packed = np.asarray(encode(ids, segments))[0]
    for part, row in ((packed[:6], a), (packed[6:], b)):
        alone = encode(row[None], np.ones((1, len(row)), np.int32))[0]
        np.testing.assert_allclose(part, alone, atol=1e-5)


def test_a_row_of_padding_alone_is_finite(params: Params) -> None:
    ids, segments = _padded([_row(0)], 8)
    assert np.isfinite(Model(CONFIG).logits(params, 'x', PAIR, ids, segments)).all()


def test_remat_and_unroll_change_nothing(params: Params) -> None:
    ids, segments = _padded([_row(9), _row(4, 1)], 12)

    def grads(model: Model) -> Params:
        return jax.jit(jax.grad(lambda p: model.logits(p, 'x', PAIR, ids, segments, jax.random.key(3)).sum()))(params)

    want = grads(Model(CONFIG))
    for other in (Model(CONFIG, remat='full'), Model(CONFIG, unroll=0), Model(CONFIG, remat='none', unroll=0)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads(other), want)


def test_bfloat16_compute_keeps_float32_parameters_and_logits(params: Params) -> None:
    ids, segments = _padded([_row(9), _row(4, 1)], 12)
    low = Model(CONFIG, dtype='bfloat16')
    assert low.encode(params, ids, segments).dtype == jnp.bfloat16
    logits = low.logits(params, 'x', PAIR, ids, segments)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, Model(CONFIG).logits(params, 'x', PAIR, ids, segments), atol=0.05)


def test_dropout_is_a_function_of_the_key(params: Params) -> None:
    model = Model(CONFIG)
    ids, segments = _padded([_row(9)], 12)

    def run(key: int | None) -> np.ndarray:
        return np.asarray(model.logits(params, 'x', PAIR, ids, segments, None if key is None else jax.random.key(key)))

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.allclose(run(1), run(2))
    without = dataclasses.replace(CONFIG, dropout=0.0, attention_dropout=0.0)
    still = Model(without).logits(params, 'x', PAIR, ids, segments, jax.random.key(1))
    np.testing.assert_allclose(still, run(None), atol=1e-6)


def test_head_values_do_not_depend_on_other_heads() -> None:
    model, key = Model(CONFIG), jax.random.key(0)
    alone, both = model.init(key, {'b': PAIR}), model.init(key, {'a': PAIR, 'b': PAIR})
    jax.tree.map(np.testing.assert_array_equal, alone['heads']['b'], both['heads']['b'])


def test_shapes_that_cannot_be() -> None:
    with pytest.raises(ModelError, match='num_heads is 4'):
        dataclasses.replace(CONFIG, hidden_size=30)
    with pytest.raises(ModelError, match="head style 'bert'"):
        Model(CONFIG, style='bert')
    with pytest.raises(ModelError, match="pooling 'max'"):
        Model(CONFIG).embed({}, np.zeros((1, 1)), np.zeros((1, 1)), pooling='max')
