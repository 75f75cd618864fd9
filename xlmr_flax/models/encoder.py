"""The XLM-R encoder in Flax NNX: parameters only, dropout by an explicit key, stacked layers under lax.scan.

Dimension letters: B rows, T tokens, D model, H heads, K head size, F ffn, L layers, V vocabulary.
Follows transformers' XLMRobertaModel (post-layer-norm, erf gelu, positions from pad_id + 1); parity is tested layer by
layer in tests/models/test_parity.py.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from xlmr_flax.models.attention import CPU, INTERPRET, KERNELS, attend, on_cpu, prepared
from xlmr_flax.models.config import EncoderConfig
from xlmr_flax.models.dropout import dropout, dropped, no_seed, seed_of
from xlmr_flax.models.place import ANYWHERE, FFN, HEADS, ROWS, Dims, Place

# What a layer keeps for its backward pass: everything; what matrix products and attention gave (for the first product
# of the feed-forward, gelu and its slope where that pays), from which the rest is computed again; its input alone.
ALL, PRODUCTS, LAYERS = 'all', 'products', 'layers'
KEPT = (ALL, PRODUCTS, LAYERS)
Seeds = tuple[jax.Array, jax.Array, jax.Array]  # of a layer's sites of dropout: attention's weights, two sums
_SITES = 3
_SUMS = {1: 'attention_sum', 2: 'layer_sum'}  # by dropout's site
_PRODUCTS = (
    'qkv', 'mixed', 'attention_sums', 'attention_mask', 'inner', 'active', 'slope', 'normed', *_SUMS.values()
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class How:
    """How a forward pass is computed, which changes no number but by rounding. dtype: of activations. attention: one of
    models/attention.py's. kept: one of KEPT. unroll: layers a step of the scan, 0 = all. place: of activations."""

    dtype: str = 'float32'
    attention: str = CPU
    kept: str = ALL
    unroll: int = 1
    place: Place = ANYWHERE


class Dense(nnx.Module):
    """y = x @ kernel + bias; kernel [in, out] float32, cast to x's dtype."""

    def __init__(self, features_in: int, features_out: int, std: float, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (features_in, features_out)) * std)
        self.bias = nnx.Param(jnp.zeros(features_out))

    def __call__(self, x: jax.Array, place: Place = ANYWHERE, dims: Dims = (None, None)) -> jax.Array:
        """x [..., in] -> [..., out]. dims: of the kernel, where it lies on a mesh (models/place.py)."""
        return x @ self.weight(x.dtype, place, dims) + self.bias[...].astype(x.dtype)

    def weight(self, dtype: jnp.dtype, place: Place, dims: Dims) -> jax.Array:
        """The kernel [in, out] in a compute dtype, placed."""
        return place(self.kernel[...].astype(dtype), *dims)


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
    """gelu, computed in float32 as torch does for bfloat16: exact (erf) for float32, as torch's default; for
    narrower dtypes to 3e-5, which is a hundredth of bfloat16's rounding at 1."""
    if x.dtype == jnp.float32:
        return 0.5 * x * _twice_cdf(x, x.dtype)
    return _narrow_gelu(x)


@jax.custom_jvp
def _narrow_gelu(x: jax.Array) -> jax.Array:
    return 0.5 * _twice(x)[0]


@_narrow_gelu.defjvp
def _narrow_tangent(x: tuple[jax.Array], tangent: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # A slope in x's dtype: by itself a backward pass would keep several arrays in float32.
    value, slope = _twice(x[0])
    return 0.5 * value, 0.5 * slope * tangent[0]


def _twice(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Twice gelu and twice its slope, in x's dtype."""
    wide = x.astype(jnp.float32)
    cdf = _twice_cdf(wide, x.dtype)
    slope = cdf + wide * jnp.float32((2 / math.pi) ** 0.5) * jnp.exp(-0.5 * (wide * wide))
    return (wide * cdf).astype(x.dtype), slope.astype(x.dtype)


def _twice_cdf(x: jax.Array, dtype: Any) -> jax.Array:
    """2 P(X <= x) of a standard normal X, float32, as exactly as values in `dtype` need it."""
    if dtype == jnp.float32:
        return 1.0 + jax.lax.erf(x * jnp.float32(0.5**0.5))
    # For a v6e the compiler estimates 4 % more for a training step with erf, and a tenth for a forward pass. The odd
    # polynomial is fitted to the least largest error of x P(X <= x), 2.6e-5; beyond 8 it would turn.
    square = x * x
    few = jnp.minimum(square, 64.0)
    return 1.0 + jnp.tanh(x * (0.79750787 + few * (0.03700566 - few * 0.00035151887)))


# A chip whose matrix unit is fast waits for what comes behind the first product of the feed-forward, so that each
# operation less counts; a backward pass from `inner` would compute gelu and its derivative again for each product that
# reads them. Keeping gelu and slope instead takes twice the memory of `inner`, and in a scan over the layers more time
# for copies than it saves.
@jax.custom_vjp
def twice_gelu(x: jax.Array) -> jax.Array:
    """2 gelu(x), of which half the next weights make gelu without rounding; its backward pass reads the derivative,
    kept in x's dtype under the name 'slope'."""
    return _twice(x)[0]


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, slope = _twice(x)
    return value, checkpoint_name(slope, 'slope')


def _gelu_backward(slope: jax.Array, given: jax.Array) -> tuple[jax.Array]:
    return (given * slope,)


twice_gelu.defvjp(_gelu_forward, _gelu_backward)


def _product(x: jax.Array, weight: jax.Array, name: str, how: How) -> jax.Array:
    """x [N, in] @ weight [in, out]. name: of x where that is kept beside kernels, and so is not computed again."""
    return _named_product(x, weight, name) if name and how.attention in KERNELS else x @ weight


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _named_product(x: jax.Array, weight: jax.Array, name: str) -> jax.Array:
    del name
    return x @ weight


def _named_forward(x: jax.Array, weight: jax.Array, name: str) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # Named beside its use: jax.checkpoint rounds what is both kept and used, with a pass over memory of its own.
    return x @ weight, (checkpoint_name(x, name), weight)


def _named_backward(name: str, kept: tuple[jax.Array, jax.Array], given: jax.Array) -> tuple[jax.Array, jax.Array]:
    del name
    x, weight = kept
    return given @ weight.T, x.T @ given


_named_product.defvjp(_named_forward, _named_backward)


class Embeddings(nnx.Module):
    """Word + position + (the single) token type, layer norm, dropout."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        def table(rows: int) -> nnx.Param:
            return nnx.Param(jax.random.normal(rngs.params(), (rows, cfg.hidden_size)) * cfg.initializer_range)

        self.word, self.position, self.token_type = table(cfg.vocab_size), table(cfg.max_positions), table(1)
        self.norm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def __call__(self, ids: jax.Array, positions: jax.Array, dtype: jnp.dtype, place: Place) -> jax.Array:
        x = place.lookup(self.word[...], ids) + place(self.position[...], None, None)[positions]  # [B, T, D]
        x = x + self.token_type[...][0]
        return place(self.norm(x).astype(dtype), ROWS, None, None)


class Attention(nnx.Module):
    """Multi-head self-attention within segments, with output projection. q, k and v are one kernel [D, 3, H, K]."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        d, h, k, std = cfg.hidden_size, cfg.num_heads, cfg.head_size, cfg.initializer_range
        self.qkv = nnx.Param(jax.random.normal(rngs.params(), (d, 3, h, k)) * std)
        self.qkv_bias = nnx.Param(jnp.zeros((3, h, k)))
        self.out = nnx.Param(jax.random.normal(rngs.params(), (h, k, d)) * std)
        self.out_bias = nnx.Param(jnp.zeros(d))
        self.rate = cfg.attention_dropout

    def __call__(self, x: jax.Array, seen: Any, seed: jax.Array | None, how: How) -> tuple[jax.Array, jax.Array]:
        """x [B, T, D]; seen: of models/attention.py's `prepared` -> ([B, T, D], the bias [D] that is still to be
        added)."""
        (b, t, d), (_, _, h, k), place = x.shape, self.qkv.shape, how.place
        kernel = place(self.qkv[...].astype(x.dtype), None, None, HEADS, None)
        weight = place(self.out[...].astype(x.dtype), HEADS, None, None).reshape(d, d)
        if how.attention == CPU:
            # Two-dimensional products: XLA:CPU hands only those to its fast matmul, on both passes.
            qkv = checkpoint_name(x.reshape(b * t, d) @ kernel.reshape(d, -1), 'qkv')
            qkv = qkv + self.qkv_bias[...].reshape(-1).astype(x.dtype)
            qkv = place(qkv.reshape(b, t, 3, h, k), ROWS, None, None, HEADS, None)
            mixed = checkpoint_name(on_cpu(qkv, seen, seed, self.rate, place), 'mixed')
            y = (mixed.reshape(b * t, d) @ weight).reshape(b, t, d)
        else:
            # Queries, keys and values each whole, with the heads of a token side by side: what kernels take.
            qkv = jnp.einsum('btd,dce->cbte', x, kernel.reshape(d, 3, h * k))
            qkv = checkpoint_name(place(qkv, None, ROWS, None, HEADS), 'qkv')
            bias, chosen = self.qkv_bias[...].reshape(3, h * k), how.attention
            y = attend(
                qkv, bias, seen, heads=h, implementation=chosen, seed=seed, rate=self.rate, weight=weight, place=place
            )
        return y, self.out_bias[...]


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

    def __call__(self, x: jax.Array, seen: Any, seeds: Seeds | None, how: How) -> jax.Array:
        """x [B, T, D], seen: as `Attention` takes it -> [B, T, D]."""
        (b, t, d), place = x.shape, how.place
        mixed, bias = self.attention(x, seen, seeds and seeds[0], how)
        x, again = self._close(self.attention_norm, x, mixed, bias, seeds, 1, how)
        inner = _product(again.reshape(b * t, d), self.ffn_in.weight(x.dtype, place, (None, FFN)), 'normed', how)
        inner = place(inner + self.ffn_in.bias[...].astype(x.dtype), ROWS, FFN)
        keeps_slope = how.attention in KERNELS and how.unroll == 0
        active = twice_gelu(inner) if keeps_slope else gelu(checkpoint_name(inner, 'inner'))
        weight = self.ffn_out.weight(x.dtype, place, (FFN, None)) * (0.5 if keeps_slope else 1)
        y = _product(active, weight, 'active' if keeps_slope else '', how)
        return self._close(self.ffn_norm, x, y.reshape(b, t, d), self.ffn_out.bias[...], seeds, 2, how)[0]

    def _close(
        self,
        norm: LayerNorm,
        x: jax.Array,
        y: jax.Array,
        bias: jax.Array,
        seeds: Seeds | None,
        site: int,
        how: How,
    ) -> tuple[jax.Array, jax.Array]:
        """norm(x + dropout(y + bias)), [B, T, D], for one use and for another: the kernel adds their gradients up."""
        y, name = how.place(y, ROWS, None, None), _SUMS[site]
        if how.attention in KERNELS:
            from xlmr_flax.models.norm_tpu import sum_and_norm

            seed, rate = (no_seed(), 0.0) if seeds is None else (seeds[site], self.rate)
            found = sum_and_norm(
                x, y, bias, norm.scale[...], norm.bias[...], seed, epsilon=norm.eps, rate=rate, name=name,
                uses=2 if site == 1 else 1, place=how.place, interpret=how.attention == INTERPRET,
            )  # fmt: skip
            one, *more = (how.place(x, ROWS, None, None) for x in found)
            return one, more[0] if more else one
        x = checkpoint_name(x + dropped(y + bias.astype(y.dtype), seeds and seeds[site], self.rate), name)
        x = how.place(norm(x), ROWS, None, None)
        return x, x


class Encoder(nnx.Module):
    """Embeddings and L stacked layers."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        self.embeddings = Embeddings(cfg, rngs=rngs)
        keys = jax.random.split(rngs.params(), cfg.num_layers)
        self.layers = jax.vmap(lambda key: Layer(cfg, rngs=nnx.Rngs(params=key)))(keys)
        self.num_layers, self.num_heads = cfg.num_layers, cfg.num_heads
        self.rate, self.pad_id = cfg.dropout, cfg.pad_id

    def __call__(
        self,
        ids: jax.Array,
        segments: jax.Array,
        key: jax.Array | None,
        *,
        how: How,
        layer: int | None = None,
        all_layers: bool = False,
    ) -> jax.Array:
        """ids, segments int32 [B, T] (segment 0 = padding) -> hidden states [B, T, D] in the compute dtype.

        layer: stop after that many layers (0 = embeddings; transformers' hidden_states index); None = all.
        all_layers: return [L + 1, B, T, D], every hidden state as transformers' hidden_states.
        """
        positions = self.pad_id + jnp.where(segments > 0, _positions(segments), 0)
        x = self.embeddings(ids, positions, jnp.dtype(how.dtype), how.place)
        if key is not None:
            x = dropout(x, jax.random.fold_in(key, 0), 3, self.rate)
        seen = prepared(segments, self.num_heads, how.attention)

        def block(x: jax.Array, item: tuple[Layer, Seeds | None]) -> tuple[jax.Array, jax.Array | None]:
            module, seeds = item
            y = module(x, seen, seeds, how)
            return y, (y if all_layers else None)

        depth = self.num_layers if layer is None else layer
        layers = jax.tree.map(lambda leaf: leaf[:depth], self.layers) if depth < self.num_layers else self.layers
        seeds = None if key is None else _seeds(jax.random.split(jax.random.fold_in(key, 1), self.num_layers)[:depth])
        if depth == 0:
            return x[None] if all_layers else x
        step = block
        if how.kept != ALL:
            policy = jax.checkpoint_policies.save_only_these_names(*_PRODUCTS) if how.kept == PRODUCTS else None
            step = jax.checkpoint(block, policy=policy)
        out, states = jax.lax.scan(step, x, (layers, seeds), unroll=how.unroll or depth)
        return out if states is None else jnp.concatenate([x[None], states])


def _seeds(keys: jax.Array) -> Seeds:
    """Keys of layers [L] -> seeds [L, 1, 2] of dropout's sites in a layer. At once and outside of the layers: each
    would compute its own in several small operations, and again for its backward pass."""
    found = jax.vmap(lambda key: tuple(seed_of(key, site) for site in range(_SITES)))(keys)
    return found[0], found[1], found[2]


def _positions(segments: jax.Array) -> jax.Array:
    """1-based position of each token within its segment: [B, T] int32. Segments are contiguous runs."""
    index = jnp.arange(segments.shape[1], dtype=jnp.int32)
    starts = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1) + 1
