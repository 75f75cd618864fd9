"""Instrumentation of the training loop, which changes no numbers: profiler, recompilation, out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import jax

from xlmr_flax.models.model import Params
from xlmr_flax.parallel.mesh import shardings
from xlmr_flax.parallel.placement import placed
from xlmr_flax.train.diagnostics.memory_estimate import StepShapes, shard_bytes, size
from xlmr_flax.train.diagnostics.out_of_memory import (
    OutOfMemory,
    explain_step,
    explained,
    is_out_of_memory,
    named_arrays,
    summary,
)
from xlmr_flax.train.diagnostics.profile import STEP
from xlmr_flax.train.diagnostics.recompilation import Programs, StepBatch
from xlmr_flax.train.head_padding import ProgramHead
from xlmr_flax.train.mixed import gradient_program
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.phase import Phase
from xlmr_flax.train.step import State, split_state, state_shapes, step_program
from xlmr_flax.train.streams import BatchPlan
from xlmr_flax.util.heap import give_back


def placing(phase: Phase, params: Params) -> AbstractContextManager[None]:
    """A context for putting parameters and moments on the devices. Raises OutOfMemory."""
    mesh = phase.mesh

    def one(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    tree = jax.tree.map(one, params, shardings(params, mesh))
    now, wide = dict(mesh.shape), {'data': 1, 'fsdp': mesh.size if mesh.size > 1 else 8, 'model': 1}
    state = state_shapes(params, Optimizer(phase.recipe.optimizer, phase.steps))
    before, after = (shard_bytes(state, sizes) for sizes in (now, wide))
    setting = f'mesh.data=1 mesh.fsdp={wide["fsdp"]}{"" if mesh.size > 1 else " on 8 devices"}'
    advice = f'{setting}: parameters and moments {size(before)} -> {size(after)} on a device'
    what = f'parameters and moments of task {phase.task!r} on mesh {" ".join(f"{k}={v}" for k, v in now.items())}'
    return explained(what, tree, [advice] if after < before else [])


class Instrumentation:
    """A context manager for the training of a phase, with `step` and `annotation` for its pieces.

    Raises OutOfMemory instead of XLA's error.
    """

    def __init__(self, phase: Phase, heads: Mapping[str, ProgramHead]):
        self.phase, self._heads, self._mixed = phase, heads, phase.data.mix == 'micro_batch'
        micro_batches = phase.recipe.accumulation if self._mixed else 1
        self.programs = Programs(phase.data.streams, phase.recipe.batch_size // micro_batches, self._report)
        self._batches: list[StepBatch] = []
        self._state: State = {}
        self._step = 0

    def _report(self, step: int, text: str) -> None:
        self.phase.say(text)
        self.phase.log({'step': step, 'recompiled': text})

    def __enter__(self) -> Instrumentation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is not None and is_out_of_memory(error) and self._batches:
                raise OutOfMemory(self._explain(error)) from error
        finally:
            if self.phase.trace:
                self.phase.trace.close()

    def begin(self, start: int) -> None:
        """Records the step at which training starts."""
        if self.phase.trace:
            self.phase.trace.begin(start, self.phase.steps)

    @contextlib.contextmanager
    def step(self, step: int, state: Callable[[], State]) -> Iterator[None]:
        """A context for an optimizer step. step: 0-based. state: returns the current state."""
        trace, self._step, self._state, self._batches = self.phase.trace, step, state(), []
        if trace:
            trace.before(step, self._state['step'])
        self.programs.before()
        with jax.profiler.StepTraceAnnotation(STEP, step_num=step):
            yield
        if self.programs.compiled:
            give_back()
        self.programs.after(step + 1, self._batches)
        if trace:
            trace.after(step, state()['step'])

    @contextlib.contextmanager
    def annotation(self, name: str) -> Iterator[None]:
        """Names a piece of the work in a trace."""
        with jax.profiler.TraceAnnotation(name):
            yield

    def batch(self, plan: BatchPlan, arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Records the next batch of a step; returns its arrays."""
        self._batches.append(StepBatch(plan, arrays, self._given(plan)))
        return arrays

    def _given(self, plan: BatchPlan) -> Any:
        """The part of the state that is an argument of the batch's program."""
        shared, head_state = split_state(self._state, plan.stream.head_name)
        given = {'shared': shared, 'head': head_state}
        return {name: substate['params'] for name, substate in given.items()} if self._mixed else given

    def _explain(self, error: BaseException) -> str:
        phase, recipe, batch = self.phase, self.phase.recipe, self._batches[-1]
        name, rows, length = batch.place
        config, head = phase.model.config, batch.plan.stream.head
        shape = f'{rows} x {batch.arrays["ids"].shape[1]}' if batch.arrays['ids'].ndim == 3 else f'{rows}'
        cut = f' in {recipe.accumulation} micro-batches' if recipe.accumulation > 1 and not self._mixed else ''
        mesh = ' '.join(f'{axis}={count}' for axis, count in phase.mesh.shape.items())
        device = phase.mesh.devices.flat[0].device_kind
        what = (
            f'training step {self._step + 1} of task {phase.task!r}: {head.kind} batch of {name!r}, {shape} rows of '
            f'{length} tokens{cut}, {config.num_layers} layers of {config.hidden_size} in {phase.model.dtype}, mesh '
            f'{mesh} of {device}'
        )
        try:
            arrays = named_arrays({**self._full_state(), 'batch': batch.arrays})
            return explain_step(error, what, self._as_shapes(batch), arrays, self._analysis(batch))
        except Exception as e:  # an error in the explanation must not hide the error that it explains
            return f'out of memory: {what}\n  XLA: {summary(error)}\n  the explanation failed: {type(e).__name__}: {e}'

    def _full_state(self) -> State:
        return {k: v for k, v in self._state.items() if k != 'step'}

    def _as_shapes(self, batch: StepBatch) -> StepShapes:
        phase = self.phase

        def shape(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

        shared, head_state = split_state(self._state, batch.plan.stream.head_name)
        params = jax.tree.map(shape, {**shared['params'], **head_state['params']})
        whole, own = (
            sum(a.bytes for a in named_arrays(tree))
            for tree in (self._full_state(), [shared['params'], shared['opt'], head_state])
        )
        return StepShapes(
            phase.model,
            self._heads[batch.plan.stream.head_name].spec,
            params,
            {k: shape(v) for k, v in batch.arrays.items()},
            len(batch.plan.token_counts),
            1 if self._mixed else phase.recipe.accumulation,
            Optimizer(phase.recipe.optimizer, phase.steps),
            dict(phase.mesh.shape),
            max(0.0, whole - own),
            phase.recipe.accumulation if self._mixed else 1,
        )

    def _analysis(self, batch: StepBatch) -> Any:
        """XLA's memory analysis of the batch's program; None if the program has not been compiled before."""
        if not self.programs.compiled and batch.key not in self.programs.known:
            return None
        phase, head = self.phase, self._heads[batch.plan.stream.head_name]

        def struct(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

        key, real = jax.random.key(0), head.real_outputs
        given, arrays = jax.tree.map(struct, (self._given(batch.plan), batch.arrays))
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            if self._mixed:
                program = gradient_program(placed(phase.model, phase.mesh), head.spec)
                return (
                    program.lower({**given['shared'], **given['head']}, arrays, key, real).compile().memory_analysis()
                )
            optimizer = Optimizer(phase.recipe.optimizer, phase.steps)
            program = step_program(phase.model, head.spec, optimizer, phase.mesh, phase.recipe.accumulation)
            return program.lower(given['shared'], given['head'], arrays, key, real).compile().memory_analysis()
        return None
