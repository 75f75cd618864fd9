"""The XLM-R encoder in Flax NNX: parameters only, dropout by an explicit key, stacked layers under lax.scan.

Dimension letters: B rows, T tokens, D model, H heads, K head size, F ffn, L layers, V vocabulary.
Follows transformers' XLMRobertaModel (post-layer-norm, erf gelu, positions from pad_id + 1); parity is tested layer by
layer in tests/models/test_parity.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from xlmr_flax.models.config import EncoderConfig
from xlmr_flax.models.dropout import dropout

# Finite, so that a row of padding alone gives numbers and not NaN.
_MASKED = -1e30


class Dense(nnx.Module):
    """y = x @ kernel + bias; kernel [in, out] float32, cast to x's dtype."""

    def __init__(self, features_in: int, features_out: int, std: float, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (features_in, features_out)) * std)
        self.bias = nnx.Param(jnp.zeros(features_out))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm over the last axis, computed in float32, two-pass variance as PyTorch's formula."""

    def __init__(self, features: int, eps: float):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        dtype, x = x.dtype, x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)
        return (centred * inverse * self.scale[...] + self.bias[...]).astype(dtype)


def gelu(x: jax.Array) -> jax.Array:
    """Exact (erf) gelu, as torch's default."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))


class Embeddings(nnx.Module):
    """Word + position + (the single) token type, layer norm, dropout."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        def table(rows: int) -> nnx.Param:
            return nnx.Param(jax.random.normal(rngs.params(), (rows, cfg.hidden_size)) * cfg.initializer_range)

        self.word, self.position, self.token_type = table(cfg.vocab_size), table(cfg.max_positions), table(1)
        self.norm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def __call__(self, ids: jax.Array, positions: jax.Array, dtype: jnp.dtype) -> jax.Array:
        x = self.word[...][ids] + self.position[...][positions] + self.token_type[...][0]  # [B, T, D]
        return self.norm(x).astype(dtype)


class Attention(nnx.Module):
    """Multi-head self-attention within segments, with output projection. q, k and v are one kernel [D, 3, H, K]."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        d, h, k, std = cfg.hidden_size, cfg.num_heads, cfg.head_size, cfg.initializer_range
        self.qkv = nnx.Param(jax.random.normal(rngs.params(), (d, 3, h, k)) * std)
        self.qkv_bias = nnx.Param(jnp.zeros((3, h, k)))
        self.out = nnx.Param(jax.random.normal(rngs.params(), (h, k, d)) * std)
        self.out_bias = nnx.Param(jnp.zeros(d))
        self.rate = cfg.attention_dropout

    def __call__(self, x: jax.Array, bias: jax.Array, key: jax.Array | None) -> jax.Array:
        """x [B, T, D], bias float32 [B, 1, T, T] (0 or -1e30) -> [B, T, D]."""
        (b, t, d), (_, _, h, k) = x.shape, self.qkv.shape
        # Two-dimensional products: XLA:CPU hands only those to its fast matmul, on both passes.
        qkv = x.reshape(b * t, d) @ self.qkv[...].reshape(d, -1).astype(x.dtype)
        qkv = qkv + self.qkv_bias[...].reshape(-1).astype(x.dtype)
        qkv = qkv.reshape(b, t, 3, h, k)
        q, keys, v = qkv[:, :, 0].swapaxes(1, 2), qkv[:, :, 1].transpose(0, 2, 3, 1), qkv[:, :, 2].swapaxes(1, 2)
        scores = (q * jnp.asarray(k**-0.5, x.dtype)) @ keys  # [B, H, T, K] @ [B, H, K, T] -> [B, H, T, T]
        scores = scores.astype(jnp.float32) + bias
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
        total = weights.sum(-1, keepdims=True)  # normalised after the product with v: T*K divisions, not T*T
        weights = dropout(weights, key, 0, self.rate)
        mixed = (weights.astype(x.dtype) @ v) / total.astype(x.dtype)  # [B, H, T, K]
        mixed = mixed.swapaxes(1, 2).reshape(b * t, d)
        out = mixed @ self.out[...].reshape(d, d).astype(x.dtype) + self.out_bias[...].astype(x.dtype)
        return out.reshape(b, t, d)


class Layer(nnx.Module):
    """One post-norm transformer block."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        d, std = cfg.hidden_size, cfg.initializer_range
        self.attention = Attention(cfg, rngs=rngs)
        self.attention_norm = LayerNorm(d, cfg.layer_norm_eps)
        self.ffn_in = Dense(d, cfg.ffn_size, std, rngs=rngs)
        self.ffn_out = Dense(cfg.ffn_size, d, std, rngs=rngs)
        self.ffn_norm = LayerNorm(d, cfg.layer_norm_eps)
        self.rate = cfg.dropout

    def __call__(self, x: jax.Array, bias: jax.Array, key: jax.Array | None) -> jax.Array:
        b, t, d = x.shape
        mixed = self.attention(x, bias, key)
        x = self.attention_norm(x + dropout(mixed, key, 1, self.rate))
        y = self.ffn_out(gelu(self.ffn_in(x.reshape(b * t, d)))).reshape(b, t, d)
        return self.ffn_norm(x + dropout(y, key, 2, self.rate))


class Encoder(nnx.Module):
    """Embeddings and L stacked layers."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        self.embeddings = Embeddings(cfg, rngs=rngs)
        keys = jax.random.split(rngs.params(), cfg.num_layers)
        self.layers = jax.vmap(lambda key: Layer(cfg, rngs=nnx.Rngs(params=key)))(keys)
        self.num_layers, self.rate, self.pad_id = cfg.num_layers, cfg.dropout, cfg.pad_id

    def __call__(
        self,
        ids: jax.Array,
        segments: jax.Array,
        key: jax.Array | None,
        *,
        dtype: jnp.dtype,
        remat: bool,
        unroll: int,
        layer: int | None = None,
        all_layers: bool = False,
    ) -> jax.Array:
        """ids, segments int32 [B, T] (segment 0 = padding) -> hidden states [B, T, D] in `dtype`.

        layer: stop after that many layers (0 = embeddings; transformers' hidden_states index); None = all.
        all_layers: return [L + 1, B, T, D], every hidden state as transformers' hidden_states.
        """
        positions = self.pad_id + jnp.where(segments > 0, _positions(segments), 0)
        x = self.embeddings(ids, positions, dtype)
        if key is not None:
            x = dropout(x, jax.random.fold_in(key, 0), 3, self.rate)
        same = (segments[:, None, :, None] == segments[:, None, None, :]) & (segments[:, None, None, :] > 0)
        bias = jnp.where(same, 0.0, _MASKED).astype(jnp.float32)  # [B, 1, T, T]

        def block(x: jax.Array, item: tuple[Layer, jax.Array | None]) -> tuple[jax.Array, jax.Array | None]:
            module, layer_key = item
            y = module(x, bias, layer_key)
            return y, (y if all_layers else None)

        depth = self.num_layers if layer is None else layer
        layers = jax.tree.map(lambda leaf: leaf[:depth], self.layers) if depth < self.num_layers else self.layers
        keys = None if key is None else jax.random.split(jax.random.fold_in(key, 1), self.num_layers)[:depth]
        if depth == 0:
            return x[None] if all_layers else x
        out, states = jax.lax.scan(jax.checkpoint(block) if remat else block, x, (layers, keys), unroll=unroll or depth)
        return out if states is None else jnp.concatenate([x[None], states])


def _positions(segments: jax.Array) -> jax.Array:
    """1-based position of each token within its segment: [B, T] int32. Segments are contiguous runs."""
    index = jnp.arange(segments.shape[1], dtype=jnp.int32)
    starts = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1) + 1
