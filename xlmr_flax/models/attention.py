"""Attention within segments, in the formulations that platforms need; all of them give the same numbers.

    xla_cpu    attention_cpu.py: products that XLA:CPU hands to its fast matrix product, in blocks
    xla        the same as einsums, for any platform
    cudnn      the fused kernel of NVIDIA's library, bfloat16 only; a step that drops attention weights takes xla
    tpu        Pallas kernels: attention_tpu.py, dropout included, rows of up to 512 tokens (of more, xla); norm_tpu.py
    interpret  that kernel interpreted, on any platform: slow, for tests

A token sees the tokens of its own segment and no padding (segment 0). Rows of padding alone give numbers, not NaN.
Dropout applies to normalised weights [B, H, T, T]; its mask is models/dropout.py's in every formulation.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from xlmr_flax.models.attention_cpu import cpu_attention, exponentials
from xlmr_flax.models.config import ModelError
from xlmr_flax.models.dropout import dropped, no_seed
from xlmr_flax.models.place import ANYWHERE, HEADS, ROWS, Place

CPU, XLA, CUDNN, TPU, INTERPRET = 'xla_cpu', 'xla', 'cudnn', 'tpu', 'interpret'
IMPLEMENTATIONS = (CPU, XLA, CUDNN, TPU, INTERPRET)
KERNELS = (TPU, INTERPRET)
AUTO = 'auto'
MOST_TOKENS = 512  # of a row that the kernels take: a v4's VMEM holds no more scores
_MASKED = -1e30  # finite, so that a row of padding alone gives numbers and not NaN
_NEEDS = {CUDNN: 'gpu', TPU: 'tpu'}
_PLATFORMS = {'cuda': 'gpu', 'rocm': 'gpu'}


def choose(name: str, platform: str, dtype: str) -> str:
    """The formulation that `name` ('auto': the platform's fastest) means on a platform. Raises ModelError for one that
    is not known or that the platform or the compute dtype does not have."""
    platform = _PLATFORMS.get(platform, platform)
    if name == AUTO:
        fastest = {'cpu': CPU, 'tpu': TPU, 'gpu': CUDNN if dtype == 'bfloat16' else XLA}
        return fastest.get(platform, XLA)
    check_name(name)
    if _NEEDS.get(name, platform) != platform:
        raise ModelError(f'encoder.attention {name!r} needs the platform {_NEEDS[name]}, and this is {platform}')
    if name == CUDNN and dtype != 'bfloat16':
        raise ModelError(f"encoder.attention 'cudnn' computes in bfloat16, and encoder.dtype is {dtype}")
    return name


def check_name(name: str) -> None:
    """Raises ModelError for a formulation that is not known."""
    if name not in (AUTO, *IMPLEMENTATIONS):
        raise ModelError(f'encoder.attention {name!r} is not one of {", ".join((AUTO, *IMPLEMENTATIONS))}')


def attend(
    qkv: jax.Array,
    bias: jax.Array,
    seen: Any,
    *,
    heads: int,
    implementation: str = XLA,
    seed: jax.Array | None = None,
    rate: float = 0.0,
    weight: jax.Array | None = None,
    place: Place = ANYWHERE,
) -> jax.Array:
    """qkv [3, B, T, H * K] (queries, keys, values), bias [3, H * K] added to it, seen: of `prepared` -> the values
    mixed, [B, T, H * K], or their product with a weight [H * K, D], [B, T, D].

    heads: H. seed, rate: of dropout, as in `models.dropout.dropped`; no seed, no dropout.
    """
    check_name(implementation)
    rate = 0.0 if seed is None else rate
    _, b, t, width = qkv.shape
    if implementation in KERNELS and t <= MOST_TOKENS:
        from xlmr_flax.models import attention_tpu

        seed = no_seed() if seed is None else seed
        is_interpreted = implementation == INTERPRET
        return attention_tpu.attention(
            qkv, bias, seen, seed, weight, heads=heads, rate=rate, place=place, interpret=is_interpreted
        )
    mixed = checkpoint_name(_values(qkv, bias, seen, heads, implementation, seed, rate, place), 'mixed')
    return mixed if weight is None else (mixed.reshape(b * t, width) @ weight).reshape(b, t, -1)


def _values(
    qkv: jax.Array, bias: jax.Array, seen: jax.Array, heads: int, implementation: str,
    seed: jax.Array | None, rate: float, place: Place,
) -> jax.Array:  # fmt: skip
    (_, b, t, width), size = qkv.shape, qkv.shape[-1] // heads
    qkv = qkv + bias.astype(qkv.dtype)[:, None, None]
    split = place(qkv.reshape(3, b, t, heads, size), None, ROWS, None, HEADS, None)
    if implementation == CPU:
        return on_cpu(split.transpose(1, 2, 0, 3, 4), seen, seed, rate, place)
    if implementation == CUDNN and rate == 0.0:
        mask = same_segment(seen)
        mixed = jax.nn.dot_product_attention(split[0], split[1], split[2], mask=mask, implementation='cudnn')
        return mixed.reshape(b, t, width)
    scores = jnp.einsum('bqhk,bshk->bhqs', split[0] * jnp.asarray(size**-0.5, qkv.dtype), split[1])
    weights, total = exponentials(scores, segment_bias(seen))
    weights = dropped(weights, seed, rate).astype(qkv.dtype)
    mixed = jnp.einsum('bhqs,bshk->bqhk', weights, split[2]) / total.astype(qkv.dtype).swapaxes(1, 2)
    return place(mixed.reshape(b, t, width), ROWS, None, HEADS)


def prepared(segments: jax.Array, heads: int, implementation: str) -> Any:
    """segments int32 [B, T], heads: H -> what `attend` takes of them in a formulation, computed once for all layers:
    what a layer computes by itself, its backward pass may compute again."""
    if implementation == CPU:
        return segment_bias(segments)
    if implementation in KERNELS and segments.shape[1] <= MOST_TOKENS:
        from xlmr_flax.models import attention_tpu

        return attention_tpu.numbers(segments, heads)
    return segments


def same_segment(segments: jax.Array) -> jax.Array:
    """int32 [B, T] -> bool [B, 1, T, T]: which tokens (last) a token (last but one) sees."""
    return (segments[:, None, :, None] == segments[:, None, None, :]) & (segments[:, None, None, :] > 0)


def segment_bias(segments: jax.Array) -> jax.Array:
    """int32 [B, T] -> float32 [B, 1, T, T], 0 where a token is seen and -1e30 where not."""
    return jnp.where(same_segment(segments), 0.0, _MASKED).astype(jnp.float32)


def on_cpu(qkv: jax.Array, bias: jax.Array, seed: jax.Array | None, rate: float, place: Place) -> jax.Array:
    """qkv [B, T, 3, H, K], bias of `segment_bias` -> [B, T, H * K]."""
    if seed is None:
        return cpu_attention(qkv, bias, no_seed(), 0.0, place)
    return cpu_attention(qkv, bias, seed, rate, place)
