"""Forward passes over a whole set: class logits and sentence vectors, every row once, in file order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import jax
import jax.numpy as jnp
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
        if head.kind == 'choice':  # a row is one choice of an example: [B, T] -> [B, 1, T] -> [B, 1]
            return model.logits(params, name, head, ids[:, None], segments[:, None])
        logits = model.logits(params, name, head, ids, segments)
        return logits.argmax(-1).astype(jnp.int32) if head.kind == 'tag' else logits

    return jax.jit(forward, out_shardings=NamedSharding(mesh, PartitionSpec()))


@lru_cache(maxsize=32)
def _embed_function(model: Model, layer: int | None, pooling: str, mesh: Mesh) -> Callable[..., jax.Array]:
    def forward(params: Params, ids: jax.Array, segments: jax.Array) -> jax.Array:
        return model.embed(params, ids, segments, layer=layer, pooling=pooling)

    return jax.jit(forward, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _run(
    function: Callable[..., jax.Array],
    params: Params,
    tokens: Ragged,
    lengths: Sequence[int],
    batch_tokens: int,
    pad: int,
    mesh: Mesh,
    tick: Tick | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """(row number, its output) of every row, in the order of the batches."""
    waiting: list[tuple[np.ndarray, jax.Array]] = []

    def collect() -> Iterator[tuple[int, np.ndarray]]:
        rows, values = waiting.pop(0)
        yield from zip(rows.tolist(), np.asarray(values), strict=False)  # behind the real rows: padding
        if tick:
            tick(len(rows))

    for rows, batch in eval_batches(tokens, lengths, batch_tokens, pad, batch_devices(mesh)):
        arrays = put_batch(batch, mesh)
        waiting.append((rows, function(params, arrays['ids'], arrays['segments'])))
        if len(waiting) > 2:  # the device works on the next batch while this one is read
            yield from collect()
    while waiting:
        yield from collect()


def _stacked(found: Iterator[tuple[int, np.ndarray]], n: int) -> np.ndarray:
    out: np.ndarray | None = None
    for row, value in found:
        if out is None:
            out = np.empty((n, *value.shape), np.float32)
        out[row] = value
    assert out is not None
    return out


def predict_logits(
    model: Model,
    params: Params,
    name: str,
    head: HeadSpec,
    tokens: Ragged,
    *,
    lengths: Sequence[int],
    batch_tokens: int,
    pad: int,
    mesh: Mesh,
    tick: Tick | None = None,
) -> np.ndarray:
    """float32 [rows, C] logits of a pair head, [rows, 1] of a choice head, in row order."""
    function = _logits_function(model, name, head, mesh)
    return _stacked(_run(function, params, tokens, lengths, batch_tokens, pad, mesh, tick), len(tokens))


def predict_tokens(
    model: Model,
    params: Params,
    name: str,
    head: HeadSpec,
    tokens: Ragged,
    *,
    lengths: Sequence[int],
    batch_tokens: int,
    pad: int,
    mesh: Mesh,
    tick: Tick | None = None,
) -> list[np.ndarray]:
    """Per row, cut to its tokens: int32 [tokens] best tags of a tag head, float32 [tokens, 2] logits of a span head."""
    function = _logits_function(model, name, head, mesh)
    out: list[np.ndarray] = [np.zeros(0)] * len(tokens)
    for row, value in _run(function, params, tokens, lengths, batch_tokens, pad, mesh, tick):
        out[row] = value[: int(tokens.lengths[row])].copy()
    return out


def embed_sentences(
    model: Model,
    params: Params,
    tokens: Ragged,
    *,
    layer: int | None,
    pooling: str,
    lengths: Sequence[int],
    batch_tokens: int,
    pad: int,
    mesh: Mesh,
    tick: Tick | None = None,
) -> np.ndarray:
    """float32 [n, D] sentence vectors of hidden_states[layer] (None = the last), in row order."""
    function = _embed_function(model, layer, pooling, mesh)
    return _stacked(_run(function, params, tokens, lengths, batch_tokens, pad, mesh, tick), len(tokens))
