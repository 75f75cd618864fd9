"""Nearest-neighbour search between two sets of sentence vectors, as in Tatoeba (XTREME: evaluate_retrieval.py)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_flax.encoders.config import EncoderConfig, ModelError

_BLOCK = 2048


def retrieval_layer(config: EncoderConfig, layer: int) -> int:
    """The hidden_states index for a configured layer. -1 means 14 for a 24-layer encoder (as jiant and XTREME), else
    the last. Raises ModelError for a layer that the encoder does not have."""
    if layer >= 0:
        if layer > config.num_layers:
            raise ModelError(f'evaluation.retrieval_layer {layer}: the encoder has {config.num_layers} layers')
        return layer
    return 14 if config.num_layers == 24 else config.num_layers


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
