"""The DeBERTa-v2 family (He et al. 2021): mDeBERTa-v3 and DeBERTa-v3.

Follows transformers' DebertaV2Model and its classes with heads; tests/models/test_deberta_v2.py compares with them. It
differs from XLM-R in these points: attention is disentangled (encoders/attention/disentangled.py), with one table of
relative embeddings for all layers, which has a layer norm and goes through each layer's projections of queries and
keys; the embeddings of words have no positions and types; classification and choice read dense -> gelu of the first
token. There is no limit to positions; `max_length` is what config.json says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from xlmr_flax.encoders.attention.disentangled import disentangled_attention
from xlmr_flax.encoders.compute import ComputeOptions
from xlmr_flax.encoders.config import EncoderConfig, FieldError, ModelError
from xlmr_flax.encoders.dropout import Key, another_seed, dropout, dropped, of_step
from xlmr_flax.encoders.encoder import Attention, Encoder, Layer, Seeds
from xlmr_flax.encoders.family import FIRST, AxisRule, HeadForm, field_names
from xlmr_flax.encoders.heads import MlmHead
from xlmr_flax.encoders.kernels.gelu import gelu
from xlmr_flax.encoders.layers import Dense, LayerNorm
from xlmr_flax.encoders.logical_axes import EMBED, HEADS, ROWS, Constrain
from xlmr_flax.encoders.xlm_roberta import WORDS_NAME, Names, XlmRoberta, norm_names
from xlmr_flax.util.errors import quote
from xlmr_flax.util.tokenizer_file import SpecialTokens

_RELATIVE = 'encoder.rel_embeddings.weight'
# config.json's field -> (its only implemented value, transformers' default).
_ONLY: dict[str, tuple[Any, Any]] = {
    'relative_attention': (True, False),
    'share_att_key': (True, False),
    'position_biased_input': (False, True),
    'norm_rel_ebd': ('layer_norm', 'none'),
    'type_vocab_size': (0, 0),
    'conv_kernel_size': (0, 0),
    'pooler_hidden_act': ('gelu', 'gelu'),
    'pooler_dropout': (0, 0),
    'tie_word_embeddings': (True, True),
}


@dataclasses.dataclass(frozen=True)
class DebertaV2Config(EncoderConfig):
    """The shape of a DeBERTa-v2. max_positions: tokens of the longest row.

    buckets: buckets of distances to one side. furthest: number of distances that they cover. head_dropout: rate of the
    heads of classification and choice, None = `dropout`. legacy: whether the masked-LM head has the names of
    transformers' first class.
    """

    family: ClassVar[str] = 'deberta-v2'

    vocab_size: int = 251_000
    max_positions: int = 512
    layer_norm_eps: float = 1e-7
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    buckets: int = 256
    furthest: int = 512
    head_dropout: float | None = None
    legacy: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, lowest in (('buckets', 4), ('furthest', self.buckets // 2 + 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise FieldError(name, f'is {quote(value)}; an integer from {lowest} is expected')
        rate = self.head_dropout
        is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if rate is not None and not (is_number and 0 <= rate <= 1):
            raise FieldError('head_dropout', f'is {quote(rate)}; a number from 0 to 1 is expected')
        if not isinstance(self.legacy, bool):
            raise FieldError('legacy', f'is {quote(self.legacy)}; true or false is expected')

    @property
    def first_position(self) -> int:
        return 0


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all layers share: segments int32 [B, T] and the normed relative embeddings [2 S, D]."""

    segments: jax.Array
    relative: jax.Array


jax.tree_util.register_dataclass(Shared)


class DisentangledAttention(Attention):
    """Multi-head disentangled self-attention within segments, with output projection. Parameters as XLM-R's."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        super().__init__(cfg, rngs=rngs)
        assert isinstance(cfg, DebertaV2Config)
        self.position_rate, self.furthest = cfg.dropout, cfg.furthest

    def __call__(self, x: jax.Array, shared: Shared, seed: jax.Array | None, options: ComputeOptions) -> jax.Array:
        """x [B, T, D] -> [B, T, D] without out_bias, which `add_and_norm` adds. shared: from `DebertaV2Encoder.shared`.

        seed: int32 [2, 2], of attention weights and of relative embeddings; None = no dropout.
        """
        (b, t, d), (_, _, h, k), place = x.shape, self.qkv.shape, options.place
        kernel = place(self.qkv[...].astype(x.dtype), None, None, HEADS, None)
        bias = self.qkv_bias[...].astype(x.dtype)
        # Two-dimensional products, as in `self_attention`.
        qkv = checkpoint_name(x.reshape(b * t, d) @ kernel.reshape(d, -1), 'qkv').reshape(b, t, 3, h, k) + bias
        qkv = place(qkv, ROWS, None, None, HEADS, None).transpose(2, 0, 1, 3, 4)
        relative = dropped(shared.relative, None if seed is None else seed[1:], self.position_rate)  # [2 S, D]
        position = (relative @ kernel[:, :2].reshape(d, -1)).reshape(-1, 2, h, k) + bias[:2]
        position = place(position, None, None, HEADS, None).swapaxes(0, 1)
        mixed = disentangled_attention(qkv, position, shared.segments, self.furthest, seed, self.rate, place)
        mixed = checkpoint_name(mixed, 'mixed').reshape(b * t, d)
        return (mixed @ place(self.out[...].astype(x.dtype), HEADS, None, None).reshape(d, d)).reshape(b, t, d)


class DebertaV2Layer(Layer):
    """XLM-R's block with disentangled attention."""

    attention_type = DisentangledAttention


class WordEmbeddings(nnx.Module):
    """Embeddings: layer norm of the word embedding."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        shape = (cfg.vocab_size, cfg.hidden_size)
        self.word = nnx.Param(jax.random.normal(rngs.params(), shape) * cfg.initializer_range)
        self.norm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def __call__(
        self, ids: jax.Array, positions: jax.Array, types: jax.Array | None, dtype: jnp.dtype, place: Constrain
    ) -> jax.Array:
        del positions, types
        return place(self.norm(place.lookup(self.word[...], ids)).astype(dtype), ROWS, None, None)


class RelativeEmbeddings(nnx.Module):
    """The table of relative embeddings [2 S, D] with its layer norm."""

    def __init__(self, cfg: DebertaV2Config, *, rngs: nnx.Rngs):
        shape = (2 * cfg.buckets, cfg.hidden_size)
        self.table = nnx.Param(jax.random.normal(rngs.params(), shape) * cfg.initializer_range)
        self.norm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def __call__(self, options: ComputeOptions) -> jax.Array:
        return self.norm(options.place(self.table[...], None, None)).astype(options.dtype)


class DebertaV2Encoder(Encoder):
    """The encoder: embeddings, relative embeddings, L stacked layers."""

    embeddings_type = WordEmbeddings
    layer_type = DebertaV2Layer

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        super().__init__(cfg, rngs=rngs)
        assert isinstance(cfg, DebertaV2Config)
        self.relative = RelativeEmbeddings(cfg, rngs=rngs)

    def shared(self, segments: jax.Array, options: ComputeOptions) -> Shared:
        return Shared(segments, self.relative(options))

    def seeds(self, key: Key, rows: int, tokens: int) -> Seeds:
        weights, *sums = super().seeds(key, rows, tokens)
        # All rows of a step share the relative embeddings, and so their mask.
        relative = another_seed(super().seeds(of_step(key), rows, tokens)[0])
        return jnp.concatenate([weights, relative], axis=1), sums[0], sums[1]


class Head(nnx.Module):
    """The head of a text: dense, gelu, dropout, linear. [..., D] -> [..., C] float32."""

    def __init__(self, cfg: DebertaV2Config, outputs: int, rngs: nnx.Rngs):
        self.dense = Dense(cfg.hidden_size, cfg.hidden_size, cfg.initializer_range, rngs=rngs)
        self.out = Dense(cfg.hidden_size, outputs, cfg.initializer_range, rngs=rngs)
        self.rate = cfg.dropout if cfg.head_dropout is None else cfg.head_dropout

    def __call__(self, x: jax.Array, key: Key | None) -> jax.Array:
        return self.out(dropout(gelu(self.dense(x)), key, 10, self.rate)).astype(jnp.float32)


class DebertaV2(XlmRoberta):
    """The DeBERTa-v2 family."""

    model_type = 'deberta-v2'
    prefixes = ('', 'deberta.')
    class_name = 'DebertaV2'
    has_pooler = False
    model_inputs = ('input_ids', 'attention_mask')
    names: ClassVar[Names] = {
        ('embeddings', 'word'): WORDS_NAME,
        **norm_names(('embeddings', 'norm'), 'embeddings.LayerNorm'),
        ('relative', 'table'): _RELATIVE,
        **norm_names(('relative', 'norm'), 'encoder.LayerNorm'),
    }
    projections = ('query_proj', 'key_proj', 'value_proj')
    sizes: ClassVar[Mapping[str, EncoderConfig]] = {
        'tiny': DebertaV2Config(
            vocab_size=2048, hidden_size=64, num_layers=2, num_heads=4, ffn_size=128, max_positions=256, buckets=16,
            furthest=64, pad_id=1, bos_id=0,
        ),
        'base': DebertaV2Config(hidden_size=768, num_layers=12, num_heads=12, ffn_size=3072),
    }  # fmt: skip
    config_class = DebertaV2Config
    module = DebertaV2Encoder
    axes: ClassVar[tuple[AxisRule, ...]] = (
        *(rule for rule in XlmRoberta.axes if 'position' not in rule[0]),
        (r'relative/table$', (None, EMBED)),  # [2 S, D]
    )
    default_eps = 1e-7
    has_own_special_ids = True

    def read_config(self, raw: Mapping[str, Any], where: str) -> EncoderConfig:
        for name, (only, default) in _ONLY.items():
            if raw.get(name, default) != only:
                found = quote(raw.get(name, default))
                raise ModelError(f'{where}: {name} is {found}; only {only!r} is implemented')
        kinds = raw.get('pos_att_type')
        kinds = kinds.split('|') if isinstance(kinds, str) else kinds
        if not isinstance(kinds, list) or sorted(map(str, kinds)) != ['c2p', 'p2c']:
            raise ModelError(f"{where}: pos_att_type is {quote(kinds)}; 'c2p' and 'p2c' are expected")
        shape = super().read_config(raw, where)
        furthest = raw.get('max_relative_positions', -1)
        distances = 'max_position_embeddings' if furthest == -1 else 'max_relative_positions'
        names = {'pad_id': 'pad_token_id', 'buckets': 'position_buckets', 'head_dropout': 'cls_dropout'}
        with field_names(where, {**names, 'furthest': distances}):
            return DebertaV2Config(
                **dataclasses.asdict(shape) | {'pad_id': raw.get('pad_token_id', 0), 'bos_id': DebertaV2Config.bos_id},
                buckets=raw.get('position_buckets', -1),
                furthest=shape.max_positions if furthest == -1 else furthest,
                head_dropout=raw.get('cls_dropout'),
                legacy=raw.get('legacy', True),
            )

    def with_tokenizer(self, config: EncoderConfig, read: Callable[[], SpecialTokens]) -> EncoderConfig:
        tokens = read()
        return dataclasses.replace(config, pad_id=tokens.pad, bos_id=tokens.bos, eos_id=tokens.eos)

    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        assert isinstance(config, DebertaV2Config)
        raw = super().write_config(config)
        del raw['position_embedding_type']
        return raw | {
            **{name: only for name, (only, _) in _ONLY.items()},
            'pos_att_type': ['p2c', 'c2p'],
            'position_buckets': config.buckets,
            'max_relative_positions': config.furthest,
            'cls_dropout': config.head_dropout,
            'legacy': config.legacy,
        }

    def tensor_shapes(self, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
        assert isinstance(config, DebertaV2Config)
        return super().tensor_shapes(config) | {_RELATIVE: (2 * config.buckets, config.hidden_size)}

    def head_form(self, architecture: str, config: EncoderConfig) -> HeadForm | None:
        assert isinstance(config, DebertaV2Config)
        out: Names = {('out', 'kernel'): 'classifier.weight', ('out', 'bias'): 'classifier.bias'}
        dense: Names = {('dense', 'kernel'): 'pooler.dense.weight', ('dense', 'bias'): 'pooler.dense.bias'}
        if architecture == 'ForSequenceClassification':
            return HeadForm(lambda outputs, rngs: Head(config, outputs, rngs), {**dense, **out}, FIRST)
        if architecture == 'ForMultipleChoice':
            return HeadForm(lambda outputs, rngs: Head(config, 1, rngs), {**dense, **out}, FIRST)
        if architecture == 'ForMaskedLM':
            legacy, later = 'cls.predictions', 'lm_predictions.lm_head'
            inside, bias = (f'{legacy}.transform', legacy) if config.legacy else (later, later)
            names: Names = {
                ('dense', 'kernel'): f'{inside}.dense.weight',
                ('dense', 'bias'): f'{inside}.dense.bias',
                **norm_names(('norm',), f'{inside}.LayerNorm'),
                ('bias',): f'{bias}.bias',
            }
            return HeadForm(lambda outputs, rngs: MlmHead(config, rngs=rngs), names, decoder=f'{bias}.decoder')
        return None

    def attention_flops(self, config: EncoderConfig, length: float) -> float:
        """With the terms of position: a query and a key each have products with two diagonals for each key."""
        return 3 * super().attention_flops(config, length)
