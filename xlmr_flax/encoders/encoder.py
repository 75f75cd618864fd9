"""The XLM-R encoder (Conneau et al. 2020) in Flax NNX: embeddings and L post-layer-norm transformer layers.

Modules hold parameters only. Dropout takes an explicit key. The layers are stacked and run under lax.scan.
Dimension letters: B rows, T tokens, D model, H heads, K head size, F ffn, L layers, V vocabulary.
Follows transformers' XLMRobertaModel (post-layer-norm, erf gelu, positions from pad_id + 1); parity is tested layer
by layer in tests/models/test_parity.py. encoders/attention/ and encoders/kernels/ have the platforms' implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from xlmr_flax.encoders.attention import attention_mask, self_attention
from xlmr_flax.encoders.compute import SUMS, ComputeOptions, rematerialised
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import Key, dropout, fold_in, layer_seeds
from xlmr_flax.encoders.kernels.add_norm import add_and_norm
from xlmr_flax.encoders.kernels.feed_forward import feed_forward
from xlmr_flax.encoders.layers import Dense, LayerNorm
from xlmr_flax.encoders.logical_axes import ROWS, Constrain

Seeds = tuple[jax.Array, jax.Array, jax.Array]  # dropout seeds of a layer: attention weights, the two residual sums
Read = Callable[[jax.Array], jax.Array]
NO_SEEDS = (None, None, None)


class PlainEmbeddings(nnx.Module):
    """Embeddings without norm: word + position + token type (None = type 0). `Encoder` applies the dropout."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        def table(rows: int) -> nnx.Param:
            return nnx.Param(jax.random.normal(rngs.params(), (rows, cfg.hidden_size)) * cfg.initializer_range)

        self.word, self.position = table(cfg.vocab_size), table(cfg.max_positions)
        self.token_type = table(cfg.token_types)

    def __call__(
        self, ids: jax.Array, positions: jax.Array, types: jax.Array | None, dtype: jnp.dtype, place: Constrain
    ) -> jax.Array:
        return place(self.total(ids, positions, types, place).astype(dtype), ROWS, None, None)

    def total(self, ids: jax.Array, positions: jax.Array, types: jax.Array | None, place: Constrain) -> jax.Array:
        """The sum of the embeddings: float32 [B, T, D]."""
        x = place.lookup(self.word[...], ids) + place(self.position[...], None, None)[positions]
        return x + (self.token_type[...][0] if types is None else place(self.token_type[...], None, None)[types])


class Embeddings(PlainEmbeddings):
    """Embeddings: layer norm of word + position + token type."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        super().__init__(cfg, rngs=rngs)
        self.norm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def total(self, ids: jax.Array, positions: jax.Array, types: jax.Array | None, place: Constrain) -> jax.Array:
        return self.norm(super().total(ids, positions, types, place))


class Attention(nnx.Module):
    """Multi-head self-attention within segments, with output projection. q, k and v are one kernel [D, 3, H, K]."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        d, h, k, std = cfg.hidden_size, cfg.num_heads, cfg.head_size, cfg.initializer_range
        self.qkv = nnx.Param(jax.random.normal(rngs.params(), (d, 3, h, k)) * std)
        self.qkv_bias = nnx.Param(jnp.zeros((3, h, k)))
        self.out = nnx.Param(jax.random.normal(rngs.params(), (h, k, d)) * std)
        self.out_bias = nnx.Param(jnp.zeros(d))
        self.rate = cfg.attention_dropout

    def __call__(self, x: jax.Array, shared: Any, seed: jax.Array | None, options: ComputeOptions) -> jax.Array:
        """x [B, T, D] -> [B, T, D] without out_bias, which `add_and_norm` adds.

        shared: from `Encoder.shared`; here the attention mask. seed: of the dropout of attention weights, None = no
        dropout.
        """
        return self_attention(
            x, self.qkv[...], self.qkv_bias[...], self.out[...], shared,
            implementation=options.attention, seed=seed, rate=self.rate, place=options.place,
        )  # fmt: skip


class Layer(nnx.Module):
    """One post-norm transformer block: x = norm(x + dropout(attention(x))), then x = norm(x + dropout(ffn(x)))."""

    attention_type: ClassVar[type[Attention]] = Attention

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        d, std = cfg.hidden_size, cfg.initializer_range
        self.attention = self.attention_type(cfg, rngs=rngs)
        self.attention_norm = LayerNorm(d, cfg.layer_norm_eps)
        self.ffn_in = Dense(d, cfg.ffn_size, std, rngs=rngs)
        self.ffn_out = Dense(cfg.ffn_size, d, std, rngs=rngs)
        self.ffn_norm = LayerNorm(d, cfg.layer_norm_eps)
        self.rate = cfg.dropout

    def __call__(self, x: jax.Array, shared: Any, seeds: Seeds | None, options: ComputeOptions) -> jax.Array:
        """x [B, T, D] -> [B, T, D]. shared: as for `Attention`. seeds: of dropout, None = none."""
        weights_seed, *sum_seeds = seeds or NO_SEEDS
        y = self.attention(x, shared, weights_seed, options)
        # Two names for one array, which has two uses: the kernel's backward pass adds their gradients.
        x, again = add_and_norm(
            self.attention_norm, x, y, self.attention.out_bias[...], options,
            seed=sum_seeds[0], rate=self.rate, name=SUMS[0], uses=2,
        )  # fmt: skip
        y = feed_forward(again, self.ffn_in, self.ffn_out, options)
        (x,) = add_and_norm(
            self.ffn_norm, x, y, self.ffn_out.bias[...], options,
            seed=sum_seeds[1], rate=self.rate, name=SUMS[1], uses=1,
        )  # fmt: skip
        return x


class Encoder(nnx.Module):
    """The encoder: embeddings and L stacked layers.

    A family with other embeddings or layers has a subclass with its own `embeddings_type` or `layer_type`, called as
    these.
    """

    embeddings_type: ClassVar[type[Any]] = Embeddings
    layer_type: ClassVar[type[Layer]] = Layer

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        self.embeddings = self.embeddings_type(cfg, rngs=rngs)
        keys = jax.random.split(rngs.params(), cfg.num_layers)
        self.layers = jax.vmap(lambda key: self.layer_type(cfg, rngs=nnx.Rngs(params=key)))(keys)
        self.num_layers, self.num_heads = cfg.num_layers, cfg.num_heads
        self.rate, self.first_position = cfg.dropout, cfg.first_position

    def token_types(self, ids: jax.Array, segments: jax.Array) -> jax.Array | None:
        """The token types int32 [B, T], None = all 0. XLM-R has one type."""
        del ids, segments
        return None

    def shared(self, segments: jax.Array, options: ComputeOptions) -> Any:
        """The argument `shared` of all layers, from segments int32 [B, T]: computed once. Here the attention mask."""
        return attention_mask(segments, self.num_heads, options.attention)

    def seeds(self, key: Key, rows: int, tokens: int) -> Seeds:
        """The dropout seeds of all layers, [L, ...] each, for a batch of this shape."""
        weights, sums = rows * self.num_heads * tokens, rows * tokens
        weights_seed, *sum_seeds = layer_seeds(fold_in(key, 1), self.num_layers, (weights, sums, sums))
        return weights_seed, sum_seeds[0], sum_seeds[1]

    def finish(self, x: jax.Array) -> jax.Array:
        """The last layer's output [B, T, D] -> the encoder's. XLM-R changes nothing."""
        return x

    def __call__(
        self,
        ids: jax.Array,
        segments: jax.Array,
        key: Key | None,
        *,
        options: ComputeOptions,
        layer: int | None = None,
        read: Read | None = None,
    ) -> jax.Array:
        """ids, segments int32 [B, T] (segment 0 = padding) -> hidden states [B, T, D] in the compute dtype.

        layer: stop after that many layers (0 = embeddings; transformers' hidden_states index); None = all.
        read: applied to each hidden state as soon as it is computed, so that none is kept. With it, the results are
        returned instead, stacked in the order of transformers' hidden_states: [L + 1, ...].
        """
        before = self.first_position - 1
        # Padding has position `before`, in XLM-R the padding id, or 0 where positions start at 0.
        positions = jnp.where(segments > 0, before + positions_of(segments), max(before, 0))
        types = self.token_types(ids, segments)
        x = self.embeddings(ids, positions, types, jnp.dtype(options.dtype), options.place)
        if key is not None:
            x = dropout(x, fold_in(key, 0), 3, self.rate)
        shared = self.shared(segments, options)

        def block(x: jax.Array, item: tuple[Layer, Seeds | None]) -> tuple[jax.Array, jax.Array | None]:
            module, seeds = item
            y = module(x, shared, seeds, options)
            return y, (read(y) if read else None)

        depth = self.num_layers if layer is None else layer
        layers = jax.tree.map(lambda leaf: leaf[:depth], self.layers) if depth < self.num_layers else self.layers
        seeds = None if key is None else jax.tree.map(lambda leaf: leaf[:depth], self.seeds(key, *ids.shape))
        if depth == 0:
            return read(x)[None] if read else x
        step = rematerialised(block, options.remat)
        out, states = jax.lax.scan(step, x, (layers, seeds), unroll=options.unroll or depth)
        out = self.finish(out) if depth == self.num_layers else out
        return out if read is None else jnp.concatenate([read(x)[None], states[:-1], read(out)[None]])


def positions_of(segments: jax.Array) -> jax.Array:
    """The 1-based position of each token within its segment: int32 [B, T]. Segments are contiguous runs."""
    return jnp.arange(segments.shape[1], dtype=jnp.int32) - segment_starts(segments) + 1


def segment_starts(segments: jax.Array) -> jax.Array:
    """The index of the first token of each token's segment: int32 [B, T]."""
    index = jnp.arange(segments.shape[1], dtype=jnp.int32)
    starts = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    return jax.lax.cummax(jnp.where(starts, index, 0), axis=1)
