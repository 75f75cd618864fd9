"""The out-of-memory error: it lists the largest arrays and the settings that make them smaller."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax

from xlmr_flax.parallel.mesh import path_name
from xlmr_flax.train.diagnostics.memory_estimate import (
    MemoryEstimate,
    StepShapes,
    activations,
    estimate,
    label,
    options,
    size,
)
from xlmr_flax.util.errors import UserError

_LARGEST = 6  # most arrays in each list of a message
_UNITS = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}


class OutOfMemory(UserError, RuntimeError):
    """Raised if a program or its arrays do not fit into a device's memory.

    The message names the largest arrays and the settings that make them smaller.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that XLA ran out of memory, while compiling (TPU) or while allocating."""
    return isinstance(error, jax.errors.JaxRuntimeError) and 'RESOURCE_EXHAUSTED' in str(error)


@dataclass(frozen=True)
class Array:
    """An array on one device. bytes: size of its shard. shape: global shape. count: number of such arrays."""

    bytes: float
    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int = 1

    def __str__(self) -> str:
        many = f' ({self.count} of them)' if self.count > 1 else ''
        return f'{size(self.bytes):>10}  {self.dtype}{list(self.shape)}  {self.name}{many}'


def named_arrays(tree: Any) -> list[Array]:
    """The arrays of a tree with their paths as names, the largest first.

    The leaves are arrays (also deleted ones) or ShapeDtypeStructs with a sharding.
    """
    arrays = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape
        bytes_there = float(math.prod(shape) * leaf.dtype.itemsize)
        arrays.append(Array(bytes_there, path_name(path), str(leaf.dtype), tuple(leaf.shape)))
    return sorted(arrays, key=lambda array: -array.bytes)


def other_arrays(known: Iterable[Any]) -> list[Array]:
    """The live arrays of this process except those in `known`, the largest first. bytes: on one device."""
    own = {id(leaf) for leaf in known}
    arrays = []
    for leaf in jax.live_arrays():
        if id(leaf) not in own and not leaf.is_deleted():
            shape = leaf.sharding.shard_shape(leaf.shape)
            arrays.append(Array(float(math.prod(shape) * leaf.dtype.itemsize), '', str(leaf.dtype), tuple(leaf.shape)))
    return sorted(arrays, key=lambda array: -array.bytes)


def summary(error: BaseException) -> str:
    """The first line of XLA's message after RESOURCE_EXHAUSTED."""
    text = str(error).split('RESOURCE_EXHAUSTED:')[-1].strip()
    return ' '.join(text.split('\n\n')[0].splitlines()[0].split())


def limit_in(message: str) -> float:
    """Parses a device's bytes from XLA's message, in either of libtpu's forms; 0 = not in the message."""
    match = re.search(r'(?:Used [\d.]+[KMGT]? of |available HBM \()([\d.]+)([KMGT]?)', message)
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def buffers_in(message: str) -> list[Array]:
    """Parses the largest buffers from XLA's message, the largest first.

    The list is 'Largest program allocations in hbm' on a TPU, 'Peak buffers' on a GPU. name: the path of the operation
    in the traced function.
    """
    arrays = []
    for block in re.split(r'={5,}', message):
        amount = re.search(r'Size: ([\d.]+) ?([KMGT]?)i?B?', block)
        shape = re.search(r'Shape: (\w+)\[([\d,]*)\]', block)
        if amount and shape:
            name = re.search(r'op_name="([^"]*)"', block)
            sizes = tuple(int(n) for n in shape[2].split(',') if n)
            path = name[1] if name else ''
            arrays.append(Array(float(amount[1]) * _UNITS[amount[2]], path, shape[1], sizes))
    return sorted(arrays, key=lambda array: -array.bytes)


def device_limit(message: str = '') -> tuple[float, str]:
    """(bytes of a device, 0 = unknown; a text about its memory use, '' = unknown)."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    limit = float(stats.get('bytes_limit', 0)) or limit_in(message)
    used = stats.get('bytes_in_use')
    if used is None or not limit:
        return limit, ''
    peak = f', {size(peak)} at most' if (peak := stats.get('peak_bytes_in_use')) else ''
    block = f', largest free block {size(free)}' if (free := stats.get('largest_free_block_bytes')) else ''
    return limit, f'{size(used)} of {size(limit)} in use{peak}{block}'


def option_lines(step: StepShapes, base: MemoryEstimate, limit: float) -> list[str]:
    """Lines with the effect of each setting on a step's memory and on the training."""
    lines, unrolled = [], step.model.unroll == 0 and jax.default_backend() == 'cpu'
    for setting, meaning, changed in options(step, limit, unrolled):
        after = estimate(changed)
        if after.total >= base.total:
            continue
        before, now = ({k: round(v) for k, v in vars(n).items()} for n in (base, after))
        changes = [f'{k} {size(before[k])} -> {size(now[k])}' for k in before if before[k] != now[k]]
        fits = ', fits' if limit and after.total <= limit else ''
        lines.append(f'{setting}: {", ".join(changes)}; total {size(after.total)}{fits} ({meaning})')
    return lines


def compiled_line(analysis: Any) -> str:
    """Formats the compiler's memory analysis. analysis: result of a compiled program's memory_analysis(), or None."""
    if analysis is None:
        return ''
    reused = f', {size(analysis.alias_size_in_bytes)} of them in place' if analysis.alias_size_in_bytes else ''
    return (
        f'arguments {size(analysis.argument_size_in_bytes)}, temporaries {size(analysis.temp_size_in_bytes)}, '
        f'results {size(analysis.output_size_in_bytes)}{reused}'
    )


def activation_arrays(step: StepShapes) -> list[Array]:
    """The activations kept for the backward pass, the largest first; arrays of equal shape and dtype are grouped."""
    counts = Counter((a.shape, a.dtype) for a in activations(step))
    arrays = []
    for (shape, dtype), count in counts.items():
        name = ' '.join(filter(None, (label(step, shape), 'kept for the backward pass')))
        arrays.append(Array(math.prod(shape) * dtype.itemsize / step.shards, name, str(dtype), shape, count))
    return sorted(arrays, key=lambda array: -array.bytes * array.count)


def block(title: str, lines: Sequence[object]) -> list[str]:
    """A heading and its lines; [] if there are no lines."""
    return [f'  {title}:', *(f'    {line}' for line in lines)] if lines else []


def explain_step(error: BaseException, what: str, step: StepShapes, arrays: list[Array], analysis: Any = None) -> str:
    """The message for a training step. what: a description of the program. arrays: the program's arguments."""
    message = str(error)
    limit, use = device_limit(message)
    base = estimate(step)
    largest = sorted([*arrays[:_LARGEST], *activation_arrays(step)[:_LARGEST]], key=lambda array: -array.bytes)
    lines = [
        f'out of memory: {what}',
        f'  XLA: {summary(error)}',
        f'  needed on a device, by arithmetic: {size(base.total)}: {base.text()}',
        *([f'  needed on a device, by the compiler: {compiled_line(analysis)}'] if analysis else []),
        *([f'  the device: {use}'] if use else [f'  the device has {size(limit)}'] if limit else []),
        *block('largest arrays (bytes on one device)', largest),
        *block('largest buffers of the program, by the compiler', buffers_in(message)[:_LARGEST]),
        *block('settings that need less memory', option_lines(step, base, limit)),
    ]
    return '\n'.join(lines)


@contextmanager
def explained(what: str, tree: Any, advice: Sequence[str]) -> Iterator[None]:
    """A context that raises OutOfMemory instead of XLA's error.

    what: a description of the work. tree: the arrays of the work. advice: settings that make them smaller.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        _, use = device_limit(str(error))
        arrays, others = named_arrays(tree), other_arrays(jax.tree.leaves(tree))
        total, rest = sum(a.bytes for a in arrays), sum(a.bytes for a in others)
        lines = [
            f'out of memory: {what}',
            f'  XLA: {summary(error)}',
            *([f'  the device: {use}'] if use else []),
            *block(f'largest of its arrays ({size(total)} on one device)', arrays[:_LARGEST]),
            *(block(f'other arrays there ({size(rest)})', others[:_LARGEST]) if rest > total / 10 else []),
            *block('largest buffers of the program, by the compiler', buffers_in(str(error))[:_LARGEST]),
            *block('settings that need less memory', advice),
        ]
        raise OutOfMemory('\n'.join(lines)) from error
