"""Names of heads and pooler: our parameter tree <-> transformers' tensors (torch layout, [out, in] matrices).

One table serves both directions. The encoder's are its family's (models/encoders/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xlmr_flax.encoders.config import ModelError
from xlmr_flax.encoders.tensors import at, matrix, put
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.models.model import Params

Get = Callable[[str], np.ndarray]


def head_names(spec: HeadSpec, style: str) -> dict[tuple[str, ...], str]:
    """Our path -> transformers' name for one head. Raises ModelError where transformers has no such head."""
    names = kind_of(spec).tensor_names(style)
    if not names:
        raise ModelError(
            f'a {spec.kind!r} head of style {style!r} (two tanh layers, as jiant) has no class in transformers; '
            f"train with encoder.head='hf' to export it"
        )
    return names


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
        put(tree, path, _f32(matrix(name, get(name))))
    return tree


def export_head(head: Params, spec: HeadSpec, style: str) -> Iterator[tuple[str, np.ndarray]]:
    """One head in transformers' names. Raises ModelError for heads that transformers does not have."""
    for path, name in head_names(spec, style).items():
        yield name, matrix(name, at(head, path))


def _f32(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value, np.float32)
