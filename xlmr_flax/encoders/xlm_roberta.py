"""The XLM-R family (Conneau et al. 2020), which also reads RoBERTa checkpoints with XLM-R's special ids.

Follows transformers' XLMRobertaModel; tests/models/test_parity.py compares with it layer by layer. The flax module is
`Encoder` of encoders/encoder.py. Layer norm follows each block. Positions are learned and start at pad_id + 1, so that
the position table has two more rows before the first position. There is one token type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from xlmr_flax.encoders.config import SIZES, EncoderConfig, ModelError
from xlmr_flax.encoders.encoder import Encoder
from xlmr_flax.encoders.family import AxisRule, Family, GetTensor, Params, field, field_names
from xlmr_flax.encoders.logical_axes import EMBED, FFN, HEADS, WORDS
from xlmr_flax.encoders.tensors import at, matrix, put
from xlmr_flax.util.errors import quote

POSITIONS, TOKEN_TYPES = 'embeddings.position_embeddings.weight', 'embeddings.token_type_embeddings.weight'
Names = Mapping[tuple[str, ...], str]  # our path -> transformers' name
WORDS_NAME = 'embeddings.word_embeddings.weight'
EMBEDDINGS: Names = {
    ('embeddings', 'word'): WORDS_NAME,
    ('embeddings', 'position'): POSITIONS,
    ('embeddings', 'token_type'): TOKEN_TYPES,
}
_FFN: Names = {
    ('ffn_in', 'kernel'): 'intermediate.dense.weight',
    ('ffn_in', 'bias'): 'intermediate.dense.bias',
    ('ffn_out', 'kernel'): 'output.dense.weight',
    ('ffn_out', 'bias'): 'output.dense.bias',
}


def norm_names(path: tuple[str, ...], name: str) -> Names:
    """The names of a layer norm's scale and bias. path, name: of the norm, ours and transformers'."""
    return {(*path, 'scale'): f'{name}.weight', (*path, 'bias'): f'{name}.bias'}


def names_in_layer(attention_norm: str, ffn_norm: str) -> Names:
    """The names in a layer, except those of attention's projections. attention_norm, ffn_norm: the norms' names."""
    return {**_FFN, **norm_names(('attention_norm',), attention_norm), **norm_names(('ffn_norm',), ffn_norm)}


# Our field -> config.json's.
_REQUIRED = {
    'vocab_size': 'vocab_size',
    'hidden_size': 'hidden_size',
    'num_layers': 'num_hidden_layers',
    'num_heads': 'num_attention_heads',
    'ffn_size': 'intermediate_size',
    'max_positions': 'max_position_embeddings',
}
_RATES = {'dropout': 'hidden_dropout_prob', 'attention_dropout': 'attention_probs_dropout_prob'}


class XlmRoberta(Family):
    """The XLM-R family; base class of families whose parameters differ in names, norms or embeddings alone.

    names: of the parameters outside of layers. layer_names: of those in a layer. projections: of the queries, keys and
    values in a layer.
    """

    names: ClassVar[Names] = {**EMBEDDINGS, **norm_names(('embeddings', 'norm'), 'embeddings.LayerNorm')}
    layer_names: ClassVar[Names] = names_in_layer('attention.output.LayerNorm', 'output.LayerNorm')
    projections: ClassVar[tuple[str, str, str]] = ('query', 'key', 'value')

    model_type = 'xlm-roberta'
    prefixes = ('', 'roberta.', 'xlm_roberta.')
    class_name = 'XLMRoberta'
    word_table = WORDS_NAME
    sizes: ClassVar[Mapping[str, EncoderConfig]] = SIZES
    config_class = EncoderConfig
    module = Encoder
    axes: ClassVar[tuple[AxisRule, ...]] = (
        (r'embeddings/word$', (WORDS, EMBED)),
        (r'embeddings/(position|token_type)$', (None, EMBED)),
        (r'layers/attention/qkv$', (None, EMBED, None, HEADS, None)),  # [L, D, 3, H, K]
        (r'layers/attention/qkv_bias$', (None, None, HEADS, None)),
        (r'layers/attention/out$', (None, HEADS, None, EMBED)),  # [L, H, K, D]
        (r'layers/attention/out_bias$', ()),
        (r'layers/ffn_in/kernel$', (None, EMBED, FFN)),  # [L, D, F]
        (r'layers/ffn_in/bias$', (None, FFN)),
        (r'layers/ffn_out/kernel$', (None, FFN, EMBED)),
        (r'layers/ffn_out/bias$', ()),
    )
    default_eps: ClassVar[float] = 1e-5
    # Whether special ids may differ from XLM-R's. Only if the positions do not start after the padding id.
    has_own_special_ids: ClassVar[bool] = False

    def read_config(self, raw: Mapping[str, Any], where: str) -> EncoderConfig:
        if raw.get('hidden_act', 'gelu') != 'gelu':
            raise ModelError(f'{where}: hidden_act is {quote(raw["hidden_act"])}; only gelu (erf) is implemented')
        if raw.get('position_embedding_type', 'absolute') != 'absolute':
            value = quote(raw['position_embedding_type'])
            raise ModelError(f'{where}: position_embedding_type {value} is not absolute')
        if not self.has_own_special_ids:
            _check_special_ids(raw, where)
        values = {ours: field(raw, theirs, where) for ours, theirs in _REQUIRED.items()}
        values |= {ours: raw.get(theirs, 0.1) for ours, theirs in _RATES.items()}
        with field_names(where, {**_REQUIRED, **_RATES}):
            return EncoderConfig(**values, layer_norm_eps=raw.get('layer_norm_eps', self.default_eps))

    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        return {
            'model_type': self.model_type,
            **{theirs: getattr(config, ours) for ours, theirs in _REQUIRED.items()},
            'type_vocab_size': 1,
            'layer_norm_eps': config.layer_norm_eps,
            'hidden_act': 'gelu',
            **{theirs: getattr(config, ours) for ours, theirs in _RATES.items()},
            'initializer_range': config.initializer_range,
            'pad_token_id': config.pad_id,
            'bos_token_id': config.bos_id,
            'eos_token_id': config.eos_id,
            'position_embedding_type': 'absolute',
        }

    def import_encoder(self, get: GetTensor, config: EncoderConfig) -> Params:
        tree: dict[str, Any] = {}
        for path, name in self.names.items():
            value = np.asarray(get(name), np.float32)
            put(tree, path, value[:1] if name == TOKEN_TYPES else value)
        d, h, k, n = config.hidden_size, config.num_heads, config.head_size, config.num_layers

        def stack(read: Callable[[str], np.ndarray]) -> np.ndarray:
            first = read('encoder.layer.0.')
            out = np.empty((n, *first.shape), np.float32)
            out[0] = first
            for i in range(1, n):
                out[i] = read(f'encoder.layer.{i}.')
            return out

        def qkv(kind: str, shape: tuple[int, ...]) -> Callable[[str], np.ndarray]:
            def read(prefix: str) -> np.ndarray:
                parts = [matrix('', get(f'{prefix}attention.self.{x}.{kind}')) for x in self.projections]
                return np.stack(parts, axis=-2).reshape(shape)  # [D, 3, D] -> [D, 3, H, K]; bias [3, D] -> [3, H, K]

            return read

        put(tree, ('layers', 'attention', 'qkv'), stack(qkv('weight', (d, 3, h, k))))
        put(tree, ('layers', 'attention', 'qkv_bias'), stack(qkv('bias', (3, h, k))))
        out = 'attention.output.dense'
        put(tree, ('layers', 'attention', 'out'), stack(lambda p: get(f'{p}{out}.weight').T.reshape(h, k, d)))
        put(tree, ('layers', 'attention', 'out_bias'), stack(lambda p: get(f'{p}{out}.bias')))
        for path, name in self.layer_names.items():
            put(tree, ('layers', *path), stack(lambda p, name=name: matrix(name, get(p + name))))
        return tree

    def export_encoder(self, encoder: Params, config: EncoderConfig) -> Iterator[tuple[str, np.ndarray]]:
        for path, name in self.names.items():
            yield name, at(encoder, path)
        d = config.hidden_size
        layers = encoder['layers']
        for i in range(config.num_layers):
            prefix = f'encoder.layer.{i}.'
            kernel = np.asarray(layers['attention']['qkv'][i]).reshape(d, 3, d)
            bias = np.asarray(layers['attention']['qkv_bias'][i]).reshape(3, d)
            for j, x in enumerate(self.projections):
                yield f'{prefix}attention.self.{x}.weight', kernel[:, j].T
                yield f'{prefix}attention.self.{x}.bias', bias[j]
            yield f'{prefix}attention.output.dense.weight', np.asarray(layers['attention']['out'][i]).reshape(d, d).T
            yield f'{prefix}attention.output.dense.bias', np.asarray(layers['attention']['out_bias'][i])
            for path, name in self.layer_names.items():
                yield prefix + name, matrix(name, at(layers, path)[i])

    def tensor_shapes(self, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
        d, f = config.hidden_size, config.ffn_size
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(self.names.values(), (d,))
        tables = {self.word_table: config.vocab_size, POSITIONS: config.max_positions, TOKEN_TYPES: -1}
        shapes |= {name: (rows, d) for name, rows in tables.items() if name in shapes}
        layer: dict[str, tuple[int, ...]] = {}
        for name in (*(f'self.{x}' for x in self.projections), 'output.dense'):
            layer |= {f'attention.{name}.weight': (d, d), f'attention.{name}.bias': (d,)}
        layer |= dict.fromkeys(self.layer_names.values(), (d,))
        layer |= {'intermediate.dense.weight': (f, d), 'intermediate.dense.bias': (f,), 'output.dense.weight': (d, f)}
        return shapes | {
            f'encoder.layer.{i}.{name}': shape for i in range(config.num_layers) for name, shape in layer.items()
        }

    def layer_weights(self, config: EncoderConfig) -> int:
        return config.num_layers * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.ffn_size)

    def attention_flops(self, config: EncoderConfig, length: float) -> float:
        return 4 * config.num_layers * config.hidden_size * length


class Roberta(XlmRoberta):
    """The RoBERTa family: reads a config.json of model type 'roberta' as XLM-R; afterwards the model is an XLM-R."""

    model_type = 'roberta'
    class_name = 'Roberta'
    sizes: ClassVar[Mapping[str, EncoderConfig]] = {}


def _check_special_ids(raw: Mapping[str, Any], where: str) -> None:
    """Raises ModelError for special ids that are not XLM-R's.

    They must be equal because positions start after the padding id, and because the lowest ids keep their numbers when
    the word table is cut to the active vocabulary.
    """
    for name, own in (('pad_token_id', 'pad_id'), ('bos_token_id', 'bos_id'), ('eos_token_id', 'eos_id')):
        actual, expected = raw.get(name), EncoderConfig.__dataclass_fields__[own].default
        if actual is not None and actual != expected:
            raise ModelError(
                f'{where}: {name} is {actual!r}; only encoders with the special ids of XLM-R can be read '
                f'(padding 1, <s> 0, </s> 2: positions start after the padding id)'
            )
