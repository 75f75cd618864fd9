"""Logical axes: the models name the dimensions of arrays, and parallel/ maps the names to the axes of a mesh.

Parameters: a family's `axes` (encoders/family.py) become shardings in parallel/mesh.py. Activations: the
compiler shards everything between a program's inputs and outputs as it likes, and where parameters are sharded over the
same devices as the batch, it may choose to gather the batch. So the models name the axes of each activation, and a
`Place` that knows the mesh (parallel/placement.py) adds sharding constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax

Dims = tuple[str | None, ...]
# ROWS: of a batch, or tokens with the rows outermost. HEADS, FFN, WORDS: what tensor parallelism cuts. EMBED: of a
# parameter, the model's width, which fully sharded training cuts. None: whole.
ROWS, HEADS, FFN, WORDS, EMBED = 'rows', 'heads', 'ffn', 'words', 'embed'


class Place(Protocol):
    """Hashable, as programs are cached by their model."""

    def __call__(self, x: jax.Array, *dims: str | None) -> jax.Array:
        """x with a sharding constraint; one name for each of its dimensions."""
        ...

    def lookup(self, table: jax.Array, ids: jax.Array) -> jax.Array:
        """table [V, D], ids int32 [B, T] -> rows of the table [B, T, D]."""
        ...

    def mapped(
        self, function: Callable[..., Any], inputs: Sequence[Dims], outputs: Dims | tuple[Dims, ...]
    ) -> Callable[..., Any]:
        """`function` under shard_map, each device on its own part of the arrays; otherwise XLA would all-gather the
        operands of a kernel. outputs: of the result, or of each where there are several."""
        ...


@dataclass(frozen=True)
class Anywhere:
    """One device, or the compiler's choice: the program has no constraints."""

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


ANYWHERE = Anywhere()
