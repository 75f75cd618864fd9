"""Attention and the end of a block in every formulation, against float64 numpy, with gradients and dropout."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_flax.encoders import attention as attention_of_any_length
from xlmr_flax.encoders.attention import attend, attention_mask, blocked
from xlmr_flax.encoders.attention import cpu as attention_cpu
from xlmr_flax.encoders.attention.choose import AUTO, CPU, CUDNN, IMPLEMENTATIONS, INTERPRET, TPU, XLA, choose
from xlmr_flax.encoders.attention.tpu import heads_together
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.dropout import hash_bits, seed_of
from xlmr_flax.encoders.kernels.norm import sum_and_norm
from xlmr_flax.encoders.logical_axes import UNCONSTRAINED, Dims, Unconstrained
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model

HERE = [CPU, XLA, INTERPRET]
KEY = jax.random.key(5)
CONFIG = EncoderConfig(vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, ffn_size=48, max_positions=34)
Arrays = tuple[np.ndarray, ...]


def kept(key: jax.Array, site: int, shape: tuple[int, ...], rate: float) -> np.ndarray:
    """What dropout multiplies with: 0, or 1 / (1 - rate)."""
    bits = np.asarray(hash_bits(seed_of(key, site), shape))
    return (bits >= np.uint32(round(rate * 2**16) << 16)) / (1 - rate)


def reference(qkv: np.ndarray, bias: np.ndarray, segments: np.ndarray, heads: int, drop: np.ndarray | float,
              given: np.ndarray) -> Arrays:  # fmt: skip
    """(mixed values, gradient of qkv, gradient of the bias) in float64."""
    _, b, t, d = qkv.shape
    size = d // heads
    q, k, v = (qkv.astype(np.float64) + bias[:, None, None]).reshape(3, b, t, heads, size).transpose(0, 1, 3, 2, 4)
    mask = (segments[:, None, :, None] == segments[:, None, None, :]) & (segments[:, None, None, :] > 0)
    scores = np.where(mask, q @ k.swapaxes(-1, -2) * size**-0.5, -1e30)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = (weights * drop) @ v
    gradient = given.astype(np.float64).reshape(b, t, heads, size).swapaxes(1, 2)
    of_v = (weights * drop).swapaxes(-1, -2) @ gradient
    of_weights = gradient @ v.swapaxes(-1, -2) * drop
    of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdims=True)) * size**-0.5
    found = np.stack([of_scores @ k, of_scores.swapaxes(-1, -2) @ q, of_v])
    found = found.transpose(0, 1, 3, 2, 4).reshape(qkv.shape)
    return mixed.swapaxes(1, 2).reshape(b, t, d), found, found.sum((1, 2))


def case(t: int, width: int, b: int = 3) -> Arrays:
    random = np.random.default_rng(t)
    qkv, bias = random.normal(size=(3, b, t, width)), random.normal(size=(3, width))
    segments = np.zeros((b, t), np.int32)  # two examples and padding; one without padding; padding alone
    segments[0, : t // 3], segments[0, t // 3 : t - 2], segments[1] = 1, 2, 1
    given = random.normal(size=(b, t, width)) * (segments > 0)[..., None]
    return qkv.astype(np.float32), bias.astype(np.float32), segments, given.astype(np.float32)


@pytest.mark.parametrize('rate', [0.0, 0.3])
@pytest.mark.parametrize(('t', 'heads', 'size'), [(16, 4, 8), (24, 2, 64), (13, 3, 8), (300, 2, 8)])
@pytest.mark.parametrize('implementation', HERE)
def test_values_and_gradients(implementation: str, t: int, heads: int, size: int, rate: float) -> None:
    qkv, bias, segments, given = case(t, heads * size)
    key = jax.random.key(5)
    drop = kept(key, 0, (len(segments), heads, t, t), rate) if rate else 1.0
    want = reference(qkv, bias, segments, heads, drop, given)
    mask = attention_mask(segments, heads, implementation)

    def run(qkv: jax.Array, bias: jax.Array) -> jax.Array:
        return attend(qkv, bias, mask, heads=heads, implementation=implementation, seed=seed_of(key, 0), rate=rate)

    mixed, pull = jax.vjp(run, qkv, bias)
    assert np.isfinite(mixed).all()
    real = (segments > 0)[..., None]
    np.testing.assert_allclose(mixed * real, want[0] * real, atol=2e-5)
    for found, expected in zip(pull(given), want[1:], strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize('rate', [0.0, 0.3])
@pytest.mark.parametrize('implementation', HERE)
def test_rows_beyond_the_kernels(implementation: str, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of queries, of which the last is not full: the numbers and the dropout of a row as a whole."""
    monkeypatch.setattr(attention_of_any_length, 'MOST_TOKENS', 20)
    monkeypatch.setattr(blocked, 'BLOCK', 16)
    qkv, bias, segments, given = case(45, 24)
    key = jax.random.key(5)
    drop = kept(key, 0, (len(segments), 3, 45, 45), rate) if rate else 1.0
    want = reference(qkv, bias, segments, 3, drop, given)
    mask = attention_mask(segments, 3, implementation)
    assert mask is segments

    def run(qkv: jax.Array, bias: jax.Array) -> jax.Array:
        return attend(qkv, bias, mask, heads=3, implementation=implementation, seed=seed_of(key, 0), rate=rate)

    mixed, pull = jax.vjp(run, qkv, bias)
    real = (segments > 0)[..., None]
    np.testing.assert_allclose(mixed * real, want[0] * real, atol=2e-5)
    for found, expected in zip(pull(given), want[1:], strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize('implementation', [CPU, XLA, TPU])
def test_long_rows_have_no_whole_matrix_of_scores(implementation: str) -> None:
    """Neither pass has an array with two axes of the row's length."""
    shapes = jax.ShapeDtypeStruct((3, 1, 640, 16), jnp.float32), jax.ShapeDtypeStruct((3, 16), jnp.float32)
    segments = jax.ShapeDtypeStruct((1, 640), jnp.int32)

    def total(qkv: jax.Array, bias: jax.Array, segments: jax.Array) -> jax.Array:
        mask = attention_mask(segments, 2, implementation)
        return attend(qkv, bias, mask, heads=2, implementation=implementation, seed=seed_of(KEY, 0), rate=0.1).sum()

    text = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*shapes, segments).as_text()
    assert '640x640' not in text and '128x640' in text


@pytest.mark.parametrize(('most', 'blocks'), [(2 * 4 * 24 * 24, (2, 4)), (2 * 24 * 24, (1, 2)), (1, (1, 1))])
@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_blocks_on_a_cpu(rate: float, most: int, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several rows a block, some heads of a row, one head: the numbers and the dropout of the batch as a whole."""
    monkeypatch.setattr(attention_cpu, 'MOST_SCORES', most)
    monkeypatch.setattr(attention_cpu, '_NO_LOOP', 0)
    assert attention_cpu.block(4, 24, 4) == blocks
    qkv, bias, segments, given = case(24, 32, b=4)
    key = jax.random.key(5)
    drop = kept(key, 0, (4, 4, 24, 24), rate) if rate else 1.0
    want = reference(qkv, bias, segments, 4, drop, given)

    def run(qkv: jax.Array, bias: jax.Array) -> jax.Array:
        return attend(
            qkv, bias, attention_mask(segments, 4, CPU), heads=4, implementation=CPU, seed=seed_of(key, 0), rate=rate
        )

    mixed, pull = jax.vjp(run, qkv, bias)
    real = (segments > 0)[..., None]
    np.testing.assert_allclose(mixed * real, want[0] * real, atol=1e-5)
    for found, expected in zip(pull(given), want[1:], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


class Ranks(Unconstrained):
    """Unconstrained, but a function on parts of arrays is told all of their dimensions, as a mesh needs it."""

    def mapped(self, function: Any, inputs: Any, outputs: Any) -> Any:
        def run(*arrays: jax.Array) -> Any:
            found = function(*arrays)
            several: tuple[Dims, ...] = outputs if isinstance(outputs[0], tuple) else (outputs,)
            results = found if isinstance(found, (tuple, list)) else (found,)
            assert [x.ndim for x in (*arrays, *results)] == [len(dims) for dims in (*inputs, *several)]
            return found

        return run


@pytest.mark.parametrize('implementation', [CPU, INTERPRET])
def test_parts_on_a_mesh_have_all_their_dimensions_named(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cpu, '_NO_LOOP', 0)
    model = Model(CONFIG, attention=implementation, remat='dots', place=Ranks())
    params = model.init(jax.random.key(0), {'x': HeadSpec('pair', 3)})
    ids = np.full((2, 16), 7, np.int32)

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        key = jax.random.key(3)
        return jnp.square(model.logits(params, 'x', HeadSpec('pair', 3), ids, np.ones_like(ids), key)).sum()

    assert jnp.isfinite(jax.jit(jax.grad(loss))(params)['encoder']['layers']['attention']['qkv']).all()


def test_blocks_fit_a_cache() -> None:
    """What the loop takes at once: whole rows, heads of one row, and never nothing."""
    assert attention_cpu.block(16, 128, 12) == (4, 12)
    assert attention_cpu.block(7, 128, 12) == (1, 12)
    assert attention_cpu.block(4, 384, 12) == (1, 6)
    assert attention_cpu.block(2, 4096, 12) == (1, 1)


@pytest.mark.parametrize('implementation', HERE)
def test_what_other_segments_hold_is_never_read(implementation: str) -> None:
    qkv, bias, segments, _ = case(16, 32)
    other = np.where((segments == 2)[None, ..., None], qkv, 1e3).astype(np.float32)
    mask = attention_mask(segments, 4, implementation)
    one, two = (attend(x, bias, mask, heads=4, implementation=implementation) for x in (qkv, other))
    np.testing.assert_array_equal(np.asarray(one)[segments == 2], np.asarray(two)[segments == 2])


def test_a_kernel_gives_no_gradient_from_queries_in_padding() -> None:
    qkv, bias, segments, given = case(16, 32)

    def run(qkv: jax.Array) -> jax.Array:
        seed = seed_of(jax.random.key(5), 0)
        return attend(
            qkv, bias, attention_mask(segments, 4, INTERPRET), heads=4, implementation=INTERPRET, seed=seed, rate=0.3
        )

    pull = jax.vjp(run, qkv)[1]
    there = np.where((segments > 0)[..., None], given, np.float32(7))
    np.testing.assert_array_equal(pull(there)[0], pull(given)[0])


@pytest.mark.parametrize('implementation', [XLA, INTERPRET])
def test_bfloat16(implementation: str) -> None:
    qkv, bias, segments, given = case(16, 32)
    low = jnp.asarray(qkv, jnp.bfloat16)
    want = reference(np.asarray(low, np.float32), bias, segments, 4, 1.0, given)
    found = attend(low, bias, attention_mask(segments, 4, implementation), heads=4, implementation=implementation)
    assert found.dtype == jnp.bfloat16
    real = (segments > 0)[..., None]
    np.testing.assert_allclose(found * real, want[0] * real, atol=0.06)


@pytest.mark.parametrize(('b', 't'), [(4, 6), (1, 320)])  # several rows a program, and several programs a row
@pytest.mark.parametrize('rate', [0.0, 0.3])
@pytest.mark.parametrize('uses', [1, 2])
def test_sum_and_norm(uses: int, rate: float, b: int, t: int) -> None:
    random, d = np.random.default_rng(0), 16
    x, y, given = (random.normal(size=(b, t, d)).astype(np.float32) for _ in range(3))
    bias, scale, shift = (random.normal(size=d).astype(np.float32) for _ in range(3))
    key = jax.random.key(2)
    drop = kept(key, 7, (b, t, d), rate) if rate else 1.0

    def run(x: jax.Array, y: jax.Array, bias: jax.Array, scale: jax.Array, shift: jax.Array) -> Any:
        more = {'epsilon': 1e-5, 'rate': rate, 'name': 'sum', 'uses': uses, 'place': UNCONSTRAINED, 'interpret': True}
        return sum_and_norm(x, y, bias, scale, shift, seed_of(key, 7), **more)

    out, pull = jax.vjp(run, x, y, bias, scale, shift)
    total = x.astype(np.float64) + (y.astype(np.float64) + bias) * drop
    centred = total - total.mean(-1, keepdims=True)
    inverse = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    normed = centred * inverse
    assert len(out) == uses
    for one in out:
        np.testing.assert_allclose(one, normed * scale + shift, atol=1e-5)
    shares = [given] if uses == 1 else [0.25 * given - 1.0, 0.75 * given + 1.0]
    scaled = given * scale
    of_x = inverse * (scaled - scaled.mean(-1, keepdims=True) - normed * (scaled * normed).mean(-1, keepdims=True))
    want = (of_x, of_x * drop, (of_x * drop).sum((0, 1)), (given * normed).sum((0, 1)), given.sum((0, 1)))
    for found, expected in zip(pull(tuple(shares)), want, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_model_is_the_same_in_every_formulation() -> None:
    """Logits, and gradients of every parameter, with dropout in training."""
    head, random = HeadSpec('pair', 3), np.random.default_rng(0)
    params = Model(CONFIG).init(jax.random.key(0), {'x': head})
    ids = random.integers(5, 64, (3, 16)).astype(np.int32)
    segments = (np.arange(16) < np.array([[16], [9], [4]])).astype(np.int32)

    def outcome(model: Model) -> tuple[jax.Array, dict[str, jax.Array]]:
        def loss(params: dict[str, jax.Array]) -> jax.Array:
            return jnp.square(model.logits(params, 'x', head, ids, segments, jax.random.key(3))).sum()

        return jax.jit(jax.value_and_grad(loss))(params)

    want = outcome(Model(CONFIG))
    for changes in (
        {'attention': INTERPRET, 'remat': 'dots'},
        {'attention': INTERPRET, 'remat': 'dots', 'unroll': 0},  # gelu with its slope
        {'attention': XLA, 'remat': 'dots', 'unroll': 1},
    ):
        found = outcome(dataclasses.replace(Model(CONFIG), **changes))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-4), found, want)


def test_what_platforms_have() -> None:
    assert [choose(AUTO, p, 'bfloat16') for p in ('cpu', 'tpu', 'gpu', 'cuda', 'metal')] == [
        CPU,
        TPU,
        CUDNN,
        CUDNN,
        XLA,
    ]
    assert choose(AUTO, 'gpu', 'float32') == XLA and choose(XLA, 'tpu', 'float32') == XLA
    for name, said in ((TPU, "encoder.attention 'tpu' needs the platform tpu, and this is cpu"), (CUDNN, 'cuda')):
        with pytest.raises(ModelError, match=said):
            choose(name, 'cpu', 'bfloat16')
    with pytest.raises(ModelError, match=r"'cudnn' computes in bfloat16, and encoder.dtype is float32"):
        choose(CUDNN, 'cuda', 'float32')
    with pytest.raises(ModelError, match=r"encoder\.attention 'flash' is not one of auto, xla_cpu"):
        Model(CONFIG, attention='flash')
    with pytest.raises(ModelError, match=r"encoder.remat 'all' is not one of auto, none, dots, full"):
        Model(CONFIG, remat='all')
    assert set(HERE) < set(IMPLEMENTATIONS)


def test_heads_fill_the_lanes() -> None:
    assert [heads_together(*hs) for hs in ((16, 64), (12, 64), (12, 32), (3, 64), (4, 8), (8, 128))] == [
        2,
        2,
        4,
        3,
        4,
        1,
    ]
