"""Converts heads and pooler between our parameter tree and transformers' tensors (torch's layout, [out, in] matrices).

One table of names serves both directions. The encoder's own names are in its family (encoders/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.tensors import at, matrix, put
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.models.model import Params

Get = Callable[[str], np.ndarray]


def head_names(spec: HeadSpec, style: str, config: EncoderConfig) -> Mapping[tuple[str, ...], str]:
    """Returns {our path: transformers' name} of one head. Raises ModelError if transformers has no such head."""
    names = kind_of(spec).head_tensor_names(config, style)
    if not names:
        raise ModelError(
            f'a {spec.kind!r} head of style {style!r} has no class in transformers; '
            f"train with encoder.head='hf' to export it"
        )
    return names


def import_pooler(get: Get) -> Params:
    """Reads the pooler from the tensors 'pooler.dense.*'."""
    return {'dense': {'kernel': _f32(get('pooler.dense.weight').T), 'bias': _f32(get('pooler.dense.bias'))}}


def export_pooler(pooler: Params) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the pooler's tensors 'pooler.dense.*': the inverse of `import_pooler`."""
    yield 'pooler.dense.weight', np.asarray(pooler['dense']['kernel']).T
    yield 'pooler.dense.bias', np.asarray(pooler['dense']['bias'])


def import_head(get: Get, spec: HeadSpec, style: str, config: EncoderConfig) -> Params:
    """Reads one head from a fine-tuned transformers checkpoint. Raises ModelError as `head_names` does."""
    tree: dict[str, Any] = {}
    for path, name in head_names(spec, style, config).items():
        put(tree, path, _f32(matrix(name, get(name))))
    return tree


def export_head(head: Params, spec: HeadSpec, style: str, config: EncoderConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Yields one head's tensors with transformers' names. Raises ModelError if transformers has no such head."""
    for path, name in head_names(spec, style, config).items():
        yield name, matrix(name, at(head, path))


def _f32(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value, np.float32)
