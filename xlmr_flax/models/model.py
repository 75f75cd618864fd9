"""The model as pure functions over a plain dict of arrays; NNX stays behind this door.

params = {'encoder': {...}, 'pooler': {...}, 'heads': {name: {...}}}, float32. A batch is a dict of int32 arrays:
ids, segments [B, T] (choice: [B, N, T]). One model serves every head: heads are looked up by name in params.

A row may hold several examples, its segments 1 to S, one behind the other (data/packing.py): heads that give one output
an example then read at `starts` int32 [B, S] (choice: [B, N, S]), the first token of each segment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.attention.choose import AUTO, check_name, choose
from xlmr_flax.encoders.compute import DOTS, REMAT, ComputeOptions
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.heads import STYLES, Pooler, first_token
from xlmr_flax.encoders.logical_axes import ANYWHERE, Place
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.kinds.base import Rows

Params = dict[str, Any]
POOLINGS = ('mean', 'cls')


@dataclasses.dataclass(frozen=True)
class Model:
    """Forward functions of one encoder shape.

    style: 'jiant' or 'hf' heads (encoders/heads.py). dtype: compute dtype, 'float32' or 'bfloat16'; parameters are
    float32 always. remat: what the backward pass of a layer computes again, 'none', 'dots' (all but matrix products
    and attention) or 'full' (the whole layer); 'auto' = dots. unroll: layers per scan step, 0 = all of them.
    attention: a formulation of encoders/attention/choose.py. place: adds sharding constraints of a mesh to activations,
    and platform: what attention's 'auto' is decided by, '' = this process's; both are given
    by parallel/placement.py.
    """

    config: EncoderConfig
    style: str = 'jiant'
    dtype: str = 'float32'
    remat: str = AUTO
    unroll: int = 1
    attention: str = AUTO
    place: Place = ANYWHERE
    platform: str = ''

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ModelError(f'head style {self.style!r} is not one of {", ".join(STYLES)}')
        if self.dtype not in ('float32', 'bfloat16'):
            raise ModelError(f'compute dtype {self.dtype!r} is not float32 or bfloat16')
        if self.remat not in (AUTO, *REMAT):
            raise ModelError(f'encoder.remat {self.remat!r} is not one of {", ".join((AUTO, *REMAT))}')
        check_name(self.attention)

    def options(self) -> ComputeOptions:
        """How the encoder is computed on the platform. Raises ModelError where it cannot be."""
        platform = self.platform or jax.default_backend()
        remat = DOTS if self.remat == AUTO else self.remat
        attention = choose(self.attention, platform, self.dtype)
        return ComputeOptions(self.dtype, attention, remat, self.unroll, self.place)

    def init(self, key: jax.Array, heads: Mapping[str, HeadSpec]) -> Params:
        """Fresh float32 parameters with the given heads. normal(0, initializer_range), biases 0."""
        encoder_key, pooler_key = jax.random.split(key)

        def pure(module: nnx.Module) -> dict[str, Any]:
            return nnx.to_pure_dict(nnx.state(module))

        params = {
            'encoder': pure(family_of(self.config).module(self.config, rngs=nnx.Rngs(params=encoder_key))),
            'pooler': pure(Pooler(self.config, rngs=nnx.Rngs(params=pooler_key))),
            'heads': {},
        }
        for name, spec in heads.items():
            params['heads'][name] = self.init_head(head_key(key, name), spec)
        return params

    def init_pooler(self, key: jax.Array) -> dict[str, Any]:
        """A fresh pooler, for encoders that come without one (XLM-R has none)."""
        return nnx.to_pure_dict(nnx.state(Pooler(self.config, rngs=nnx.Rngs(params=jax.random.split(key)[1]))))

    def init_head(self, key: jax.Array, spec: HeadSpec) -> dict[str, Any]:
        """Fresh parameters of one head."""
        head = kind_of(spec).make_head(self.config, spec.outputs, self.style, nnx.Rngs(params=key))
        return nnx.to_pure_dict(nnx.state(head))

    def shapes(self, heads: Mapping[str, HeadSpec]) -> Params:
        """ShapeDtypeStructs of `init`, without allocating."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0), heads))

    def encode(
        self,
        params: Params,
        ids: jax.Array,
        segments: jax.Array,
        key: jax.Array | None = None,
        *,
        layer: int | None = None,
        all_layers: bool = False,
    ) -> jax.Array:
        """ids, segments [B, T] -> hidden states [B, T, D] (all_layers: [L + 1, B, T, D]) in the compute dtype."""
        graph = _graph(family_of(self.config).module, self.config)
        return nnx.merge(graph, params['encoder'])(
            ids,
            segments,
            key,
            options=self.options(),
            layer=layer,
            all_layers=all_layers,
        )

    def pool(self, params: Params, hidden: jax.Array) -> jax.Array:
        """[B, T, D] -> the pooler's output [B, D]."""
        return nnx.merge(_graph(Pooler, self.config), params['pooler'])(hidden[:, 0])

    def logits(
        self,
        params: Params,
        name: str,
        spec: HeadSpec,
        ids: jax.Array,
        segments: jax.Array,
        key: jax.Array | None = None,
        positions: jax.Array | None = None,
        starts: jax.Array | None = None,
    ) -> jax.Array:
        """float32 logits of one head: pair [B, C], choice [B, N], span [B, T, 2], tag [B, T, C], mlm [B, T, V].

        positions: int32 [B, M], for mlm alone: the logits of these tokens only, [B, M, V]. starts: of the segments of
        packed rows, for pair [B, S, C] and choice [B, S, N]: those of slots without a segment mean nothing.
        """
        head = nnx.merge(_head_graph(spec, self.style, self.config), params['heads'][name])
        return kind_of(spec).logits(self, params, head, Rows(ids, segments, starts, positions), key)

    def first_tokens(self, hidden: jax.Array, starts: jax.Array | None) -> jax.Array:
        """The hidden states of each row's first token, [B, T, D] -> [B, D]; of packed rows of each slot's, slot by
        slot, [B*S, D]. starts: int32 [B, S] or [B, N, S]."""
        return first_token(hidden) if starts is None else self._firsts(hidden, starts)

    def _firsts(self, hidden: jax.Array, starts: jax.Array) -> jax.Array:
        """The hidden states of every slot's first token, slot by slot: [B, T, D] -> [B*S, D]."""
        starts = starts.reshape(-1, starts.shape[-1])  # a choice head's come as [B, N, S]
        return jnp.take_along_axis(hidden, starts[..., None], axis=1).reshape(-1, hidden.shape[-1])

    def embed(
        self,
        params: Params,
        ids: jax.Array,
        segments: jax.Array,
        starts: jax.Array | None = None,
        *,
        layer: int | None = None,
        pooling: str = 'mean',
    ) -> jax.Array:
        """Sentence vectors float32 [B, D] of hidden_states[layer]; 'mean' includes the special tokens, as XTREME's.

        starts: of the segments of packed rows; then [B, S, D], a vector for each slot.
        """
        if pooling not in POOLINGS:
            raise ModelError(f'pooling {pooling!r} is not one of {", ".join(POOLINGS)}')
        hidden = self.encode(params, ids, segments, layer=layer).astype(jnp.float32)
        if pooling == 'cls':
            return hidden[:, 0] if starts is None else self._firsts(hidden, starts).reshape(*starts.shape, -1)
        if starts is None:
            mask = (segments > 0)[..., None].astype(jnp.float32)
            return (hidden * mask).sum(1) / jnp.maximum(mask.sum(1), 1.0)
        numbers = jnp.arange(1, starts.shape[-1] + 1, dtype=segments.dtype)
        mask = (segments[:, None] == numbers[:, None]).astype(jnp.float32)  # [B, S, T]
        # A sum, not a product of matrices of which the device may round the factors.
        sums = jnp.einsum('bst,btd->bsd', mask, hidden, precision=jax.lax.Precision.HIGHEST)
        return sums / jnp.maximum(mask.sum(-1, keepdims=True), 1.0)


def head_key(key: jax.Array, name: str) -> jax.Array:
    """The key of a head's initial values: a function of its name, so that other heads do not change it."""
    number = int.from_bytes(name.encode(), 'big') % (2**31 - 1)
    return jax.random.fold_in(jax.random.fold_in(key, 3), number)


def _graph(module: type, config: EncoderConfig) -> Any:
    return nnx.split(nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0))))[0]


def _head_graph(spec: HeadSpec, style: str, config: EncoderConfig) -> Any:
    return nnx.split(nnx.eval_shape(lambda: kind_of(spec).make_head(config, spec.outputs, style, nnx.Rngs(0))))[0]
