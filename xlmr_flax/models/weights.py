"""Names of heads and pooler: our parameter tree <-> transformers' tensors (torch layout, [out, in] matrices).

One table serves both directions. The encoder's are its family's (models/encoders/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xlmr_flax.models.config import ModelError
from xlmr_flax.models.model import HeadSpec, Params
from xlmr_flax.models.tensors import at, matrix, put

Get = Callable[[str], np.ndarray]

# (head kind, style) -> our path: their name. 'jiant' pair and choice heads have no class in transformers.
_HEADS: dict[tuple[str, str], dict[tuple[str, ...], str]] = {
    ('pair', 'hf'): {
        ('dense', 'kernel'): 'classifier.dense.weight',
        ('dense', 'bias'): 'classifier.dense.bias',
        ('out', 'kernel'): 'classifier.out_proj.weight',
        ('out', 'bias'): 'classifier.out_proj.bias',
    },
    ('choice', 'hf'): {('out', 'kernel'): 'classifier.weight', ('out', 'bias'): 'classifier.bias'},
    ('tag', ''): {('out', 'kernel'): 'classifier.weight', ('out', 'bias'): 'classifier.bias'},
    ('span', ''): {('out', 'kernel'): 'qa_outputs.weight', ('out', 'bias'): 'qa_outputs.bias'},
    ('mlm', ''): {
        ('dense', 'kernel'): 'lm_head.dense.weight',
        ('dense', 'bias'): 'lm_head.dense.bias',
        ('norm', 'scale'): 'lm_head.layer_norm.weight',
        ('norm', 'bias'): 'lm_head.layer_norm.bias',
        ('bias',): 'lm_head.bias',
    },
}
ARCHITECTURES = {
    'pair': 'XLMRobertaForSequenceClassification',
    'choice': 'XLMRobertaForMultipleChoice',
    'tag': 'XLMRobertaForTokenClassification',
    'span': 'XLMRobertaForQuestionAnswering',
    'mlm': 'XLMRobertaForMaskedLM',
}


def head_names(kind: str, style: str) -> dict[tuple[str, ...], str]:
    """Our path -> transformers' name for one head. Raises ModelError where transformers has no such head."""
    names = _HEADS.get((kind, '')) or _HEADS.get((kind, style))
    if names is None:
        raise ModelError(
            f'a {kind!r} head of style {style!r} (two tanh layers, as jiant) has no class in transformers; '
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
    for path, name in head_names(spec.kind, style).items():
        put(tree, path, _f32(matrix(name, get(name))))
    return tree


def export_head(head: Params, spec: HeadSpec, style: str) -> Iterator[tuple[str, np.ndarray]]:
    """One head in transformers' names. Raises ModelError for heads that transformers does not have."""
    for path, name in head_names(spec.kind, style).items():
        yield name, matrix(name, at(head, path))


def _f32(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value, np.float32)
