"""The model as pure functions over a plain dict of arrays. Code outside models, encoders and kinds does not use NNX.

params = {'encoder': {...}, 'pooler': {...}, 'heads': {name: {...}}}, float32. A batch is a dict of int32 arrays:
ids, segments [B, T] (choice: [B, N, T]). One model serves all heads, which are looked up by name in params.

A packed row (data/packing.py) has several examples, one after the other, as segments 1 to S. Heads with one output per
example then read the hidden states at `starts` int32 [B, S] (choice: [B, N, S]), the first token of each segment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from xlmr_flax.config import CLS, E5, HEAD_STYLES, LABSE, POOLINGS
from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.attention.choose import AUTO, check_name, choose, platform_of
from xlmr_flax.encoders.compute import DOTS, REMAT, ComputeOptions
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.dropout import Key
from xlmr_flax.encoders.family import FIRST, MEAN, POOLER
from xlmr_flax.encoders.heads import Pooler, first_token
from xlmr_flax.encoders.logical_axes import UNCONSTRAINED, Constrain
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.kinds.base import Rows

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """The forward functions of one encoder shape.

    style: of the heads, one of encoders/heads.py. dtype: compute dtype, 'float32' or 'bfloat16'; parameters are
    always float32. remat: what the backward pass of a layer recomputes: 'none', 'dots' (everything except matrix
    products and attention) or 'full' (the whole layer); 'auto' = 'dots'. unroll: layers per scan step, 0 = all.
    attention: an implementation of encoders/attention/choose.py. place: adds a mesh's sharding constraints to
    activations. platform: of `platform_of`, decides attention 'auto', '' = that of this process. parallel/placement.py
    sets both.
    """

    config: EncoderConfig
    style: str = 'jiant'
    dtype: str = 'float32'
    remat: str = AUTO
    unroll: int = 1
    attention: str = AUTO
    place: Constrain = UNCONSTRAINED
    platform: str = ''

    def __post_init__(self) -> None:
        if self.style not in HEAD_STYLES:
            raise ModelError(f'head style {self.style!r} is not one of {", ".join(HEAD_STYLES)}')
        if self.dtype not in ('float32', 'bfloat16'):
            raise ModelError(f'compute dtype {self.dtype!r} is not float32 or bfloat16')
        if self.remat not in (AUTO, *REMAT):
            raise ModelError(f'encoder.remat {self.remat!r} is not one of {", ".join((AUTO, *REMAT))}')
        check_name(self.attention)

    def options(self) -> ComputeOptions:
        """Resolves the 'auto' options for the platform. Raises ModelError for an option that it does not support."""
        platform = self.platform or platform_of(jax.devices()[0])
        remat = DOTS if self.remat == AUTO else self.remat
        attention = choose(self.attention, platform, self.dtype)
        return ComputeOptions(self.dtype, attention, remat, self.unroll, self.place)

    def init(self, key: jax.Array, heads: Mapping[str, HeadSpec]) -> Params:
        """Initialises float32 parameters with the given heads: normal(0, initializer_range), biases 0."""
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
        """Initialises a pooler, for encoders without one (XLM-R has none)."""
        return nnx.to_pure_dict(nnx.state(Pooler(self.config, rngs=nnx.Rngs(params=jax.random.split(key)[1]))))

    def init_head(self, key: jax.Array, spec: HeadSpec) -> dict[str, Any]:
        """Initialises the parameters of one head."""
        head = kind_of(spec).new_head(self.config, spec.outputs, self.style, nnx.Rngs(params=key))
        return nnx.to_pure_dict(nnx.state(head))

    def shapes(self, heads: Mapping[str, HeadSpec]) -> Params:
        """Returns the ShapeDtypeStructs of `init` without allocating arrays."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0), heads))

    def encode(
        self,
        params: Params,
        ids: jax.Array,
        segments: jax.Array,
        key: Key | None = None,
        *,
        layer: int | None = None,
        all_layers: bool = False,
    ) -> jax.Array:
        """The encoder's forward pass: ids, segments [B, T] -> hidden states [B, T, D] in the compute dtype.

        key: of dropout, None = no dropout. layer: as in encoders/encoder.py. all_layers: return [L + 1, B, T, D],
        every hidden state as transformers' hidden_states.
        """
        read = (lambda hidden: hidden) if all_layers else None
        return self._encoder(params)(ids, segments, key, options=self.options(), layer=layer, read=read)

    def _encoder(self, params: Params) -> Any:
        return nnx.merge(_graph(family_of(self.config).module, self.config), params['encoder'])

    def pool(self, params: Params, hidden: jax.Array) -> jax.Array:
        """Applies the pooler to the first token: [B, T, D] -> [B, D]."""
        return nnx.merge(_graph(Pooler, self.config), params['pooler'])(hidden[:, 0])

    def logits(
        self,
        params: Params,
        name: str,
        spec: HeadSpec,
        ids: jax.Array,
        segments: jax.Array,
        key: Key | None = None,
        positions: jax.Array | None = None,
        starts: jax.Array | None = None,
    ) -> jax.Array:
        """float32 logits of one head: pair [B, C], choice [B, N], span [B, T, 2], tag [B, T, C], mlm [B, T, V].

        positions: int32 [B, M], only for mlm: compute the logits of these tokens only, [B, M, V]. starts: first tokens
        of the segments of packed rows; then pair gives [B, S, C] and choice [B, S, N]. Ignore slots without a segment.
        """
        head = nnx.merge(_head_graph(spec, self.style, self.config), params['heads'][name])
        return kind_of(spec).logits(self, params, head, Rows(ids, segments, starts, positions), key)

    def text_vectors(
        self, params: Params, hidden: jax.Array, segments: jax.Array, starts: jax.Array | None, source: str
    ) -> jax.Array:
        """Returns the vector of each text that a sequence-level head takes: hidden [B, T, D] -> [B, D], for packed rows
        [B*S, D], in hidden's dtype.

        source: FIRST, POOLER or MEAN of encoders/family.py. starts: int32 [B, S] or, for a choice head, [B, N, S];
        None = not packed.
        """
        if source == MEAN:
            means = _means(hidden.astype(jnp.float32), segments, starts)
            return means.reshape(-1, hidden.shape[-1]).astype(hidden.dtype)
        first = _first_tokens(hidden, starts)
        return self.pool(params, first[:, None]) if source == POOLER else first

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
        """Sentence embeddings float32 [B, D] from hidden_states[layer].

        pooling: 'cls' = the first token; 'mean' = the mean over all tokens including special tokens, as in XTREME;
        'e5' = the mean, and 'labse' = the pooler's output, of length 1. starts: first tokens of the segments of packed
        rows; then [B, S, D], one embedding per slot. Raises ModelError for an unknown pooling, and for 'labse' without
        a pooler.
        """
        check_pooling(params, pooling)
        hidden = self.encode(params, ids, segments, layer=layer)
        return self._pooled(params, hidden, segments, starts, pooling)

    def embed_layers(
        self,
        params: Params,
        ids: jax.Array,
        segments: jax.Array,
        starts: jax.Array | None = None,
        *,
        pooling: str = 'mean',
    ) -> jax.Array:
        """`embed` for all hidden states in one pass: float32 [B, L + 1, D], for packed rows [B, S, L + 1, D].

        A layer is pooled before the next one is computed, so that no hidden state is kept.
        """
        check_pooling(params, pooling)

        def read(hidden: jax.Array) -> jax.Array:
            return self._pooled(params, hidden, segments, starts, pooling)

        vectors = self._encoder(params)(ids, segments, None, options=self.options(), read=read)
        return jnp.moveaxis(vectors, 0, -2)

    def _pooled(
        self, params: Params, hidden: jax.Array, segments: jax.Array, starts: jax.Array | None, pooling: str
    ) -> jax.Array:
        """The embeddings of `embed` from one hidden state [B, T, D]."""
        hidden = hidden.astype(jnp.float32)
        if pooling in (CLS, LABSE):
            found = self.text_vectors(params, hidden, segments, starts, POOLER if pooling == LABSE else FIRST)
            found = found if starts is None else found.reshape(*starts.shape, -1)
        else:
            found = _means(hidden, segments, starts)
        if pooling not in (E5, LABSE):
            return found
        return unit_vectors(found)


def unit_vectors(vectors: jax.Array) -> jax.Array:
    """Scales vectors [..., D] to length 1; a zero vector stays zero."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def check_pooling(params: Params, pooling: str, encoder: str = 'the encoder') -> None:
    """Raises ModelError for an unknown pooling of sentence vectors, and for 'labse' if `params` have no pooler.

    encoder: its name, for the message.
    """
    if pooling not in POOLINGS:
        raise ModelError(f'pooling {pooling!r} is not one of {", ".join(POOLINGS)}')
    if pooling == LABSE and 'pooler' not in params:
        raise ModelError(f'{encoder}: pooling {LABSE!r} reads the pooler, and this encoder has none')


def _first_tokens(hidden: jax.Array, starts: jax.Array | None) -> jax.Array:
    """The hidden states of each row's first token, [B, T, D] -> [B, D]; for packed rows of each slot's, [B*S, D]."""
    if starts is None:
        return first_token(hidden)
    starts = starts.reshape(-1, starts.shape[-1])  # a choice head has [B, N, S]
    return jnp.take_along_axis(hidden, starts[..., None], axis=1).reshape(-1, hidden.shape[-1])


def _means(hidden: jax.Array, segments: jax.Array, starts: jax.Array | None) -> jax.Array:
    """Means over the tokens of each row [B, D] or, with `starts` [..., S], of each segment [B, S, D], float32."""
    if starts is None:
        mask = (segments > 0)[..., None].astype(jnp.float32)
        return (hidden * mask).sum(1) / jnp.maximum(mask.sum(1), 1.0)
    numbers = jnp.arange(1, starts.shape[-1] + 1, dtype=segments.dtype)
    mask = (segments[:, None] == numbers[:, None]).astype(jnp.float32)  # [B, S, T]
    # HIGHEST: by default a device may round the operands of a matrix product, but this is a plain sum.
    sums = jnp.einsum('bst,btd->bsd', mask, hidden, precision=jax.lax.Precision.HIGHEST)
    return sums / jnp.maximum(mask.sum(-1, keepdims=True), 1.0)


def head_key(key: jax.Array, name: str) -> jax.Array:
    """Derives the key for a head's initial values from its name, so that it does not depend on the other heads."""
    number = int.from_bytes(name.encode(), 'big') % (2**31 - 1)
    return jax.random.fold_in(jax.random.fold_in(key, 3), number)


def _graph(module: type, config: EncoderConfig) -> Any:
    return nnx.split(nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0))))[0]


def _head_graph(spec: HeadSpec, style: str, config: EncoderConfig) -> Any:
    return nnx.split(nnx.eval_shape(lambda: kind_of(spec).new_head(config, spec.outputs, style, nnx.Rngs(0))))[0]
