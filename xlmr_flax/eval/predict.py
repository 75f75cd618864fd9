"""Forward passes over a whole set: class logits and sentence vectors, every row once, in file order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_flax.data.batches import eval_batches
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.models.model import HeadSpec, Model, Params
from xlmr_flax.parallel.mesh import batch_devices, put_batch

Tick = Callable[[int], None]  # told the number of rows just done


@lru_cache(maxsize=32)
def _logits_function(model: Model, name: str, head: HeadSpec, mesh: Mesh) -> Callable[..., jax.Array]:
    """One compiled program per head and row length, shared by all languages of a process."""

    def forward(params: Params, ids: jax.Array, segments: jax.Array) -> jax.Array:
        return model.logits(params, name, head, ids, segments)

    return jax.jit(forward, out_shardings=NamedSharding(mesh, PartitionSpec()))


@lru_cache(maxsize=32)
def _embed_function(model: Model, layer: int | None, pooling: str, mesh: Mesh) -> Callable[..., jax.Array]:
    def forward(params: Params, ids: jax.Array, segments: jax.Array) -> jax.Array:
        return model.embed(params, ids, segments, layer=layer, pooling=pooling)

    return jax.jit(forward, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _run(
    function: Callable[..., jax.Array], params: Params, tokens: Ragged, lengths: Sequence[int], batch_tokens: int,
    pad: int, mesh: Mesh, tick: Tick | None,
) -> np.ndarray:
    out: np.ndarray | None = None
    waiting: list[tuple[np.ndarray, Any]] = []

    def collect() -> None:
        nonlocal out
        rows, values = waiting.pop(0)
        host = np.asarray(values)
        if out is None:
            out = np.empty((len(tokens), *host.shape[1:]), np.float32)
        out[rows] = host[: len(rows)]
        if tick:
            tick(len(rows))

    for rows, batch in eval_batches(tokens, lengths, batch_tokens, pad, batch_devices(mesh)):
        arrays = put_batch(batch, mesh)
        waiting.append((rows, function(params, arrays['ids'], arrays['segments'])))
        if len(waiting) > 2:  # the device works on the next batch while this one is read
            collect()
    while waiting:
        collect()
    assert out is not None
    return out


def predict_logits(
    model: Model, params: Params, name: str, head: HeadSpec, tokens: Ragged, *,
    lengths: Sequence[int], batch_tokens: int, pad: int, mesh: Mesh, tick: Tick | None = None,
) -> np.ndarray:
    """float32 [n, C] logits of a pair head, in row order."""
    function = _logits_function(model, name, head, mesh)
    return _run(function, params, tokens, lengths, batch_tokens, pad, mesh, tick)


def embed_sentences(
    model: Model, params: Params, tokens: Ragged, *, layer: int | None, pooling: str,
    lengths: Sequence[int], batch_tokens: int, pad: int, mesh: Mesh, tick: Tick | None = None,
) -> np.ndarray:
    """float32 [n, D] sentence vectors of hidden_states[layer] (None = the last), in row order."""
    function = _embed_function(model, layer, pooling, mesh)
    return _run(function, params, tokens, lengths, batch_tokens, pad, mesh, tick)
