"""Detects recompilation of training programs: none should occur after the first batch of each shape.

JAX's monitoring events count compilations (train/compilations.py). To report the cause, the arguments (shapes, dtypes,
weak types, shardings) are compared with those of the known programs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from xlmr_flax.parallel.mesh import path_name
from xlmr_flax.train.compilations import compilations
from xlmr_flax.train.streams import BatchPlan, Stream

_SHOWN = 4  # most arguments in a report


@dataclass(frozen=True)
class Argument:
    """The properties of an argument for which a program is compiled. sharding: None for a host array."""

    shape: tuple[int, ...]
    dtype: str
    weak: bool
    sharding: Any

    def same(self, other: Argument) -> bool:
        """Whether JAX would use the same compiled program. Equivalent shardings count as equal."""
        if (self.shape, self.dtype, self.weak) != (other.shape, other.dtype, other.weak):
            return False
        if self.sharding is None or other.sharding is None:
            return self.sharding is other.sharding
        return self.sharding.is_equivalent_to(other.sharding, len(self.shape))

    def __str__(self) -> str:
        weak, spec = ' (weak)' if self.weak else '', getattr(self.sharding, 'spec', self.sharding)
        return f'{self.dtype}{list(self.shape)}{weak} on {"the host" if self.sharding is None else spec}'


Arguments = dict[str, Argument]


def arguments(tree: Any) -> Arguments:
    """Returns the arguments of a program by path. Leaves may be deleted arrays, because a step donates its state."""

    def one(leaf: Any) -> Argument:
        leaf = leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
        weak, sharding = bool(getattr(leaf, 'weak_type', False)), getattr(leaf, 'sharding', None)
        return Argument(tuple(leaf.shape), str(leaf.dtype), weak, sharding)

    return {path_name(path): one(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def changed_arguments(now: Arguments, before: Arguments) -> list[str]:
    """Lists the arguments that differ, such as 'ids: int32[8, 20] on P() instead of int32[8, 16] on P()'."""
    changes = [
        f'{name}: {now[name]} instead of {before[name]}'
        for name in now
        if name in before and not now[name].same(before[name])
    ]
    changes += [f'{name}: new, {now[name]}' for name in now if name not in before]
    return changes + [f'{name}: gone, {before[name]}' for name in before if name not in now]


@dataclass(frozen=True)
class StepBatch:
    """A batch of a step, as its program got it. state: the program's other arguments."""

    plan: BatchPlan
    arrays: Any
    state: Any

    @property
    def place(self) -> tuple[str, int, int]:
        """(stream name, rows, tokens per row), to compare with `announced`."""
        shape = self.arrays['ids'].shape
        return self.plan.stream.name, shape[0], shape[-1]

    def arguments(self) -> Arguments:
        return arguments({**self.state, 'batch': self.arrays})

    @property
    def key(self) -> tuple[Any, ...]:
        """The key of the batch's program: the kind of head, and the shapes and dtypes of the arrays."""
        shapes = sorted((name, tuple(leaf.shape), str(leaf.dtype)) for name, leaf in self.arrays.items())
        return (self.plan.stream.head.kind, *shapes)


def announced(streams: Sequence[Stream], examples: int) -> dict[str, set[tuple[int, int]]]:
    """Returns {stream name: the possible (rows, tokens per row) of its batches of `examples` examples}."""

    def shapes(stream: Stream) -> set[tuple[int, int]]:
        if stream.packing:
            return {(rows, stream.packing.length) for rows in stream.packing.counts(examples)}
        return {(examples, length) for length in stream.row_lengths}

    return {stream.name: shapes(stream) for stream in streams}


class Programs:
    """The compiled programs of one training.

    say: called with (step, text) once for each unexpected compilation; steps count from 1, as in the log.
    """

    def __init__(self, streams: Sequence[Stream], examples: int, say: Callable[[int, str], None]):
        self._allowed, self._say = announced(streams, examples), say
        self.known: dict[tuple[Any, ...], Arguments] = {}
        self._places: dict[tuple[str, int, int], tuple[Any, ...]] = {}
        self._said: set[tuple[Any, ...]] = set()
        self._before = (0, 0.0)

    def before(self) -> None:
        """Call before a step: records the number of compilations so far."""
        self._before = (compilations.count, compilations.seconds)

    @property
    def compiled(self) -> int:
        """The number of programs compiled since `before`."""
        return compilations.count - self._before[0]

    def after(self, step: int, batches: Sequence[StepBatch]) -> None:
        """Call after a step with its batches: reports unexpected compilations."""
        fresh = {batch.key: batch for batch in batches if batch.key not in self.known}
        again = self.compiled - len(fresh)
        took = f'{compilations.seconds - self._before[1]:.1f} s'
        for batch in fresh.values():
            self._check_shape(step, batch, took)
        if again > 0:
            self._report_again(step, [batch for batch in batches if batch.key not in fresh] or list(batches), took)
        for key, batch in fresh.items():
            self.known[key] = batch.arguments()
            self._places.setdefault(batch.place, key)

    def _check_shape(self, step: int, batch: StepBatch, took: str) -> None:
        name, rows, length = batch.place
        if (rows, length) in self._allowed[name] and batch.place not in self._places:
            return
        kind = batch.plan.stream.head.kind
        if batch.place in self._places:
            why = f'batches of {rows} rows of {length} tokens of {name!r} differ among each other'
        else:
            shapes = ', '.join(f'{r} x {n}' for r, n in sorted(self._allowed[name]))
            why = f'a batch of {name!r} has {rows} rows of {length} tokens, its shapes should be {shapes}'
        self._tell(step, (batch.key,), f'another program for {kind} batches ({took} of compiling): {why}', batch)

    def _report_again(self, step: int, batches: Sequence[StepBatch], took: str) -> None:
        """Reports that the program of one of these batches was compiled again."""

        def changed(batch: StepBatch) -> list[str]:
            known = self.known.get(batch.key)
            return changed_arguments(batch.arguments(), known) if known else []

        batch = next((batch for batch in batches if changed(batch)), batches[-1])
        kind, (name, rows, length) = batch.plan.stream.head.kind, batch.place
        why = f'the program for {kind} batches of {rows} x {length} ({name!r}) was compiled again ({took})'
        self._tell(step, (batch.key, *changed(batch)), why, batch)

    def _tell(self, step: int, what: tuple[Any, ...], text: str, batch: StepBatch) -> None:
        if what in self._said:
            return
        self._said.add(what)
        now = batch.arguments()
        changes = min((changed_arguments(now, known) for known in self.known.values()), key=len, default=[])
        if batch.key in self.known:
            changes = changed_arguments(now, self.known[batch.key])
        shown = '; '.join(changes[:_SHOWN]) + (f'; and {len(changes) - _SHOWN} more' if len(changes) > _SHOWN else '')
        self._say(
            step,
            f'unexpected compilation at step {step}: {text}; {shown or "no argument differs: its cache was emptied"}',
        )
