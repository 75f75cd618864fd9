"""Compiles the package's training steps and forward passes ahead of time for a slice of TPU chips, or for GPUs.

Nothing is allocated and no TPU or GPU is needed: parameters, optimizer state and batches are shapes with shardings, by
the same rules as in a run (parallel/mesh.py), and libtpu or XLA's plugin for CUDA compiles the program.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from xlmr_flax.config import MeshSpec, OptimizerSpec
from xlmr_flax.eval.predict import embed_program, logits_program
from xlmr_flax.eval.weights import converted
from xlmr_flax.experiment.plan.cost import forward_flops
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.kinds.base import HEAD
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.chips import GIB
from xlmr_flax.parallel.mesh import batch_devices, batch_sharding, make_mesh, shardings
from xlmr_flax.tools.estimate import EstimateError
from xlmr_flax.tools.estimate.chips import Topology, devices
from xlmr_flax.tools.estimate.cost import ProgramCost, program_cost
from xlmr_flax.tools.estimate.describe import KERNEL
from xlmr_flax.tools.estimate.gpu_cost import gpu_cost
from xlmr_flax.tools.estimate.gpus import COMPILER_OPTIONS, gpu_devices
from xlmr_flax.tools.estimate.hlo import parse
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.step import split_state, state_shapes, step_program

TRAIN, EVALUATE, EMBED = 'train', 'evaluate', 'embed'


@dataclass(frozen=True)
class Program:
    """One program of a run.

    does: TRAIN, EVALUATE or EMBED. rows: number of rows of a whole step, over all chips and micro-batches; in training
    with a choice head an example is one row here and has `choices` rows of tokens. predicted: tokens per row that a
    language-modelling head predicts. layer, pooling: for EMBED. slots: number of examples that a packed row has room
    for (data/packing.py), 0 = rows are not packed.
    """

    does: str
    model: Model
    head: HeadSpec
    rows: int
    length: int
    accumulation: int = 1
    choices: int = 1
    predicted: int = 0
    optimizer: OptimizerSpec = dataclasses.field(default_factory=OptimizerSpec)
    layer: int | None = None
    pooling: str = 'mean'
    slots: int = 0

    @property
    def name(self) -> str:
        """Name for tables and messages: what it does, its head, and rows x tokens of a step."""
        rows = f'{self.rows} × {self.choices}' if self.choices > 1 else f'{self.rows}'
        parts = f' in {self.accumulation} parts' if self.accumulation > 1 else ''
        kind = 'vectors' if self.does == EMBED else self.head.kind
        return f'{self.does} {kind} {rows} × {self.length}{parts}'

    @property
    def tokens(self) -> int:
        """Tokens of a step, with padding."""
        return self.rows * self.choices * self.length

    @property
    def flops(self) -> float:
        """Model FLOPs of a step (experiment/plan/cost.py); recomputed layers do not count."""
        return self._flops(self.length)

    @property
    def attention_flops(self) -> float:
        """FLOPs of attention's two products over tokens, a part of `flops`."""
        return self.flops - self._flops(0)

    def _flops(self, length: int) -> float:
        """Model FLOPs of a step if attention spans `length` tokens."""
        shape = self.model.config
        if self.does == EMBED and self.layer is not None:
            shape = dataclasses.replace(shape, num_layers=self.layer)
        forward = forward_flops(shape, self.tokens, length)
        forward += 2 * self.rows * self.predicted * shape.hidden_size * (shape.hidden_size + shape.vocab_size)
        return 3 * forward if self.does == TRAIN else forward


@dataclass(frozen=True)
class Memory:
    """Memory of a program on one chip, in bytes.

    parameters, optimizer: the shards, without layout padding. inputs: the other arguments (batch) and padding.
    temporary: activations and gradients. code: the program. peak: the sum of these and of results that do not reuse a
    donated argument's buffer. hbm: memory of a chip.
    """

    parameters: float
    optimizer: float
    inputs: float
    temporary: float
    code: float
    peak: float
    hbm: float

    @property
    def fits(self) -> bool:
        return self.peak <= self.hbm


@dataclass(frozen=True)
class Compiled:
    """A compiled program on a slice. cost: None if it does not fit; `error` is then the compiler's message."""

    program: Program
    topology: Topology
    mesh: Mapping[str, int]
    memory: Memory
    cost: ProgramCost | None
    error: str
    compile_seconds: float
    text: str = dataclasses.field(repr=False, default='')

    @property
    def ideal(self) -> float:
        """Seconds of a step at the chips' peak FLOP/s."""
        return self.program.flops / (self.topology.chips * self.topology.chip.flops)

    @property
    def seconds(self) -> float:
        """Estimated seconds of a step if all collectives overlap with operations; NaN if it does not fit."""
        return self.cost.cycles / self.topology.chip.clock if self.cost else math.nan

    @property
    def unmarked(self) -> tuple[float, float]:
        """(ideal, estimated) seconds of a step without the operations that the compiler does not estimate, as kernels.

        If attention is a kernel, the ideal time is without its products as well. NaN if the program does not fit,
        and on a GPU.
        """
        if self.cost is None or self.topology.chip.is_gpu:
            return math.nan, math.nan
        flops = self.program.flops
        if any(o.marked and o.kind == KERNEL and o.name.startswith('attention') for o in self.cost.operations):
            flops -= self.program.attention_flops
        chip = self.topology.chip
        cycles = self.cost.cycles - self.cost.marked_cycles
        return flops / (self.topology.chips * chip.flops), cycles / chip.clock

    @property
    def collective_seconds(self) -> float:
        """Smallest time of the collectives in seconds, over all links of a chip."""
        return self.cost.sent / self.topology.chip.link_speed if self.cost else math.nan

    @property
    def slowest(self) -> float:
        """Estimated seconds of a step if no collective overlaps with operations."""
        return self.seconds + self.collective_seconds


def mesh_on(topology: Topology, spec: MeshSpec) -> Mesh:
    """Makes the mesh of a config over the chips of a slice, or over GPUs. Raises MeshError, EstimateError."""
    described = (gpu_devices if topology.chip.is_gpu else devices)(topology)
    return make_mesh(spec.data, spec.fsdp, spec.model, spec.slices, devices=described)


def compile_program(program: Program, topology: Topology, mesh: Mesh) -> Compiled:
    """Compiles a program and computes its cost. mesh: of `mesh_on`. Raises EstimateError if rows cannot be sharded."""
    shards, part = batch_devices(mesh), program.rows // program.accumulation
    if part % shards:
        raise EstimateError(
            f'{program.name}: {part} rows of a micro-batch cannot be cut over {shards} shards of '
            f'{topology.name}; batch_size must be a multiple of {shards * program.accumulation}'
        )
    own, lowered = _lower(program, mesh)
    began = time.monotonic()
    try:
        with _no_cache():
            compiled = lowered.compile(COMPILER_OPTIONS if topology.chip.is_gpu else None)
    except jax.errors.JaxRuntimeError as e:
        if 'RESOURCE_EXHAUSTED' not in str(e):
            raise
        memory = too_large(str(e), own, topology)
        error = str(e).split('RESOURCE_EXHAUSTED:')[-1].strip().splitlines()[0]
        return Compiled(program, topology, dict(mesh.shape), memory, None, error, time.monotonic() - began)
    spent, text, stats = time.monotonic() - began, compiled.as_text(), compiled.memory_analysis()
    memory = Memory(
        *own,
        stats.argument_size_in_bytes - sum(own),
        stats.temp_size_in_bytes,
        stats.generated_code_size_in_bytes,
        _peak(stats),
        topology.chip.hbm,
    )
    cost = (gpu_cost if topology.chip.is_gpu else program_cost)(parse(text), topology.chip)
    return Compiled(program, topology, dict(mesh.shape), memory, cost, '', spent, text)


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """Disables JAX's compilation cache: a program compiled without a TPU can be written to it, but not read again."""
    from jax.experimental.compilation_cache import compilation_cache

    before = getattr(jax.config, 'jax_enable_compilation_cache')  # noqa: B009 (made by jax at run time: types do not know it)
    jax.config.update('jax_enable_compilation_cache', False)
    compilation_cache.reset_cache()  # the cache reads its settings only once
    try:
        yield
    finally:
        jax.config.update('jax_enable_compilation_cache', before)
        compilation_cache.reset_cache()


def _peak(stats: Any) -> float:
    """Peak bytes of a step: a donated argument's buffer is reused for a result, and temporaries share one arena."""
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return stats.argument_size_in_bytes + results + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes


def too_large(message: str, own: tuple[float, float], topology: Topology) -> Memory:
    """Memory of a program that does not fit, from the compiler's message, which gives temporaries in binary units."""
    units = {'K': 1 << 10, 'M': 1 << 20, 'G': GIB, 'T': GIB << 10}
    found = re.search(r'([\d.]+)([KMGT])\)? exceeds', message) or re.search(r'Used ([\d.]+)([KMGT])', message)
    temporary = float(found[1]) * units[found[2]] if found else math.nan
    return Memory(*own, 0.0, temporary, 0.0, sum(own) + temporary, topology.chip.hbm)


def _lower(program: Program, mesh: Mesh) -> tuple[tuple[float, float], Any]:
    """Lowers a program; returns ((parameter bytes, optimizer bytes) on a chip, the lowered program)."""
    model, head = program.model, program.head
    if program.does != TRAIN:
        params = jax.eval_shape(converted(model.dtype), model.shapes({HEAD: head} if program.does == EVALUATE else {}))
        if program.does == EMBED:
            params = {k: params[k] for k in ('encoder', 'pooler')}
            run = embed_program(model, program.layer, program.pooling, mesh)
        else:
            run = logits_program(model, head, mesh)
        placed, rows = _placed(params, mesh), _struct((program.rows, program.length), jnp.int32, mesh)
        return (_bytes(placed), 0.0), run.lower(placed, rows, rows)
    optimizer = Optimizer(program.optimizer, 1000)  # the number of steps is a constant and costs nothing
    state = _placed(state_shapes(model.shapes({HEAD: head}), optimizer), mesh)
    shared, mine = split_state(state, HEAD)
    key = jax.eval_shape(lambda: jax.random.key(0))
    run = step_program(model, head, optimizer, mesh, program.accumulation)
    own = (_bytes(state['params']), _bytes(state['opt']))
    return own, run.lower(shared, mine, batch_shapes(program, mesh), key, None)


def batch_shapes(program: Program, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a training step's batch, as data/batches.py and data/masking.py make it."""
    rows = program.rows
    shapes = kind_of(program.head).batch_shapes(rows, program.length, program.choices, program.predicted)
    examples = (rows,)
    if program.slots and 'labels' not in shapes:  # one output for each example, not for each token
        examples = (rows, program.slots)
        if 'label' in shapes:
            shapes = shapes | {'starts': (*shapes['ids'][:-1], program.slots)}
        shapes = {name: examples if sizes == (rows,) else sizes for name, sizes in shapes.items()}
    batch = {name: _struct(sizes, jnp.int32, mesh) for name, sizes in shapes.items()}
    return batch | {'valid': _struct(examples, jnp.float32, mesh)}


def _struct(shape: tuple[int, ...], dtype: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))


def _placed(tree: Any, mesh: Mesh) -> Any:
    def one(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(one, tree, shardings(tree, mesh))


def _bytes(tree: Any) -> float:
    """Bytes of a sharded tree on one chip."""
    leaves = jax.tree.leaves(tree)
    return float(sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves))
