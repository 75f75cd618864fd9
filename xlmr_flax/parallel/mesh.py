"""The device mesh (data, fsdp, model), sharding rules by parameter path, and conversion of host to global arrays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from xlmr_flax.encoders import FAMILIES
from xlmr_flax.encoders.logical_axes import EMBED, FFN, HEADS, WORDS
from xlmr_flax.util.errors import UserError

P = PartitionSpec
AXES = ('data', 'fsdp', 'model')
BATCH_AXES = ('data', 'fsdp')


class MeshError(UserError, ValueError):
    """Raised for a mesh that does not fit the devices, or a parameter that does not match exactly one sharding rule."""


def make_mesh(
    data: int = -1, fsdp: int = 1, model: int = 1, slices: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
    """Makes a mesh over the given devices, None = all. One axis may be -1: it gets the remaining devices.

    slices: the number of TPU slices, -1 = as many as there are. The data-centre network between slices is an order of
    magnitude slower than the links between the chips of a slice. So the data axis spans the slices (gradients are
    summed once per step); the axes fsdp and model, which every layer uses, stay within a slice. Raises MeshError if the
    product of the axes is not the number of devices, or if the devices do not fit the slices.
    """
    if slices != 1:
        devices = jax.devices() if devices is None else devices
        slices = len(_slices(devices)) if slices == -1 else slices
    sizes, n = [data, fsdp, model], jax.device_count() if devices is None else len(devices)
    if sizes.count(-1) > 1 or any(s == 0 or s < -1 for s in sizes):
        raise MeshError(f'mesh data={data} fsdp={fsdp} model={model}: sizes are positive, and one may be -1')
    known = int(np.prod([s for s in sizes if s != -1]))
    if -1 in sizes and n % known == 0:
        sizes[sizes.index(-1)] = n // known
    if int(np.prod(sizes)) != n:
        raise MeshError(f'mesh data={data} fsdp={fsdp} model={model} does not fit {n} device(s)')
    if slices != 1:
        return _across_slices(sizes, slices, devices or ())
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def rows_mesh(mesh: Mesh) -> Mesh:
    """The same devices in the same order with all of them along the data axis: rows are sharded, weights replicated."""
    return Mesh(mesh.devices.reshape(-1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3)


def _slices(devices: Sequence[Any]) -> dict[int, int]:
    """Returns {slice: number of its devices}. Raises MeshError for a device without a slice."""
    missing = next((d for d in devices if getattr(d, 'slice_index', None) is None), None)
    if missing is not None:
        raise MeshError(f'mesh slices: device {missing} is in no slice (it has no slice_index); expected slices=1')
    return dict(Counter(d.slice_index for d in devices))


def _across_slices(sizes: Sequence[int], slices: int, devices: Sequence[Any]) -> Mesh:
    """Makes a mesh whose data axis spans the slices. sizes: data, fsdp, model. Raises MeshError."""
    counts, asked = _slices(devices), f'mesh data={sizes[0]} fsdp={sizes[1]} model={sizes[2]} slices={slices}'
    if slices != len(counts):
        raise MeshError(f'{asked}: the devices are in {len(counts)} slice(s)')
    if sizes[0] % slices:
        raise MeshError(f'{asked}: data spans the slices, so it is a multiple of their number')
    if len(set(counts.values())) > 1:
        raise MeshError(f'{asked}: slices of different sizes, {dict(sorted(counts.items()))} (slice: devices)')
    inside = (sizes[0] // slices, *sizes[1:])
    return Mesh(create_hybrid_device_mesh(inside, (slices, 1, 1), devices), AXES, axis_types=(AxisType.Auto,) * 3)


# Logical axes of parameters (encoders/logical_axes.py) -> mesh axes.
_PARAMETER_AXES = {None: None, WORDS: 'model', HEADS: 'model', FFN: 'model', EMBED: 'fsdp'}


def _encoder_rules() -> Iterator[tuple[str, PartitionSpec]]:
    for pattern, axes in dict.fromkeys(rule for family in FAMILIES.values() for rule in family.axes):
        yield pattern, P(*(_PARAMETER_AXES[axis] for axis in axes))


# Parameter path -> spec; the paths of moments have the same endings. Every leaf matches exactly one rule. The
# rules of an encoder come from its family.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    *_encoder_rules(),
    (r'norm/(scale|bias)$', P()),  # of embeddings, layers and the masked-LM head
    (r'pooler/dense/(kernel|bias)$', P()),
    (r'heads/[^/]+/(dense|out)/(kernel|bias)$', P()),
    (r'heads/[^/]+/bias$', P('model')),  # of the masked-LM head, one per word
    (r'(^|/)(count|step)$', P()),
)


def path_name(path: Sequence[Any]) -> str:
    """Formats a key path as 'encoder/layers/ffn_in/kernel'."""
    return '/'.join(str(getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k)))) for k in path)


def spec_for(
    name: str, shape: Sequence[int], mesh: Mesh, rules: Sequence[tuple[str, PartitionSpec]] = RULES
) -> PartitionSpec:
    """Returns the PartitionSpec of one leaf. A dimension that its mesh axis does not divide is not sharded.

    Raises MeshError unless exactly one rule matches.
    """
    matches = [spec for pattern, spec in rules if re.search(pattern, name)]
    if len(matches) != 1:
        raise MeshError(f'parameter {name!r} matches {len(matches)} sharding rules, expected exactly one')
    axes = [axis if axis is None or shape[i] % mesh.shape[axis] == 0 else None for i, axis in enumerate(matches[0])]
    return P(*axes)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """Returns the NamedSharding of every leaf of a tree of arrays or ShapeDtypeStructs."""

    def one(path: Sequence[Any], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, spec_for(path_name(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows over the data and fsdp axes."""
    return NamedSharding(mesh, P(BATCH_AXES))


def batch_devices(mesh: Mesh) -> int:
    """The number of shards of a batch's rows."""
    return mesh.shape['data'] * mesh.shape['fsdp']


def own_rows(rows: int, mesh: Mesh) -> slice:
    """The slice of a batch of `rows` rows that the devices of this process need; all rows for a single process."""
    if jax.process_count() == 1:
        return slice(0, rows)
    places = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    ends = [place[0].indices(rows)[:2] for place in places if place is not None]
    return slice(min(start for start, _ in ends), max(stop for _, stop in ends))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, rows: int = 0) -> dict[str, jax.Array]:
    """Puts a host batch onto the mesh: global arrays with sharded rows.

    rows: number of rows of the global batch, if `batch` has only the rows of this process (`own_rows`); 0 = `batch` has
    all rows.
    """
    sharding = batch_sharding(mesh)
    first = own_rows(rows, mesh).start if rows else 0

    def one(v: np.ndarray) -> jax.Array:
        shape = (rows or v.shape[0], *v.shape[1:])

        def part(place: Any) -> np.ndarray:
            start, stop, _ = place[0].indices(shape[0])
            return v[start - first : stop - first]

        return jax.make_array_from_callback(shape, sharding, part)

    return {k: one(v) for k, v in batch.items()}


@lru_cache(maxsize=8)
def _replication(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies whole arrays of a tree to every device of the mesh."""
    return _replication(mesh)(tree)


def fetch(tree: Any, mesh: Mesh) -> Any:
    """Copies global arrays to the host of every process, as whole arrays. Replicates one leaf at a time on devices."""

    def one(leaf: jax.Array) -> np.ndarray:
        whole = leaf.is_fully_addressable or leaf.is_fully_replicated
        return np.asarray(leaf if whole else replicate(leaf, mesh))

    return jax.tree.map(one, tree)


def put_tree(tree: Any, mesh: Mesh) -> Any:
    """Puts a host tree of parameters onto the mesh: global arrays, sharded by the rules."""

    def one(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree, shardings(tree, mesh))
