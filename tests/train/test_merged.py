"""Micro-batches of a step have the dropout masks that they have merged into one batch, in every formulation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.encoders import FAMILIES
from xlmr_flax.encoders import attention as all_attention
from xlmr_flax.encoders.attention import blocked, cpu, disentangled
from xlmr_flax.encoders.attention.choose import CPU, INTERPRET, INTERPRET_TRITON, XLA
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import PartKey, dropout, fold_in, layer_seeds
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model

ROWS, LENGTH, SLOTS, WORDS = 4, 24, 3, 512
PAIR = HeadSpec('pair', 3)
RATES: dict[str, Any] = {'dropout': 0.3, 'attention_dropout': 0.3}
MORE: dict[str, dict[str, Any]] = {
    'modernbert': {'window': 8, 'num_layers': 4, 'embedding_dropout': 0.3, 'ffn_dropout': 0.3},
    'deberta-v2': {'buckets': 8, 'furthest': 20, 'head_dropout': 0.3},
}


def config_of(name: str, **more: Any) -> EncoderConfig:
    family = FAMILIES[name]
    shape = {'vocab_size': WORDS, 'hidden_size': 32, 'num_heads': 2, 'ffn_size': 48, 'initializer_range': 0.2}
    fields = dataclasses.asdict(family.sizes['tiny']) | shape | RATES | MORE.get(name, {}) | more
    return family.config_class(**fields)


def batch_of(kind: str, is_packed: bool) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """ids, segments [B, T] ([B, N, T] for choice), starts [B, S] ([B, N, S]) of rows with SLOTS texts, or of one."""
    random, lead = np.random.default_rng(0), (ROWS, 2) if kind == 'choice' else (ROWS,)
    ids = random.integers(5, WORDS, (*lead, LENGTH))
    starts = np.broadcast_to(np.arange(SLOTS) * (LENGTH // SLOTS), (*lead, SLOTS))
    segments = (
        np.broadcast_to(1 + np.arange(LENGTH) // (LENGTH // SLOTS), ids.shape) if is_packed else np.ones_like(ids)
    )
    arrays = [jnp.asarray(x, jnp.int32) for x in (ids, segments, starts)]
    return arrays[0], arrays[1], arrays[2] if is_packed and kind in ('pair', 'choice') else None


def check(model: Model, head: HeadSpec, is_packed: bool, tolerance: float = 1e-5) -> None:
    """Logits of a whole batch, and of its halves and quarters with `PartKey`s."""
    params = model.init(jax.random.key(0), {'x': head})
    ids, segments, starts = batch_of(head.kind, is_packed)
    step = jax.random.key(5)

    @jax.jit
    def logits(ids: Any, segments: Any, starts: Any, key: Any) -> jax.Array:
        return model.logits(params, 'x', head, ids, segments, key, starts=starts)

    whole = np.asarray(logits(ids, segments, starts, step))
    assert np.abs(whole - np.asarray(logits(ids, segments, starts, jax.random.key(6)))).max() > 1e-2
    for parts in (2, 4):
        cut = [None if x is None else x.reshape(parts, -1, *x.shape[1:]) for x in (ids, segments, starts)]
        found = [logits(*(None if x is None else x[i] for x in cut), PartKey(step, jnp.int32(i))) for i in range(parts)]
        np.testing.assert_allclose(np.concatenate(found), whole, rtol=0, atol=tolerance * np.abs(whole).max())


@pytest.mark.parametrize('attention', [CPU, XLA, INTERPRET, INTERPRET_TRITON])
def test_every_implementation_of_attention(attention: str) -> None:
    check(Model(config_of('xlm-roberta'), attention=attention), PAIR, is_packed=True)


def test_attention_in_a_loop_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, '_NO_LOOP', 0)
    monkeypatch.setattr(cpu, 'MOST_SCORES', LENGTH * LENGTH)
    check(Model(config_of('xlm-roberta'), attention=CPU), PAIR, is_packed=False)


def test_attention_of_long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_attention, 'MOST_TOKENS', 8)
    monkeypatch.setattr(blocked, 'BLOCK', 8)
    check(Model(config_of('xlm-roberta'), attention=XLA), PAIR, is_packed=True)


@pytest.mark.parametrize('name', ['bert', 'modernbert', 'deberta-v2', 'xlm-roberta-xl'])
def test_every_family(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disentangled, 'BLOCK', 8)
    check(Model(config_of(name), style='hf'), PAIR, is_packed=True)


@pytest.mark.parametrize('is_packed', [True, False])
@pytest.mark.parametrize('kind', ['choice', 'span', 'tag'])
def test_every_kind(kind: str, is_packed: bool) -> None:
    check(Model(config_of('xlm-roberta'), style='hf'), HeadSpec(kind, 5 if kind == 'tag' else 1), is_packed)


def test_seeds_and_masks_are_equal_bit_by_bit() -> None:
    """Also where row numbers pass 2**32; layers may have masks of different numbers of rows."""
    key, x = fold_in(jax.random.key(3), 0), jnp.ones((12, 5, 33))
    whole = dropout(x, key, 3, 0.3)
    parts = [dropout(x[:3], fold_in(PartKey(jax.random.key(3), jnp.int32(i)), 0), 3, 0.3) for i in range(4)]
    np.testing.assert_array_equal(jnp.concatenate(parts), whole)
    many = 2**31 + 5
    (moved,) = layer_seeds(PartKey(jax.random.key(3), jnp.int32(3)), 2, [np.array([many, 7])])
    (seeds,) = layer_seeds(jax.random.key(3), 2, [0])
    shift = (np.asarray(moved, np.int64) - np.asarray(seeds, np.int64)) % 2**32
    np.testing.assert_array_equal(shift[:, 0], [[3 * many * 0x9E3779B9 % 2**32, 0], [21 * 0x9E3779B9 % 2**32, 0]])


@pytest.mark.parametrize('clip', [pytest.param(0.0, marks=pytest.mark.slow), 0.05])
def test_steps_lead_to_the_same_parameters(
    clip: float, tiny_of: Callable[..., Any], batch_of: Callable[..., Any]
) -> None:
    tiny = tiny_of(**RATES)
    spec = OptimizerSpec(learning_rate=1e-2, epsilon=1e-2, warmup=0.0, clip_norm=clip)
    batches = [batch_of(8, seed=seed) for seed in range(4)]
    want, wanted = tiny.steps(batches, spec)
    for parts in (2, 8):
        found, metrics = tiny.steps(batches, spec, accumulation=parts)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, want)
        for a, b in zip(metrics, wanted, strict=True):
            assert a == pytest.approx(b, rel=1e-5)
    other, _ = tiny.steps(batches, dataclasses.replace(spec, clip_per='micro_batch'), accumulation=8)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), other, want)
    assert max(jax.tree.leaves(moved)) > 1e-4, 'micro-batches with keys of their own must differ'
