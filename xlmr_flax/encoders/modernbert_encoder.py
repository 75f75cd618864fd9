"""The ModernBERT encoder (Warner et al. 2024, also mmBERT) in Flax NNX: pre-layer-norm layers with rotary positions.

x = norm(word), then L times x = x + attention(norm(x)), x = x + ffn(norm(x)), and a final norm; no biases. The first
layer's attention has no norm of its own. Every third layer, from the first, attends to its whole segment, the others to
a window. Dimension letters: as in encoders/encoder.py; W window to one side. Follows transformers' ModernBertModel;
tests/models/test_modernbert.py compares with it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from xlmr_flax.encoders.attention import attend, attention_mask
from xlmr_flax.encoders.attention.window import window_attention, window_mask
from xlmr_flax.encoders.compute import SUMS, ComputeOptions, rematerialised
from xlmr_flax.encoders.config import EncoderConfig, FieldError
from xlmr_flax.encoders.dropout import Key, dropout, dropped, fold_in, layer_seeds
from xlmr_flax.encoders.encoder import Read, positions_of
from xlmr_flax.encoders.kernels.gelu import gelu
from xlmr_flax.encoders.layers import Linear, ScaleNorm
from xlmr_flax.encoders.logical_axes import FFN, HEADS, ROWS
from xlmr_flax.util.errors import quote

Seeds = tuple[jax.Array, jax.Array, jax.Array]  # dropout seeds of a layer: attention weights, attention output, ffn
_SITES = 3


@dataclasses.dataclass(frozen=True)
class ModernBertConfig(EncoderConfig):
    """The shape of a ModernBERT. max_positions: tokens of the longest row.

    window: tokens of a local layer's window, half of them to each side. global_every: every that many layers, from the
    first, is global. global_theta, local_theta: bases of the rotary positions. pooling: what the heads of transformers
    read, 'cls' or 'mean'. dropout: rate of the heads; embedding_dropout, ffn_dropout: of the encoder;
    attention_dropout: of attention weights and attention's output.
    """

    family: ClassVar[str] = 'modernbert'

    max_positions: int = 8192
    dropout: float = 0.0
    attention_dropout: float = 0.0
    window: int = 128
    global_every: int = 3
    global_theta: float = 160_000.0
    local_theta: float = 160_000.0
    pooling: str = 'cls'
    embedding_dropout: float = 0.0
    ffn_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, lowest in (('window', 2), ('global_every', 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise FieldError(name, f'is {quote(value)}; an integer from {lowest} is expected')
        if self.head_size % 2:
            reason = f'each head has size {self.head_size}, and rotary positions need an even size'
            raise FieldError('num_heads', f'is {self.num_heads}; {reason}')

    @property
    def max_length(self) -> int:
        return self.max_positions


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all global layers share, or all local ones: rotary angles cos, sin float32 [B, T, 1, K / 2], and the mask.

    mask: from `attention_mask`, for global layers, else None. window: from `window_mask`, for local layers, else None.
    In rows that a window covers, local layers have `mask` as well.
    """

    cos: jax.Array
    sin: jax.Array
    mask: Any = None
    window: jax.Array | None = None


class Attention(nnx.Module):
    """Multi-head self-attention with rotary positions, without biases. q, k and v are one kernel [D, 3, H, K]."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        d, h, k = cfg.hidden_size, cfg.num_heads, cfg.head_size
        self.qkv = nnx.Param(_normal(rngs, (d, 3, h, k), cfg.initializer_range))
        self.out = nnx.Param(_normal(rngs, (h, k, d), output_range(cfg)))
        self.rate = cfg.attention_dropout

    def __call__(self, x: jax.Array, shared: Shared, seed: jax.Array | None, options: ComputeOptions) -> jax.Array:
        """x [B, T, D] -> [B, T, D]. seed: of the dropout of attention weights, None = no dropout."""
        (b, t, d), (_, _, h, k), place = x.shape, self.qkv.shape, options.place
        kernel = place(self.qkv[...].astype(x.dtype), None, None, HEADS, None)
        # Two-dimensional products, as in `self_attention`.
        qkv = checkpoint_name(x.reshape(b * t, d) @ kernel.reshape(d, -1), 'qkv').reshape(b, t, 3, h, k)
        qkv = place(qkv, ROWS, None, None, HEADS, None)
        query, key = (rotated(qkv[:, :, i], shared) for i in (0, 1))
        parts = jnp.stack([query, key, qkv[:, :, 2]])  # [3, B, T, H, K]
        if shared.window is None:
            parts, bias = parts.reshape(3, b, t, d), jnp.zeros((3, d), x.dtype)
            mixed = attend(
                parts, bias, shared.mask,
                heads=h, implementation=options.attention, seed=seed, rate=self.rate, place=place,
            )  # fmt: skip
        else:
            mixed = checkpoint_name(window_attention(parts, shared.window, seed, self.rate, place), 'mixed')
        weight = place(self.out[...].astype(x.dtype), HEADS, None, None).reshape(d, d)
        return (mixed.reshape(b * t, d) @ weight).reshape(b, t, d)


class Layer(nnx.Module):
    """One pre-norm block: x = x + attention(norm(x)), then x = x + W_out (gelu(x W_in) * x W_gate) of norm(x).

    is_first: without attention_norm.
    """

    def __init__(self, cfg: ModernBertConfig, *, is_first: bool = False, rngs: nnx.Rngs):
        d, f = cfg.hidden_size, cfg.ffn_size
        self.attention = Attention(cfg, rngs=rngs)
        if not is_first:
            self.attention_norm = ScaleNorm(d, cfg.layer_norm_eps)
        self.ffn_norm = ScaleNorm(d, cfg.layer_norm_eps)
        self.gated_in = nnx.Param(_normal(rngs, (d, 2, f), cfg.initializer_range))
        self.ffn_out = Linear(_normal(rngs, (f, d), output_range(cfg)))
        self.is_first, self.rates = is_first, (cfg.attention_dropout, cfg.ffn_dropout)

    def __call__(self, x: jax.Array, shared: Shared, seeds: Seeds | None, options: ComputeOptions) -> jax.Array:
        """x [B, T, D] -> [B, T, D]. seeds: of dropout, None = none."""
        weights_seed, out_seed, ffn_seed = seeds or (None,) * _SITES
        y = self.attention(x if self.is_first else self.attention_norm(x), shared, weights_seed, options)
        x = checkpoint_name(x + dropped(y, out_seed, self.rates[0]), SUMS[0])
        return checkpoint_name(x + self._feed_forward(self.ffn_norm(x), ffn_seed, options), SUMS[1])

    def _feed_forward(self, x: jax.Array, seed: jax.Array | None, options: ComputeOptions) -> jax.Array:
        (b, t, d), place = x.shape, options.place
        kernel = place(self.gated_in[...].astype(x.dtype), None, None, FFN)
        inner = checkpoint_name(x.reshape(b * t, d) @ kernel.reshape(d, -1), 'inner')
        inner = place(inner.reshape(b * t, 2, -1), ROWS, None, FFN)
        active = dropped((gelu(inner[:, 0]) * inner[:, 1]).reshape(b, t, -1), seed, self.rates[1])
        return self.ffn_out(active.reshape(b * t, -1), place, (FFN, None)).reshape(b, t, d)


class Embeddings(nnx.Module):
    """Embeddings: layer norm of the word embedding."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        self.word = nnx.Param(_normal(rngs, (cfg.vocab_size, cfg.hidden_size), cfg.initializer_range))
        self.norm = ScaleNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def __call__(self, ids: jax.Array, options: ComputeOptions) -> jax.Array:
        x = self.norm(options.place.lookup(self.word[...], ids)).astype(options.dtype)
        return options.place(x, ROWS, None, None)


class ModernBertEncoder(nnx.Module):
    """The encoder: embeddings, the first layer, L - 1 stacked layers, final norm."""

    def __init__(self, cfg: ModernBertConfig, *, rngs: nnx.Rngs):
        self.embeddings = Embeddings(cfg, rngs=rngs)
        self.first = Layer(cfg, is_first=True, rngs=rngs)
        keys = jax.random.split(rngs.params(), cfg.num_layers - 1)
        self.layers = jax.vmap(lambda key: Layer(cfg, rngs=nnx.Rngs(params=key)))(keys)
        self.final_norm = ScaleNorm(cfg.hidden_size, cfg.layer_norm_eps)
        self.cfg = cfg

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

        layer: stop after that many layers (0 = embeddings; transformers' hidden_states index); None = all. The final
        norm is applied after the last layer alone. read: as in encoders/encoder.py.
        """
        cfg, x = self.cfg, self.embeddings(ids, options)
        if key is not None:
            x = dropout(x, fold_in(key, 0), 3, cfg.embedding_dropout)
        depth = cfg.num_layers if layer is None else layer
        taken = read or (lambda x: x)
        states, shared, seeds = [taken(x)], self._shared(segments, options), self._seeds(key, *ids.shape)
        if depth:
            x = self._block(self.first, options)(x, shared[0], _at(seeds, 0))
            states.append(taken(x))
        rest = depth - 1
        # One step of the scan is a whole period of local and global layers, so that the window of each is static.
        period = cfg.global_every
        groups = max(0, rest // period)
        if groups:

            def step(x: jax.Array, item: tuple[Layer, Seeds | None]) -> tuple[jax.Array, jax.Array | None]:
                made = []
                for i in range(period):
                    module, own = jax.tree.map(lambda leaf, i=i: leaf[i], item)
                    x = self._block(module, options)(x, shared[(i + 1) % period != 0], own)
                    made.append(taken(x))
                return x, (jnp.stack(made) if read else None)

            own = None if seeds is None else jax.tree.map(lambda leaf: leaf[1:], seeds)
            grouped = jax.tree.map(
                lambda leaf: leaf[: groups * period].reshape(groups, period, *leaf.shape[1:]), (self.layers, own)
            )
            x, made = jax.lax.scan(step, x, grouped, unroll=options.unroll or groups)
            if made is not None:
                states += list(made.reshape(groups * period, *made.shape[2:]))
        for i in range(groups * period, rest):
            module = jax.tree.map(lambda leaf, i=i: leaf[i], self.layers)
            x = self._block(module, options)(x, shared[(i + 1) % period != 0], _at(seeds, i + 1))
            states.append(taken(x))
        if depth == cfg.num_layers:
            x = self.final_norm(x)
            states[-1] = taken(x)
        return jnp.stack(states) if read else x

    def _block(self, module: Layer, options: ComputeOptions) -> Any:
        """A layer as a function of x, shared arrays and seeds, with its rematerialisation."""

        def run(x: jax.Array, arrays: Any, kept: Any) -> jax.Array:
            shared, seeds = arrays
            return kept(x, shared, seeds, options)

        def call(x: jax.Array, shared: Shared, seeds: Seeds | None) -> jax.Array:
            return rematerialised(run, options.remat)(x, (shared, seeds), module)

        return call

    def _shared(self, segments: jax.Array, options: ComputeOptions) -> tuple[Shared, Shared]:
        """What the global and the local layers share, computed once, outside of the layers."""
        cfg, positions = self.cfg, positions_of(segments) - 1
        mask = attention_mask(segments, cfg.num_heads, options.attention)
        whole = Shared(*angles(positions, cfg.head_size, cfg.global_theta), mask)
        is_whole = self._is_whole(segments.shape[1])
        window = None if is_whole else window_mask(segments, cfg.window // 2)
        local = Shared(*angles(positions, cfg.head_size, cfg.local_theta), mask if is_whole else None, window)
        return whole, local

    def _seeds(self, key: Key | None, rows: int, tokens: int) -> Seeds | None:
        """Dropout seeds [L, 1, 2] for each site of a layer, None = no dropout. rows, tokens: the batch's shape."""
        if key is None:
            return None
        cfg, side = self.cfg, self.cfg.window // 2
        # A local layer has weights for whole blocks of queries (encoders/attention/window.py).
        in_blocks = tokens if self._is_whole(tokens) else -(-tokens // side) * side
        is_global = np.arange(cfg.num_layers) % cfg.global_every == 0
        weights = rows * cfg.num_heads * np.where(is_global, tokens, in_blocks)
        weights_seed, *others = layer_seeds(fold_in(key, 1), cfg.num_layers, (weights, rows * tokens, rows * tokens))
        return weights_seed, others[0], others[1]

    def _is_whole(self, tokens: int) -> bool:
        """Whether every token's window covers the whole row: then a local layer sees what a global one sees."""
        return tokens <= self.cfg.window // 2 + 1


jax.tree_util.register_dataclass(Shared)


def _at(seeds: Seeds | None, layer: int) -> Any:
    return None if seeds is None else jax.tree.map(lambda leaf: leaf[layer], seeds)


def angles(positions: jax.Array, size: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Rotary angles (Su et al. 2021): positions int32 [B, T] -> cos, sin float32 [B, T, 1, size / 2]."""
    frequencies = 1.0 / theta ** (jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    turned = positions[..., None, None].astype(jnp.float32) * frequencies
    return jnp.cos(turned), jnp.sin(turned)


def rotated(x: jax.Array, shared: Shared) -> jax.Array:
    """Queries or keys [B, T, H, K] with their positions: the pairs (x_i, x_{i + K/2}) rotated, in float32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = shared.cos, shared.sin
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def output_range(cfg: EncoderConfig) -> float:
    """The initial standard deviation of projections into the residual stream, as in transformers."""
    return cfg.initializer_range / (2.0 * cfg.num_layers) ** 0.5


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> jax.Array:
    """A normal distribution that is cut at two standard deviations, as in transformers."""
    return jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape) * std
