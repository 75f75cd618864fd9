"""The device mesh (data, fsdp, model), sharding by path rules, host rows -> global arrays."""

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
from xlmr_flax.util.errors import UserError

P = PartitionSpec
AXES = ('data', 'fsdp', 'model')
BATCH_AXES = ('data', 'fsdp')


class MeshError(UserError, ValueError):
    """A mesh that the devices do not allow, or a parameter that the rules do not place exactly once."""


def make_mesh(
    data: int = -1, fsdp: int = 1, model: int = 1, slices: int = 1, *, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh over all devices, or those given. One axis may be -1: what is left. Raises MeshError when the product does
    not fit.

    slices: more than 1 where the devices are in so many TPU slices, joined by a data-centre network that is an order
    of magnitude slower than what joins the chips of one. Then data spans the slices (their gradients are summed, once a
    step) and fsdp and model lie inside each, as every layer needs those. -1: as many as there are.
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


def _slices(devices: Sequence[Any]) -> dict[int, int]:
    """{slice: how many of the devices are in it}."""
    missing = next((d for d in devices if getattr(d, 'slice_index', None) is None), None)
    if missing is not None:
        raise MeshError(f'mesh slices: device {missing} is in no slice (it has no slice_index); expected slices=1')
    return dict(Counter(d.slice_index for d in devices))


def _across_slices(sizes: Sequence[int], slices: int, devices: Sequence[Any]) -> Mesh:
    """A mesh of which data's blocks are slices. sizes: data, fsdp, model."""
    found, asked = _slices(devices), f'mesh data={sizes[0]} fsdp={sizes[1]} model={sizes[2]} slices={slices}'
    if slices != len(found):
        raise MeshError(f'{asked}: the devices are in {len(found)} slice(s)')
    if sizes[0] % slices:
        raise MeshError(f'{asked}: data spans the slices, so it is a multiple of their number')
    if len(set(found.values())) > 1:
        raise MeshError(f'{asked}: slices of different sizes, {dict(sorted(found.items()))} (slice: devices)')
    inside = (sizes[0] // slices, *sizes[1:])
    return Mesh(create_hybrid_device_mesh(inside, (slices, 1, 1), devices), AXES, axis_types=(AxisType.Auto,) * 3)


# Logical axes of parameters (encoders/logical_axes.py) -> mesh axes.
_PARAMETER_AXES = {None: None, 'words': 'model', 'heads': 'model', 'ffn': 'model', 'embed': 'fsdp'}


def _encoder_rules() -> Iterator[tuple[str, PartitionSpec]]:
    for pattern, axes in dict.fromkeys(rule for family in FAMILIES.values() for rule in family.axes):
        yield pattern, P(*(_PARAMETER_AXES[axis] for axis in axes))


# Parameter path (and AdamW's moments, whose paths end alike) -> spec. Every leaf matches exactly one rule. Those of an
# encoder are its family's.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    *_encoder_rules(),
    (r'norm/(scale|bias)$', P()),  # embeddings', layers' and the masked-LM head's
    (r'pooler/dense/(kernel|bias)$', P()),
    (r'heads/[^/]+/(dense|out)/(kernel|bias)$', P()),
    (r'heads/[^/]+/bias$', P('model')),  # the masked-LM head's, one per word
    (r'(^|/)(count|step)$', P()),
)


def path_name(path: Sequence[Any]) -> str:
    """A key path as 'encoder/layers/ffn_in/kernel'."""
    return '/'.join(str(getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k)))) for k in path)


def spec_for(
    name: str, shape: Sequence[int], mesh: Mesh, rules: Sequence[tuple[str, PartitionSpec]] = RULES
) -> PartitionSpec:
    """The spec of one leaf; an axis that does not divide its dimension is left out. Raises MeshError unless one rule
    fits.
    """
    found = [spec for pattern, spec in rules if re.search(pattern, name)]
    if len(found) != 1:
        raise MeshError(f'parameter {name!r} matches {len(found)} sharding rules, expected exactly one')
    axes = [axis if axis is None or shape[i] % mesh.shape[axis] == 0 else None for i, axis in enumerate(found[0])]
    return P(*axes)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedSharding for every leaf of a tree of arrays or ShapeDtypeStructs."""

    def one(path: Sequence[Any], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, spec_for(path_name(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the data and fsdp axes."""
    return NamedSharding(mesh, P(BATCH_AXES))


def batch_devices(mesh: Mesh) -> int:
    """How many shards a batch's rows are cut into."""
    return mesh.shape['data'] * mesh.shape['fsdp']


def own_rows(rows: int, mesh: Mesh) -> slice:
    """Which rows of a batch of so many the devices of this process need; all of them where it is the only process."""
    if jax.process_count() == 1:
        return slice(0, rows)
    places = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    ends = [place[0].indices(rows)[:2] for place in places if place is not None]
    return slice(min(start for start, _ in ends), max(stop for _, stop in ends))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, rows: int = 0) -> dict[str, jax.Array]:
    """Host rows -> global arrays, rows sharded. Every process gives the rows of its own devices.

    rows: of the global batch, where `batch` holds only this process's, those of `own_rows`; 0 = it holds all.
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
def _replicated(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda leaf: leaf, out_shardings=NamedSharding(mesh, P()))


def fetch(tree: Any, mesh: Mesh) -> Any:
    """Global arrays -> a host tree of whole arrays on every process, one leaf at a time on the devices."""

    def one(leaf: jax.Array) -> np.ndarray:
        whole = leaf.is_fully_addressable or leaf.is_fully_replicated
        return np.asarray(leaf if whole else _replicated(mesh)(leaf))

    return jax.tree.map(one, tree)


def put_tree(tree: Any, mesh: Mesh) -> Any:
    """A host tree of parameters -> sharded global arrays."""

    def one(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree, shardings(tree, mesh))
