"""Logical axes: models name the dimensions of their arrays, and parallel/ maps these names to the axes of a mesh.

Parameters: parallel/mesh.py turns a family's `axes` (encoders/family.py) into shardings.
Activations: XLA chooses the sharding of intermediate arrays. If parameters are sharded over the same devices as the
batch, it may all-gather the batch. So models name the axes of each activation, and a `Constrain` that knows the mesh
(parallel/placement.py) adds sharding constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax

Dims = tuple[str | None, ...]
# ROWS: rows of a batch, or tokens with the rows outermost. HEADS, FFN, WORDS: sharded by tensor parallelism. EMBED: the
# model width of a parameter, sharded by FSDP. None: not sharded.
ROWS, HEADS, FFN, WORDS, EMBED = 'rows', 'heads', 'ffn', 'words', 'embed'


class Constrain(Protocol):
    """Adds sharding constraints to activations. Must be hashable, because compiled programs are cached by model."""

    def __call__(self, x: jax.Array, *dims: str | None) -> jax.Array:
        """Returns x with a sharding constraint. dims: the logical axis of each dimension."""
        ...

    def lookup(self, table: jax.Array, ids: jax.Array) -> jax.Array:
        """Embedding lookup: table [V, D], ids int32 [B, T] -> rows of the table [B, T, D]."""
        ...

    def mapped(
        self, function: Callable[..., Any], inputs: Sequence[Dims], outputs: Dims | tuple[Dims, ...]
    ) -> Callable[..., Any]:
        """Wraps `function` in shard_map, so that each device computes on its own shard; otherwise XLA would all-gather
        the operands of a kernel. inputs: logical axes of each argument. outputs: those of the result, or a tuple of
        them for several results."""
        ...


@dataclass(frozen=True)
class Unconstrained:
    """A `Constrain` without constraints: for one device, or to leave the sharding to the compiler."""

    def __call__(self, x: jax.Array, *dims: str | None) -> jax.Array:
        del dims
        return x

    def lookup(self, table: jax.Array, ids: jax.Array) -> jax.Array:
        return table[ids]

    def mapped(
        self, function: Callable[..., Any], inputs: Sequence[Dims], outputs: Dims | tuple[Dims, ...]
    ) -> Callable[..., Any]:
        del inputs, outputs
        return function


UNCONSTRAINED = Unconstrained()
