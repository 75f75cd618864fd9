"""Sharding constraints for activations: rows over data and fsdp; heads, feed-forward and words over model.

Parameters and batch are both sharded over fsdp. Without constraints, the compiler may all-gather the batch instead of
one layer's parameters. Fully sharded training gathers the parameters (Rajbhandari et al. 2020, ZeRO, stage 3; Xu et al.
2021, GSPMD, section 3.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_flax.encoders.attention.choose import platform_of
from xlmr_flax.encoders.logical_axes import FFN, HEADS, ROWS, WORDS, Dims
from xlmr_flax.parallel.mesh import BATCH_AXES, MeshError

P = PartitionSpec
# Logical axes of activations (encoders/logical_axes.py) -> mesh axes.
_ACTIVATION_AXES: dict[str | None, tuple[str, ...]] = {
    None: (),
    ROWS: BATCH_AXES,
    HEADS: ('model',),
    FFN: ('model',),
    WORDS: ('model',),
}


@dataclass(frozen=True)
class Placement:
    """Adds the sharding constraints of a mesh (implements `Constrain`). A dimension that its mesh axes do not
    divide is not sharded."""

    mesh: Mesh

    def spec(self, shape: Sequence[int], dims: Sequence[str | None]) -> PartitionSpec:
        """Returns the PartitionSpec of an array. Raises MeshError for an unknown name or a wrong number of names."""
        if len(shape) != len(dims) or any(d not in _ACTIVATION_AXES for d in dims):
            known = ', '.join(str(d) for d in _ACTIVATION_AXES)
            raise MeshError(
                f'dimensions {tuple(dims)} of an array of shape {tuple(shape)}: expected one of {known} each'
            )
        return P(*(self._axes(size, _ACTIVATION_AXES[d]) for size, d in zip(shape, dims, strict=True)))

    def _axes(self, size: int, axes: tuple[str, ...]) -> tuple[str, ...] | None:
        count = int(np.prod([self.mesh.shape[a] for a in axes]))
        return axes if count > 1 and size % count == 0 else None

    def __call__(self, x: jax.Array, *dims: str | None) -> jax.Array:
        return self._constrain(x, self.spec(x.shape, dims))

    def _constrain(self, x: jax.Array, spec: PartitionSpec) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def lookup(self, table: jax.Array, ids: jax.Array) -> jax.Array:
        """Embedding lookup in a table [V, D] with columns sharded over fsdp, for ids [B, T] with rows sharded over it.

        Every device looks up its own columns for the ids of all fsdp devices; then one all-to-all exchanges columns for
        rows. The traffic is the size of the result; all-gathering the table would move V * D numbers.
        """
        rows, columns = self._axes(ids.shape[0], ('data',)), self._axes(table.shape[1], ('fsdp',))
        values = table[self._constrain(ids, P(rows, None))]
        return self(self._constrain(values, P(rows, None, columns)), ROWS, None, None)

    def mapped(
        self, function: Callable[..., Any], inputs: Sequence[Dims], outputs: Dims | tuple[Dims, ...]
    ) -> Callable[..., Any]:
        """Wraps `function` in jax.shard_map: each device computes on its own shard of the arrays."""

        def run(*arrays: jax.Array) -> Any:
            specs = tuple(self.spec(x.shape, dims) for x, dims in zip(arrays, inputs, strict=True))
            named: dict[str | None, Any] = {}
            for d, axes in ((d, axes) for i, spec in enumerate(specs) for d, axes in zip(inputs[i], spec, strict=True)):
                if named.setdefault(d, axes) != axes:
                    raise MeshError(f'mesh {dict(self.mesh.shape)}: {d} has other shards in another operand')

            def spec_of(dims: Any) -> Any:
                return P(*(named.get(d) for d in dims))

            out = tuple(map(spec_of, outputs)) if isinstance(outputs[0], tuple) else spec_of(outputs)
            return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)(*arrays)

        return run


def placed(model: Any, mesh: Mesh) -> Any:
    """Returns the model (models/model.py Model) with a mesh's sharding constraints and the platform of its devices.

    On one device there are no constraints.
    """
    place = model.place if mesh.size == 1 else Placement(mesh)
    return dataclasses.replace(model, place=place, platform=platform_of(mesh.devices.flat[0]))
