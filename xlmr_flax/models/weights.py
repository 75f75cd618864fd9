"""Names: this package's parameter tree <-> transformers' XLM-R tensors (torch layout, [out, in] matrices).

One table serves both directions. Layer tensors are stacked on axis 0 here and one tensor a layer there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.models.config import EncoderConfig, ModelError
from xlmr_flax.models.model import Params

Get = Callable[[str], np.ndarray]

_LAYER = {
    ('attention_norm', 'scale'): 'attention.output.LayerNorm.weight',
    ('attention_norm', 'bias'): 'attention.output.LayerNorm.bias',
    ('ffn_in', 'kernel'): 'intermediate.dense.weight',
    ('ffn_in', 'bias'): 'intermediate.dense.bias',
    ('ffn_out', 'kernel'): 'output.dense.weight',
    ('ffn_out', 'bias'): 'output.dense.bias',
    ('ffn_norm', 'scale'): 'output.LayerNorm.weight',
    ('ffn_norm', 'bias'): 'output.LayerNorm.bias',
}
_EMBEDDINGS = {
    ('word',): 'embeddings.word_embeddings.weight',
    ('position',): 'embeddings.position_embeddings.weight',
    ('token_type',): 'embeddings.token_type_embeddings.weight',
    ('norm', 'scale'): 'embeddings.LayerNorm.weight',
    ('norm', 'bias'): 'embeddings.LayerNorm.bias',
}


def head_names(spec: HeadSpec, style: str) -> dict[tuple[str, ...], str]:
    """Our path -> transformers' name for one head. Raises ModelError where transformers has no such head."""
    names = kind_of(spec).tensor_names(style)
    if not names:
        raise ModelError(
            f'a {spec.kind!r} head of style {style!r} (two tanh layers, as jiant) has no class in transformers; '
            f"train with encoder.head='hf' to export it"
        )
    return names


def _put(tree: dict[str, Any], path: tuple[str, ...], value: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> np.ndarray:
    for key in path:
        tree = tree[key]
    return np.asarray(tree)


def _matrix(name: str, value: np.ndarray) -> np.ndarray:
    """Swaps [out, in] and [in, out] for dense kernels; tables and vectors stay."""
    return value.T if value.ndim == 2 and 'embeddings' not in name else value


def import_encoder(get: Get, config: EncoderConfig) -> Params:
    """{'embeddings', 'layers'} from tensors named as in XLMRobertaModel (no prefix); float32, layers stacked."""
    tree: dict[str, Any] = {}
    for path, name in _EMBEDDINGS.items():
        _put(tree, ('embeddings', *path), np.asarray(get(name), np.float32))
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
            parts = [_matrix('', get(f'{prefix}attention.self.{x}.{kind}')) for x in ('query', 'key', 'value')]
            return np.stack(parts, axis=-2).reshape(shape)  # [D, 3, D] -> [D, 3, H, K]; bias [3, D] -> [3, H, K]

        return read

    _put(tree, ('layers', 'attention', 'qkv'), stack(qkv('weight', (d, 3, h, k))))
    _put(tree, ('layers', 'attention', 'qkv_bias'), stack(qkv('bias', (3, h, k))))
    out = 'attention.output.dense'
    _put(tree, ('layers', 'attention', 'out'), stack(lambda p: get(f'{p}{out}.weight').T.reshape(h, k, d)))
    _put(tree, ('layers', 'attention', 'out_bias'), stack(lambda p: get(f'{p}{out}.bias')))
    for path, name in _LAYER.items():
        _put(tree, ('layers', *path), stack(lambda p, name=name: _matrix(name, get(p + name))))
    return tree


def export_encoder(encoder: Params, config: EncoderConfig) -> Iterator[tuple[str, np.ndarray]]:
    """The inverse of `import_encoder`: (name, tensor) in transformers' order of names, one layer at a time."""
    for path, name in _EMBEDDINGS.items():
        yield name, _at(encoder, ('embeddings', *path))
    d = config.hidden_size
    layers = encoder['layers']
    for i in range(config.num_layers):
        prefix = f'encoder.layer.{i}.'
        kernel = np.asarray(layers['attention']['qkv'][i]).reshape(d, 3, d)
        bias = np.asarray(layers['attention']['qkv_bias'][i]).reshape(3, d)
        for j, x in enumerate(('query', 'key', 'value')):
            yield f'{prefix}attention.self.{x}.weight', kernel[:, j].T
            yield f'{prefix}attention.self.{x}.bias', bias[j]
        yield f'{prefix}attention.output.dense.weight', np.asarray(layers['attention']['out'][i]).reshape(d, d).T
        yield f'{prefix}attention.output.dense.bias', np.asarray(layers['attention']['out_bias'][i])
        for path, name in _LAYER.items():
            yield prefix + name, _matrix(name, _at(layers, path)[i])


def import_pooler(get: Get) -> Params:
    """The pooler from 'pooler.dense.*'."""
    return {'dense': {'kernel': _f32(get('pooler.dense.weight').T), 'bias': _f32(get('pooler.dense.bias'))}}


def export_pooler(pooler: Params) -> Iterator[tuple[str, np.ndarray]]:
    """'pooler.dense.*' of `import_pooler`'s tree."""
    yield 'pooler.dense.weight', np.asarray(pooler['dense']['kernel']).T
    yield 'pooler.dense.bias', np.asarray(pooler['dense']['bias'])


def import_head(get: Get, spec: HeadSpec, style: str) -> Params:
    """One head from a fine-tuned transformers checkpoint."""
    tree: dict[str, Any] = {}
    for path, name in head_names(spec, style).items():
        _put(tree, path, _f32(_matrix(name, get(name))))
    return tree


def export_head(head: Params, spec: HeadSpec, style: str) -> Iterator[tuple[str, np.ndarray]]:
    """One head in transformers' names. Raises ModelError for heads that transformers does not have."""
    for path, name in head_names(spec, style).items():
        yield name, _matrix(name, _at(head, path))


def _f32(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value, np.float32)
