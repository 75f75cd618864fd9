"""Self-attention within segments, with one implementation per platform; all of them give the same numbers.

`choose.py` lists the implementations, `reference.py` has the definition. A token attends to the tokens of its own
segment and never to padding (segment 0). Rows that are only padding give finite numbers, not NaN. Dropout applies to
the normalised weights [B, H, T, T]; every implementation uses the mask of encoders/dropout.py. For rows of more than
512 tokens, blocked.py takes the place of einsums, of cpu.py and of the kernel for TPUs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from xlmr_flax.encoders.attention import fused
from xlmr_flax.encoders.attention.blocked import blocked_attention
from xlmr_flax.encoders.attention.choose import (
    CPU,
    CUDNN,
    GPU_KERNELS,
    INTERPRET,
    INTERPRET_TRITON,
    KERNELS,
    MOST_TOKENS,
    XLA,
    check_name,
    cudnn_takes,
)
from xlmr_flax.encoders.attention.cpu import cpu_attention
from xlmr_flax.encoders.attention.reference import attention, same_segment, segment_bias
from xlmr_flax.encoders.dropout import no_seed
from xlmr_flax.encoders.logical_axes import HEADS, ROWS, UNCONSTRAINED, Constrain


def self_attention(
    x: jax.Array, qkv_kernel: jax.Array, qkv_bias: jax.Array, out_kernel: jax.Array, mask: Any, *,
    implementation: str, seed: jax.Array | None, rate: float, place: Constrain,
) -> jax.Array:  # fmt: skip
    """Multi-head self-attention with its projections: attention(x W_qkv + b_qkv) W_out, [B, T, D], without out bias.

    x [B, T, D], qkv_kernel [D, 3, H, K], qkv_bias [3, H, K], out_kernel [H, K, D]. mask: from `attention_mask`.
    seed, rate: of dropout; seed None = no dropout.
    """
    (b, t, d), (_, _, h, k) = x.shape, qkv_kernel.shape
    kernel = place(qkv_kernel.astype(x.dtype), None, None, HEADS, None)
    weight = place(out_kernel.astype(x.dtype), HEADS, None, None).reshape(d, d)
    if implementation == CPU:
        # Two-dimensional products: XLA:CPU uses its fast matmul only for these, in the forward and backward pass.
        qkv = checkpoint_name(x.reshape(b * t, d) @ kernel.reshape(d, -1), 'qkv')
        qkv = qkv + qkv_bias.reshape(-1).astype(x.dtype)
        qkv = place(qkv.reshape(b, t, 3, h, k), ROWS, None, None, HEADS, None)
        mixed = checkpoint_name(on_cpu(qkv, mask, seed, rate, place), 'mixed')
        return (mixed.reshape(b * t, d) @ weight).reshape(b, t, d)
    # [3, B, T, H * K]: queries, keys and values as separate arrays, the layout that the kernels take.
    qkv = jnp.einsum('btd,dce->cbte', x, kernel.reshape(d, 3, h * k))
    qkv = checkpoint_name(place(qkv, None, ROWS, None, HEADS), 'qkv')
    bias = qkv_bias.reshape(3, h * k)
    return attend(
        qkv, bias, mask, heads=h, implementation=implementation, seed=seed, rate=rate, weight=weight, place=place
    )


def attend(
    qkv: jax.Array,
    bias: jax.Array,
    mask: Any,
    *,
    heads: int,
    implementation: str = XLA,
    seed: jax.Array | None = None,
    rate: float = 0.0,
    weight: jax.Array | None = None,
    place: Constrain = UNCONSTRAINED,
) -> jax.Array:
    """Attention on projected inputs: softmax(q k^T / sqrt(K)) v, [B, T, H * K]; with a weight, times it, [B, T, D].

    qkv [3, B, T, H * K]: queries, keys, values. bias [3, H * K]: added to qkv. mask: from `attention_mask`. heads: H.
    weight [H * K, D]: the output projection, or None. seed, rate: of dropout, as in `encoders.dropout.dropped`; seed
    None = no dropout.
    """
    check_name(implementation)
    rate = 0.0 if seed is None else rate
    _, b, t, width = qkv.shape
    if implementation == CUDNN and cudnn_takes(t, width // heads, rate):
        mixed = _by_cudnn(qkv, bias, mask[0], heads, place)  # mask[0]: the segments
    elif kernels := _kernels(implementation, t):
        kernel = kernels.fused_kernel(heads, rate, implementation in (INTERPRET, INTERPRET_TRITON))
        return fused.attention(qkv, bias, mask, no_seed() if seed is None else seed, weight, kernel, place)
    else:
        mixed = checkpoint_name(_values(qkv, bias, mask, heads, implementation, seed, rate, place), 'mixed')
    return mixed if weight is None else (mixed.reshape(b * t, width) @ weight).reshape(b, t, -1)


def _kernels(implementation: str, t: int) -> Any:
    """The module with an implementation's kernels, tpu.py or gpu.py; None = it has none for rows of T tokens."""
    if implementation in KERNELS and t <= MOST_TOKENS:
        from xlmr_flax.encoders.attention import tpu

        return tpu
    if implementation in GPU_KERNELS:
        from xlmr_flax.encoders.attention import gpu

        return gpu
    return None


def _values(
    qkv: jax.Array, bias: jax.Array, mask: jax.Array, heads: int, implementation: str,
    seed: jax.Array | None, rate: float, place: Constrain,
) -> jax.Array:  # fmt: skip
    split = _split(qkv, bias, heads, place)
    if implementation == CPU:
        return on_cpu(split.transpose(1, 2, 0, 3, 4), mask, seed, rate, place)
    return (attention if qkv.shape[2] <= MOST_TOKENS else blocked_attention)(split, mask, seed, rate, place)


def _split(qkv: jax.Array, bias: jax.Array, heads: int, place: Constrain) -> jax.Array:
    """Adds the bias and splits the heads: qkv [3, B, T, H * K] -> [3, B, T, H, K]."""
    qkv = qkv + bias.astype(qkv.dtype)[:, None, None]
    return place(qkv.reshape(*qkv.shape[:3], heads, -1), None, ROWS, None, HEADS, None)


def _by_cudnn(qkv: jax.Array, bias: jax.Array, segments: jax.Array, heads: int, place: Constrain) -> jax.Array:
    """Attention by cuDNN, without dropout. encoders/compute.py keeps what the primitive's forward pass returns."""
    split = _split(qkv, bias, heads, place)
    mask = same_segment(segments)
    mixed = jax.nn.dot_product_attention(split[0], split[1], split[2], mask=mask, implementation='cudnn')
    return mixed.reshape(qkv.shape[1:])


def attention_mask(segments: jax.Array, heads: int, implementation: str) -> Any:
    """The argument `mask` of `attend` from segments int32 [B, T], in the form that the implementation reads. heads: H.

    That is a bias [B, 1, T, T] (`segment_bias`), a kernel's arrays (`mask_arrays` of tpu.py and gpu.py) or the segments
    themselves. Computed once for all layers, outside of them; inside a layer, rematerialisation would repeat it.
    """
    tokens = segments.shape[1]
    if implementation == CPU and tokens <= MOST_TOKENS:
        return segment_bias(segments)
    kernels = _kernels(implementation, tokens)
    return kernels.mask_arrays(segments, heads) if kernels else segments


def on_cpu(qkv: jax.Array, mask: jax.Array, seed: jax.Array | None, rate: float, place: Constrain) -> jax.Array:
    """Attention on a CPU: qkv [B, T, 3, H, K], mask from `attention_mask` -> [B, T, H * K]."""
    if qkv.shape[1] > MOST_TOKENS:
        return blocked_attention(qkv.transpose(2, 0, 1, 3, 4), mask, seed, rate, place)
    if seed is None:
        return cpu_attention(qkv, mask, no_seed(), 0.0, place)
    return cpu_attention(qkv, mask, seed, rate, place)
