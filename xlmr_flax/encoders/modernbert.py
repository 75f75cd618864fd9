"""The ModernBERT family (Warner et al. 2024): ModernBERT and mmBERT.

Follows transformers' ModernBertModel and its classes with heads; tests/models/test_modernbert.py compares with them.
The flax module is in modernbert_encoder.py. There is no pooler: heads read the first token or the mean (`pooling`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xlmr_flax.encoders.config import EncoderConfig, FieldError, ModelError
from xlmr_flax.encoders.dropout import Key, dropout
from xlmr_flax.encoders.family import FIRST, MEAN, AxisRule, Family, GetTensor, HeadForm, Params, field, field_names
from xlmr_flax.encoders.heads import MlmHead
from xlmr_flax.encoders.kernels.gelu import gelu
from xlmr_flax.encoders.layers import Dense, Linear, ScaleNorm
from xlmr_flax.encoders.logical_axes import EMBED, FFN, HEADS, WORDS
from xlmr_flax.encoders.modernbert_encoder import ModernBertConfig, ModernBertEncoder, output_range
from xlmr_flax.encoders.tensors import at, put
from xlmr_flax.util.errors import quote

_SHAPE = {
    'vocab_size': 'vocab_size',
    'hidden_size': 'hidden_size',
    'num_layers': 'num_hidden_layers',
    'num_heads': 'num_attention_heads',
    'ffn_size': 'intermediate_size',
}
# config.json's field -> its only implemented value, transformers' default.
_ONLY = {
    'hidden_activation': 'gelu',
    'classifier_activation': 'gelu',
    'norm_bias': False,
    'attention_bias': False,
    'mlp_bias': False,
    'decoder_bias': True,
    'classifier_bias': False,
    'tie_word_embeddings': True,
}
# Our field -> config.json's, with transformers' default.
_OPTIONAL: dict[str, tuple[str, Any]] = {
    'max_positions': ('max_position_embeddings', 8192),
    'layer_norm_eps': ('norm_eps', 1e-5),
    'initializer_range': ('initializer_range', 0.02),
    'window': ('local_attention', 128),
    'pooling': ('classifier_pooling', 'cls'),
    'dropout': ('classifier_dropout', 0.0),
    'attention_dropout': ('attention_dropout', 0.0),
    'embedding_dropout': ('embedding_dropout', 0.0),
    'ffn_dropout': ('mlp_dropout', 0.0),
    'pad_id': ('pad_token_id', 50283),
    'bos_id': ('cls_token_id', 50281),
    'eos_id': ('sep_token_id', 50282),
}
_FULL, _LOCAL = 'full_attention', 'sliding_attention'
# Our path in a layer -> transformers' name.
_LAYER = {
    ('attention', 'qkv'): 'attn.Wqkv.weight',
    ('attention', 'out'): 'attn.Wo.weight',
    ('attention_norm', 'scale'): 'attn_norm.weight',
    ('ffn_norm', 'scale'): 'mlp_norm.weight',
    ('gated_in',): 'mlp.Wi.weight',
    ('ffn_out', 'kernel'): 'mlp.Wo.weight',
}
_REST = {
    ('embeddings', 'word'): 'embeddings.tok_embeddings.weight',
    ('embeddings', 'norm', 'scale'): 'embeddings.norm.weight',
    ('final_norm', 'scale'): 'final_norm.weight',
}
_OUTPUTS = {'ForQuestionAnswering': 2, 'ForMultipleChoice': 1}
# mmBERT base; its small model has half of the width.
_MMBERT = ModernBertConfig(
    vocab_size=256_000, hidden_size=768, num_layers=22, num_heads=12, ffn_size=1152, pad_id=0, bos_id=2, eos_id=1
)


class Head(nnx.Module):
    """ModernBERT's heads: dense without bias, gelu, norm, dropout, linear. [..., D] -> [..., C] float32."""

    def __init__(self, cfg: EncoderConfig, outputs: int, rngs: nnx.Rngs):
        d = cfg.hidden_size
        self.dense = Linear(jax.random.normal(rngs.params(), (d, d)) * output_range(cfg))
        self.norm = ScaleNorm(d, cfg.layer_norm_eps)
        self.out = Dense(d, outputs, d**-0.5, rngs=rngs)
        self.rate = cfg.dropout

    def __call__(self, x: jax.Array, key: Key | None) -> jax.Array:
        x = self.norm(gelu(self.dense(x)))
        return self.out(dropout(x, key, 10, self.rate)).astype(jnp.float32)


class MaskedHead(MlmHead):
    """ModernBERT's masked-LM head: XLM-R's, with dense layer and norm without bias."""

    def __init__(self, cfg: EncoderConfig, rngs: nnx.Rngs):
        d = cfg.hidden_size
        self.dense = Linear(jax.random.normal(rngs.params(), (d, d)) * output_range(cfg))
        self.norm = ScaleNorm(d, cfg.layer_norm_eps)
        self.bias = nnx.Param(jnp.zeros(cfg.vocab_size))


class ModernBert(Family):
    """The ModernBERT family."""

    model_type = 'modernbert'
    prefixes = ('', 'model.')
    class_name = 'ModernBert'
    has_pooler = False
    model_inputs = ('input_ids', 'attention_mask')
    word_table = _REST['embeddings', 'word']
    sizes: ClassVar[Mapping[str, EncoderConfig]] = {
        'tiny': ModernBertConfig(
            vocab_size=2048, hidden_size=64, num_layers=5, num_heads=4, ffn_size=96, max_positions=256, window=16
        ),
        'small': dataclasses.replace(_MMBERT, hidden_size=384, num_heads=6),
        'base': _MMBERT,
    }
    config_class = ModernBertConfig
    module = ModernBertEncoder
    axes: ClassVar[tuple[AxisRule, ...]] = (
        (r'embeddings/word$', (WORDS, EMBED)),
        (r'first/attention/qkv$', (EMBED, None, HEADS, None)),  # [D, 3, H, K]
        (r'first/attention/out$', (HEADS, None, EMBED)),  # [H, K, D]
        (r'first/gated_in$', (EMBED, None, FFN)),  # [D, 2, F]
        (r'first/ffn_out/kernel$', (FFN, EMBED)),  # [F, D]
        (r'layers/attention/qkv$', (None, EMBED, None, HEADS, None)),  # [L - 1, D, 3, H, K]
        (r'layers/attention/out$', (None, HEADS, None, EMBED)),
        (r'layers/gated_in$', (None, EMBED, None, FFN)),
        (r'layers/ffn_out/kernel$', (None, FFN, EMBED)),
    )

    def read_config(self, raw: Mapping[str, Any], where: str) -> EncoderConfig:
        for name, only in _ONLY.items():
            if raw.get(name, only) != only:
                raise ModelError(f'{where}: {name} is {quote(raw[name])}; only {only!r} is implemented')
        values = {ours: field(raw, theirs, where) for ours, theirs in _SHAPE.items()}
        values |= {ours: raw.get(theirs, default) for ours, (theirs, default) in _OPTIONAL.items()}
        if values['pooling'] not in ('cls', 'mean'):
            raise ModelError(f"{where}: classifier_pooling is {quote(values['pooling'])}; 'cls' or 'mean' is expected")
        with field_names(where, {**_SHAPE, **{ours: theirs for ours, (theirs, _) in _OPTIONAL.items()}}):
            config = ModernBertConfig(**values)
            if config.num_layers < 2:
                raise FieldError('num_layers', f'is {config.num_layers}; 2 or more are expected')
            return dataclasses.replace(config, global_every=_period(raw, config.num_layers), **_thetas(raw))

    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        assert isinstance(config, ModernBertConfig)
        return {
            'model_type': self.model_type,
            **{theirs: getattr(config, ours) for ours, theirs in _SHAPE.items()},
            **{theirs: getattr(config, ours) for ours, (theirs, _) in _OPTIONAL.items()},
            **_ONLY,
            'bos_token_id': config.bos_id,
            'eos_token_id': config.eos_id,
            # The names of transformers before 5, which later versions read, too.
            'global_attn_every_n_layers': config.global_every,
            'global_rope_theta': config.global_theta,
            'local_rope_theta': config.local_theta,
        }

    def import_encoder(self, get: GetTensor, config: EncoderConfig) -> Params:
        tree: dict[str, Any] = {}
        for path, name in _REST.items():
            put(tree, path, np.asarray(get(name), np.float32))
        for path, name in _LAYER.items():
            shape = _shapes(config)[path]
            if path != ('attention_norm', 'scale'):
                put(tree, ('first', *path), _ours(get(f'layers.0.{name}'), shape))
            stacked = np.empty((config.num_layers - 1, *shape), np.float32)
            for i in range(1, config.num_layers):
                stacked[i - 1] = _ours(get(f'layers.{i}.{name}'), shape)
            put(tree, ('layers', *path), stacked)
        return tree

    def export_encoder(self, encoder: Params, config: EncoderConfig) -> Iterator[tuple[str, np.ndarray]]:
        for path, name in _REST.items():
            yield name, at(encoder, path)
        for i in range(config.num_layers):
            for path, name in _LAYER.items():
                if i == 0 and path == ('attention_norm', 'scale'):
                    continue
                value = at(encoder, ('first', *path)) if i == 0 else at(encoder, ('layers', *path))[i - 1]
                yield f'layers.{i}.{name}', _theirs(value, path)

    def tensor_shapes(self, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
        d, f = config.hidden_size, config.ffn_size
        shapes = dict.fromkeys(_REST.values(), (d,)) | {self.word_table: (config.vocab_size, d)}
        layer = dict.fromkeys(_LAYER.values(), (d,)) | {
            'attn.Wqkv.weight': (3 * d, d),
            'attn.Wo.weight': (d, d),
            'mlp.Wi.weight': (2 * f, d),
            'mlp.Wo.weight': (d, f),
        }
        for i in range(config.num_layers):
            own = {name: shape for name, shape in layer.items() if i or name != 'attn_norm.weight'}
            shapes |= {f'layers.{i}.{name}': shape for name, shape in own.items()}
        return shapes

    def head_form(self, architecture: str, config: EncoderConfig) -> HeadForm | None:
        assert isinstance(config, ModernBertConfig)
        dense = {('dense', 'kernel'): 'head.dense.weight', ('norm', 'scale'): 'head.norm.weight'}
        if architecture == 'ForMaskedLM':
            names = dense | {('bias',): 'decoder.bias'}
            return HeadForm(lambda outputs, rngs: MaskedHead(config, rngs), names, decoder='decoder')
        names = dense | {('out', 'kernel'): 'classifier.weight', ('out', 'bias'): 'classifier.bias'}
        count = _OUTPUTS.get(architecture, 0)
        reads = MEAN if config.pooling == 'mean' else FIRST
        return HeadForm(lambda outputs, rngs: Head(config, count or outputs, rngs), names, reads)

    def layer_weights(self, config: EncoderConfig) -> int:
        return config.num_layers * (4 * config.hidden_size**2 + 3 * config.hidden_size * config.ffn_size)

    def attention_flops(self, config: EncoderConfig, length: float) -> float:
        assert isinstance(config, ModernBertConfig)
        whole = -(-config.num_layers // config.global_every)
        # A block of queries sees three blocks of half a window each (attention/window.py).
        near = length if length <= config.window // 2 + 1 else 3 * (config.window // 2)
        return 4 * config.hidden_size * (whole * length + (config.num_layers - whole) * near)


def _period(raw: Mapping[str, Any], layers: int) -> int:
    """Every how many layers one is global. Raises ModelError for other layer types than these give."""
    types = raw.get('layer_types')
    if types is None:
        period = raw.get('global_attn_every_n_layers', 3)
        if not isinstance(period, int) or isinstance(period, bool) or period < 1:
            raise ModelError(f'global_attn_every_n_layers is {quote(period)}; a number from 1 is expected')
        return period
    whole = [i for i, name in enumerate(types) if name == _FULL] if isinstance(types, list) else []
    period = whole[1] if len(whole) > 1 else max(1, layers)
    if types != [_LOCAL if i % period else _FULL for i in range(layers)]:
        raise ModelError(f'layer_types is {quote(types)}; {_FULL} in the first of every n layers is expected')
    return period


def _thetas(raw: Mapping[str, Any]) -> dict[str, float]:
    """The bases of the rotary positions, from the fields of transformers 5 or of earlier versions."""
    given = raw.get('rope_parameters') or {}
    if not isinstance(given, dict) or not all(isinstance(given.get(kind) or {}, dict) for kind in (_FULL, _LOCAL)):
        raise ModelError(f'rope_parameters is {quote(given)}; an object with {_FULL} and {_LOCAL} is expected')
    found = {}
    for ours, kind, old, default in (
        ('global_theta', _FULL, 'global_rope_theta', 160_000.0),
        ('local_theta', _LOCAL, 'local_rope_theta', 10_000.0),
    ):
        own = given.get(kind) or {}
        if own.get('rope_type', 'default') != 'default' or raw.get('rope_scaling'):
            raise ModelError(f'rope_parameters of {kind} are {quote(own)}; only the rope_type default is implemented')
        value = own.get('rope_theta', raw.get(old, default))
        if value is None and ours == 'local_theta':
            value = found['global_theta']  # as in transformers before 5
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise ModelError(f'{old} is {quote(value)}; a positive number is expected')
        found[ours] = float(value)
    return found


def _shapes(config: EncoderConfig) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shapes of a layer's parameters, by our path."""
    d, h, k, f = config.hidden_size, config.num_heads, config.head_size, config.ffn_size
    return {
        ('attention', 'qkv'): (d, 3, h, k),
        ('attention', 'out'): (h, k, d),
        ('attention_norm', 'scale'): (d,),
        ('ffn_norm', 'scale'): (d,),
        ('gated_in',): (d, 2, f),
        ('ffn_out', 'kernel'): (f, d),
    }


def _ours(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(value, np.float32).T.reshape(shape)


def _theirs(value: np.ndarray, path: tuple[str, ...]) -> np.ndarray:
    """The tensor in torch's layout [out, in]; the output projection's inputs are its first two dimensions."""
    if value.ndim == 1:
        return value
    inputs = value.shape[0] * value.shape[1] if path == ('attention', 'out') else value.shape[0]
    return value.reshape(inputs, -1).T
