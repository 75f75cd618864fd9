"""The device mesh (data, fsdp, model), sharding by path rules, host rows -> global arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

P = PartitionSpec
AXES = ('data', 'fsdp', 'model')
BATCH_AXES = ('data', 'fsdp')


class MeshError(ValueError):
    """A mesh that the devices do not allow, or a parameter that the rules do not place exactly once."""


def make_mesh(data: int = -1, fsdp: int = 1, model: int = 1) -> Mesh:
    """A mesh over all devices. One axis may be -1: what is left. Raises MeshError when the product does not fit."""
    sizes, n = [data, fsdp, model], jax.device_count()
    if sizes.count(-1) > 1 or any(s == 0 or s < -1 for s in sizes):
        raise MeshError(f'mesh data={data} fsdp={fsdp} model={model}: sizes are positive, and one may be -1')
    known = int(np.prod([s for s in sizes if s != -1]))
    if -1 in sizes and n % known == 0:
        sizes[sizes.index(-1)] = n // known
    if int(np.prod(sizes)) != n:
        raise MeshError(f'mesh data={data} fsdp={fsdp} model={model} does not fit {n} device(s)')
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


# Parameter path (and AdamW's moments, whose paths end alike) -> spec. Every leaf matches exactly one rule.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r'embeddings/word$', P('model', 'fsdp')),
    (r'embeddings/(position|token_type)$', P(None, 'fsdp')),
    (r'layers/attention/qkv$', P(None, 'fsdp', None, 'model', None)),  # [L, D, 3, H, K]
    (r'layers/attention/qkv_bias$', P(None, None, 'model', None)),
    (r'layers/attention/out$', P(None, 'model', None, 'fsdp')),  # [L, H, K, D]
    (r'layers/attention/out_bias$', P()),
    (r'layers/ffn_in/kernel$', P(None, 'fsdp', 'model')),  # [L, D, F]
    (r'layers/ffn_in/bias$', P(None, 'model')),
    (r'layers/ffn_out/kernel$', P(None, 'model', 'fsdp')),
    (r'layers/ffn_out/bias$', P()),
    (r'norm/(scale|bias)$', P()),  # embeddings', layers' and the masked-LM head's
    (r'pooler/dense/(kernel|bias)$', P()),
    (r'heads/[^/]+/(dense|out)/(kernel|bias)$', P()),
    (r'heads/[^/]+/bias$', P('model')),  # the masked-LM head's, one per word
    (r'(^|/)(count|step)$', P()),
)


def path_name(path: Sequence[Any]) -> str:
    """A key path as 'encoder/layers/ffn_in/kernel'."""
    return '/'.join(str(getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k)))) for k in path)


def spec_for(name: str, shape: Sequence[int], mesh: Mesh, rules: Sequence[tuple[str, PartitionSpec]] = RULES) -> P:
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


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Host rows -> global arrays, rows sharded. Every process holds the whole batch and gives its own rows."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_callback(v.shape, sharding, lambda index, v=v: v[index]) for k, v in batch.items()}


def put_tree(tree: Any, mesh: Mesh) -> Any:
    """A host tree of parameters -> sharded global arrays."""

    def one(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree, shardings(tree, mesh))
