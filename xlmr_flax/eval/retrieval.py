"""Chooses the layer and the text prefixes of sentence embeddings, and finds nearest neighbours.

The search is Tatoeba's (XTREME: evaluate_retrieval.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_flax.config import E5, LABSE
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.tasks.base import SentenceExample

_BLOCK = 2048
_LAYER, _DEPTH = 14, 24  # the layer that jiant and XTREME take of XLM-R Large, and its number of layers
_LAST_LAYER_DEPTH = 12  # encoders with this number of layers (XLM-R Base): the last layer is taken
# Before a text that asks and before a candidate that answers. Where both are translations, both ask, as
# multilingual-e5's model card says of bitext mining.
_E5_PREFIXES = ('query: ', 'passage: ')


def retrieval_layer(config: EncoderConfig, layer: int, pooling: str, field: str = 'retrieval layer') -> int:
    """The hidden_states index for a configured layer; -1 = by depth and pooling, as config.Evaluation says.

    field: names the setting in the error. Raises ModelError for a layer that the encoder does not have.
    """
    depth = config.num_layers
    if layer >= 0:
        if layer > depth:
            raise ModelError(f'{field} {layer}: the encoder has {depth} layers')
        return layer
    if pooling in (E5, LABSE) or depth == _LAST_LAYER_DEPTH:
        return depth
    return (2 * _LAYER * depth + _DEPTH) // (2 * _DEPTH)  # rounded


def layer_note(config: EncoderConfig, layer: int, pooling: str) -> str:
    """Describes the layer and the pooling of sentence vectors: 'layer 13 of 22 (14/24 of the depth), mean pooling'."""
    found = retrieval_layer(config, layer, pooling)
    is_share = layer < 0 and pooling not in (E5, LABSE) and config.num_layers not in (_DEPTH, _LAST_LAYER_DEPTH)
    share = f' ({_LAYER}/{_DEPTH} of the depth)' if is_share else ''
    return f'layer {found} of {config.num_layers}{share}, {pooling} pooling'


def with_prefixes(
    sentences: Sequence[SentenceExample], pooling: str, *, answers: bool = False
) -> Sequence[SentenceExample]:
    """Adds the 'query: ' or 'passage: ' prefix that the pooling `e5` needs; other poolings leave the text as it is.

    answers: the sentences are the candidates of a ranking, which get 'passage: '.
    """
    if pooling != E5:
        return sentences
    prefix = _E5_PREFIXES[answers]
    return [dataclasses.replace(each, text=prefix + each.text) for each in sentences]


@jax.jit
def _nearest(queries: jax.Array, pool: jax.Array) -> jax.Array:
    # With the default precision, an accelerator would round the vectors to fewer bits.
    return jnp.argmax(jnp.matmul(queries, pool.T, precision=jax.lax.Precision.HIGHEST), axis=1)


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Scales the rows to unit length (a zero row stays zero)."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def nearest(queries: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Index int64 [n] of the row of pool [m, D] with the highest cosine for every query [n, D]; among equals the
    first."""
    queries, target = normalise(queries), jnp.asarray(normalise(pool))
    indices = [np.asarray(_nearest(queries[i : i + _BLOCK], target)) for i in range(0, len(queries), _BLOCK)]
    return np.concatenate(indices).astype(np.int64)
