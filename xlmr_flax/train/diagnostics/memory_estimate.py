"""Estimates the memory of a training step on one device, and how much each setting would save.

The estimate is arithmetic on shapes: nothing is allocated or compiled. Parameters, moments and gradients follow the
sharding rules. Activations are the residuals that automatic differentiation keeps for the backward pass. The compiler
may keep fewer (it recomputes cheap ones) and needs its own temporaries, so the error is up to about a third.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from xlmr_flax.encoders.compute import FULL, NONE
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import AXES, BATCH_AXES, path_name, spec_for
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.step import head_loss

Shapes = Mapping[str, jax.ShapeDtypeStruct]


@dataclass(frozen=True)
class StepShapes:
    """The shapes of a training step.

    params: the shared part and one head, named HEAD (kinds/base.py). batch: the arrays of a program. examples: number
    of examples in the batch (packed rows have several). accumulation: number of micro-batches into which the program
    splits its batch. optimizer: determines the moments. mesh: size of each axis. resident: other bytes of the state on
    a device (other heads). programs: programs per optimizer step (micro-batches of a mixture).
    """

    model: Model
    head: HeadSpec
    params: Params
    batch: Shapes
    examples: int
    accumulation: int
    optimizer: Optimizer
    mesh: Mapping[str, int]
    resident: float = 0.0
    programs: int = 1

    @property
    def shards(self) -> int:
        """The number of devices over which a batch's rows are sharded."""
        return math.prod(self.mesh[axis] for axis in BATCH_AXES)

    @property
    def rows(self) -> int:
        """The number of rows of one micro-batch."""
        return -(-self.batch['valid'].shape[0] // self.accumulation)

    @property
    def length(self) -> int:
        return self.batch['ids'].shape[-1]


@dataclass(frozen=True)
class MemoryEstimate:
    """The estimated memory of a step, in bytes on one device."""

    parameters: float
    moments: float
    gradients: float
    activations: float

    @property
    def total(self) -> float:
        return self.parameters + self.moments + self.gradients + self.activations

    def text(self) -> str:
        """Formats the amounts: 'parameters 2.1 GiB, ...'."""
        return ', '.join(f'{f.name} {size(getattr(self, f.name))}' for f in dataclasses.fields(self))


def size(count: float) -> str:
    """Formats a number of bytes in binary units."""
    for unit, name in ((1 << 30, 'GiB'), (1 << 20, 'MiB'), (1 << 10, 'KiB')):
        if abs(count) >= unit:
            return f'{count / unit:.1f} {name}'
    return f'{count:.0f} B'


def shard_bytes(tree: Any, mesh: Mapping[str, int]) -> float:
    """Bytes on one device of a tree of parameters or moments, sharded by the rules. mesh: size of each axis."""
    shape: Any = AbstractMesh(tuple(mesh[axis] for axis in AXES), AXES)
    total = 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        cut = [axis for axis in spec_for(path_name(path), leaf.shape, shape) if axis]
        total += math.prod(leaf.shape) * leaf.dtype.itemsize / math.prod(mesh[axis] for axis in cut)
    return total


def residuals(
    model: Model, head: HeadSpec, params: Params, batch: Shapes, rows: int
) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shapes of the arrays that the backward pass reads for a batch of `rows` rows, including parameters."""
    leaves, tree = jax.tree.flatten(params)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    arrays = tuple((k, jax.ShapeDtypeStruct((rows, *v.shape[1:]), v.dtype)) for k, v in batch.items())
    return _residuals(model, head, shapes, tree, arrays)


# Settings are compared by steps that share most of their shapes, and a trace of a deep encoder takes seconds.
@lru_cache(maxsize=64)
def _residuals(
    model: Model,
    head: HeadSpec,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
    tree: Any,
    arrays: tuple[tuple[str, jax.ShapeDtypeStruct], ...],
) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The result of `residuals`. leaves, tree: the parameters. arrays: those of the batch, with their names."""
    loss, key = head_loss(model, head), jax.eval_shape(lambda: jax.random.key(0))

    def forward(params: Params, batch: Any, key: jax.Array) -> list[jax.Array]:
        _, backward = jax.vjp(lambda p: loss(p, batch, key, jnp.float32(1), None)[0], params)
        return list({id(leaf): leaf for leaf in jax.tree.leaves(backward)}.values())

    return tuple(jax.eval_shape(forward, jax.tree.unflatten(tree, leaves), dict(arrays), key))


def activations(step: StepShapes) -> list[jax.ShapeDtypeStruct]:
    """The activations of one micro-batch that are kept for the backward pass, on all devices, the largest first.

    These are the residuals whose shape depends on the number of rows.
    """
    rows = max(2, step.rows)  # a dimension of size 1 may be dropped
    few, many = (residuals(step.model, step.head, step.params, step.batch, n * rows) for n in (1, 2))
    kept = []
    for a, b in zip(few, many, strict=True):
        if a.shape != b.shape:
            own = tuple(n if n == m else n * step.rows // rows for n, m in zip(a.shape, b.shape, strict=True))
            kept.append(jax.ShapeDtypeStruct(own, a.dtype))
    return sorted(kept, key=_bytes, reverse=True)


def label(step: StepShapes, shape: tuple[int, ...]) -> str:
    """Names an array of the forward pass by its last dimensions; '' = unknown."""
    config, (*_, before, last) = step.model.config, (0, 0, *shape)
    if before == last == step.length:
        return 'attention weights'
    names = {config.vocab_size: 'words', config.ffn_size: 'feed-forward', config.hidden_size: 'hidden states'}
    return names.get(last, '')


def _bytes(leaf: Any) -> float:
    return float(math.prod(leaf.shape) * leaf.dtype.itemsize)


def estimate(step: StepShapes) -> MemoryEstimate:
    """Estimates the memory of a step on one device. With rematerialisation, one layer's activations are added."""
    parameters = shard_bytes(step.params, step.mesh)
    moments = shard_bytes(jax.eval_shape(step.optimizer.init, step.params), step.mesh)
    others = step.resident / (parameters + moments)  # the other heads have parameters and moments in the same ratio
    held = sum(map(_bytes, activations(step)))
    if step.model.options().remat != NONE:
        whole = dataclasses.replace(step, model=dataclasses.replace(step.model, remat=NONE))
        held += sum(map(_bytes, activations(whole))) / max(1, step.model.config.num_layers)
    summed = 2 if step.accumulation > 1 else 1  # the sum so far, and the gradients of the current micro-batch
    return MemoryEstimate(parameters * (1 + others), moments * (1 + others), summed * parameters, held / step.shards)


def options(step: StepShapes, limit: float = 0.0, unrolled: bool = False) -> Iterator[tuple[str, str, StepShapes]]:
    """Yields (setting, its side effects, the changed step) for every setting that makes a step smaller.

    limit: bytes of a device, 0 = unknown. unrolled: whether the program has its layers unrolled, without a scan."""
    n, micro_batches = step.examples, step.accumulation
    more = [k for k in range(micro_batches + 1, n + 1) if n % k == 0 and n // k % step.shards == 0]
    if cut := [_with(step, accumulation=k) for k in more if step.programs == 1]:
        # The fewest micro-batches that fit or that save at least 10 %, because small matrix products are slow.
        enough = limit or 0.9 * estimate(step).total
        smaller = next((s for s in cut if estimate(s).total <= enough), cut[-1])
        setting = f'recipe.accumulation={smaller.accumulation} (now {micro_batches})'
        meaning = 'the same training, in smaller micro-batches'
        if step.optimizer.spec.clip_per == 'micro_batch':
            meaning = 'another training: each micro-batch has dropout masks and clipping of its own'
        yield setting, meaning, smaller
    if step.model.remat != FULL and step.model.config.num_layers > 1:
        # If all layers are unrolled, XLA:CPU merges a layer's recomputation with its forward pass.
        unroll = ' encoder.unroll=1' if unrolled else ''
        model = dataclasses.replace(step.model, remat=FULL, unroll=1)
        yield f"encoder.remat='full'{unroll}", 'the same numbers; layers are computed twice', _with(step, model=model)
    if step.model.dtype == 'float32':
        model = dataclasses.replace(step.model, dtype='bfloat16')
        yield "encoder.dtype='bfloat16'", 'products are rounded more coarsely', _with(step, model=model)
    mesh, spread = step.mesh, step.mesh['data'] * step.mesh['fsdp']
    if mesh['data'] > 1:
        wide = {**mesh, 'data': 1, 'fsdp': spread}
        yield f'mesh.data=1 mesh.fsdp={spread}', 'the same numbers, more traffic', _with(step, mesh=wide)
    elif spread * mesh['model'] == 1:
        yield 'mesh.fsdp=8 on 8 devices', 'the same training', _with(step, mesh={**mesh, 'fsdp': 8})
    if n % 2 == 0 and n // 2 % (micro_batches * step.shards) == 0:
        half = {k: jax.ShapeDtypeStruct((v.shape[0] // 2, *v.shape[1:]), v.dtype) for k, v in step.batch.items()}
        setting = f'recipe.batch_size={n // 2 * step.programs} (now {n * step.programs})'
        yield setting, 'another training', _with(step, batch=half, examples=n // 2)
    if step.length >= 16:
        yield f'recipe.max_length={step.length // 2}', 'longer texts are cut or split', _with(step, batch=_short(step))


def _with(step: StepShapes, **changes: Any) -> StepShapes:
    return dataclasses.replace(step, **changes)


def _short(step: StepShapes) -> Shapes:
    """The batch with rows of half the length. The masked-LM positions per row are halved, too."""

    def one(name: str, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        by_token = leaf.shape[-1:] == (step.length,) or ('positions' in step.batch and name in ('positions', 'labels'))
        shape = (*leaf.shape[:-1], max(1, leaf.shape[-1] // 2)) if by_token else leaf.shape
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return {name: one(name, leaf) for name, leaf in step.batch.items()}
