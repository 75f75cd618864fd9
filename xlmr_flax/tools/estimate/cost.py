"""Cost of a compiled program on a chip: the compiler's estimated cycles, by kind of operation and by part of the model.

A TPU core runs the operations of the schedule one after another. Their `estimated_cycles` are added up; those of a
loop's body are multiplied by its trip count. An operation without an estimate is costed by a roofline and marked:

- kernels (Pallas): the larger of compute time and bytes / HBM bandwidth, from the kernel's CostEstimate, or without one
  from the bytes of its operands and results alone. Compute time is the matrix products at peak FLOP/s plus the
  elementwise operations at the peak of the vector units; the two do not overlap. The counts are `vector_ops` in the
  kernel's metadata, and `integer_products`, those that some chips compute with several instructions;
- gathers, scatters and copies that the compiler does not estimate: bytes / HBM bandwidth.

Asynchronous copies overlap with the operations and are not counted. Collectives have no estimate. They are listed with
the smallest number of bytes that a chip must send over all its links, and are counted separately: some of them overlap
with operations and some do not, so a step takes between the sum without and the sum with the collectives.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xlmr_flax.parallel.chips import Chip
from xlmr_flax.tools.estimate.describe import KERNEL, described, direction, kind_of_operation
from xlmr_flax.tools.estimate.hlo import Computation, Instruction, Module, shape_parts

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute', 'collective-broadcast')
# Opcodes that cost nothing, that overlap with other operations, or that are counted separately.
_FREE = frozenset(
    {'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'iota', 'partition-id', 'replica-id'}
)
_BESIDE = frozenset(f'{name}-{end}' for name in ('copy', 'slice', 'async', 'send', 'recv') for end in ('start', 'done'))
NOT_COSTED = _FREE | _BESIDE | {'after-all', 'opt-barrier', 'broadcast', 'infeed', 'outfeed', 'domain'}
_SMALL = 4096  # bytes; smaller operations without an estimate are ignored


@dataclass(frozen=True)
class Operation:
    """One operation of the schedule. cycles: on one chip, over all its `times` runs. marked: costed by a roofline.
    moved: bytes of all runs, and target of a custom call: on a GPU (gpu_cost.py)."""

    name: str
    kind: str
    direction: str
    part: str
    source: str
    op_name: str
    shape: str
    cycles: float
    times: int
    marked: bool
    moved: float = 0.0
    target: str = ''


@dataclass(frozen=True)
class Collective:
    """Sum over the collectives of a program with the same kind and group size. bytes: payload, the whole arrays that
    are gathered, reduced or exchanged. sent: bytes that a chip sends at least."""

    kind: str
    group: int
    count: int
    bytes: float
    sent: float


@dataclass(frozen=True)
class ProgramCost:
    """Cost of a program on one chip. operations: in the order of the schedule. loops_unknown: number of loops that are
    counted once because the text does not have their trip count."""

    operations: tuple[Operation, ...]
    collectives: tuple[Collective, ...]
    loops_unknown: int

    @property
    def cycles(self) -> float:
        return sum(o.cycles for o in self.operations)

    @property
    def marked_cycles(self) -> float:
        return sum(o.cycles for o in self.operations if o.marked)

    @property
    def moved(self) -> float:
        return sum(o.moved for o in self.operations)

    @property
    def sent(self) -> float:
        return sum(c.sent for c in self.collectives)

    def by(self, *fields: str) -> dict[tuple[str, ...], float]:
        """Cycles grouped by these fields of an operation, the largest group first."""
        sums: dict[tuple[str, ...], float] = {}
        for o in self.operations:
            key = tuple(getattr(o, name) for name in fields)
            sums[key] = sums.get(key, 0.0) + o.cycles
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def calls(self) -> dict[str, int]:
        """How often each target of a custom call runs, on a GPU."""
        counts: dict[str, int] = {}
        for o in self.operations:
            if o.target:
                counts[o.target] = counts.get(o.target, 0) + o.times
        return counts

    def largest(self, n: int) -> list[Operation]:
        return sorted(self.operations, key=lambda o: -o.cycles)[:n]


# (module, instruction, runs, operands, chip) -> its cost; None = it has none, or is counted separately.
OperationCost = Callable[[Module, Instruction, int, list[Instruction], Chip], Operation | None]


def program_cost(module: Module, chip: Chip, operation_cost: OperationCost | None = None) -> ProgramCost:
    """Cost of a compiled program on one chip. operation_cost: None = that of a TPU's operations."""
    walk, cost_of = Walk(module), operation_cost or _operation
    operations = []
    for instruction, times, operands in walk.schedule(module.entry, 1):
        if operation := cost_of(module, instruction, times, operands, chip):
            operations.append(operation)
    return ProgramCost(tuple(operations), tuple(walk.collected()), walk.loops_unknown)


class Walk:
    """Walks the schedule of a program: the entry computation, and the bodies of its loops and calls."""

    def __init__(self, module: Module):
        self.module = module
        self.loops_unknown = 0
        self._seen: dict[tuple[str, str], tuple[str, int, float, float, int]] = {}

    def schedule(self, computation: str, times: int) -> Iterator[tuple[Instruction, int, list[Instruction]]]:
        """Yields (instruction, how often it runs, its operands)."""
        scope = self.module.computations[computation]
        for instruction in scope.values():
            if instruction.opcode == 'while':
                trips = trip_count(self.module, instruction, scope)
                self.loops_unknown += trips is None
                yield from self.schedule(instruction.attribute('body'), times * (trips or 1))
            elif (
                instruction.opcode in ('call', 'async-start')
                and (to := _called(instruction)) in self.module.computations
            ):
                yield from self.schedule(to, times)
            elif instruction.opcode == 'conditional':  # counts every branch, though one is taken: an upper bound
                named = re.findall(r'%([\w.\-]+)', instruction.rest.split('metadata=')[0])
                for name in (n for n in dict.fromkeys(named) if n in self.module.computations):
                    yield from self.schedule(name, times)
            else:
                self._collect(instruction, times)
                yield instruction, times, [scope[name] for name in instruction.operands if name in scope]

    def _collect(self, instruction: Instruction, times: int) -> None:
        for inner in self.module.within(instruction):
            kind = next((k for k in COLLECTIVES if inner.opcode in (k, f'{k}-start')), '')
            if not kind:
                continue
            channel = re.search(r'channel_id=(\d+)', inner.rest)
            # A collective that overlaps piecewise with other operations appears in each of their fusions.
            key = (kind, channel[1]) if channel and inner is not instruction else (kind, inner.name)
            if key in self._seen:
                continue
            group = group_size(inner.rest)
            called = instruction.attribute('calls')
            if kind == 'all-reduce' and inner is not instruction and 'slice' in self.module.root(called).opcode:
                kind = 'reduce-scatter'
            # The shape of a -start has operand, result and flags; the larger array is the payload.
            size = max(shape_parts(inner.shape)) if inner.opcode.endswith('-start') else inner.bytes
            self._seen[key] = (kind, group, size, _sent(kind, size, group), times)

    def collected(self) -> list[Collective]:
        """Sums of the collectives that the walk has passed, the largest traffic first."""
        sums: dict[tuple[str, int], Collective] = {}
        for kind, group, size, sent, times in self._seen.values():
            old = sums.get((kind, group), Collective(kind, group, 0, 0.0, 0.0))
            sums[kind, group] = Collective(
                kind, group, old.count + times, old.bytes + times * size, old.sent + times * sent
            )
        return sorted(sums.values(), key=lambda c: -c.sent)


def _called(instruction: Instruction) -> str:
    return instruction.attribute('to_apply') or instruction.attribute('calls')


def _sent(kind: str, size: float, group: int) -> float:
    """Smallest number of bytes that a chip sends: ring algorithm with chunks of 1 / group (Thakur et al. 2005)."""
    share = (group - 1) / group if group else 1.0
    if kind == 'all-reduce':
        return 2 * size * share
    return size if kind in ('collective-permute', 'collective-broadcast') else size * share


def group_size(rest: str) -> int:
    """Number of chips in a group of a collective, from its attributes; 0 if they do not have it."""
    if found := re.search(r'replica_groups=\{\{([\d,]+)\}', rest):
        return found[1].count(',') + 1
    if found := re.search(r'replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}', rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(sizes.get(name, 1)) for name in re.findall(r"'(\w+)'", found[2]))
    if found := re.search(r'replica_groups=\[\d+,(\d+)\]<=', rest):
        return int(found[1])
    return 0


def trip_count(module: Module, loop: Instruction, scope: Computation) -> int | None:
    """Trip count of a loop; None if the text does not have it. scope: the computation that contains the loop.

    It is XLA's known_trip_count, or is derived from a condition `counter < constant` with constant start and step."""
    if found := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
        return int(found[1])
    name = loop.attribute('condition')
    if name not in module.computations or loop.attribute('body') not in module.computations:
        return None
    condition = module.computations[name]
    inner = {i.name: i for i in (*condition.values(), *module.within(module.root(name)))}
    compare = next((i for i in inner.values() if i.opcode == 'compare'), None)
    limits = [n for i in inner.values() if i.opcode == 'constant' and (n := _constant(inner, i.name)) is not None]
    counter = next((i for i in condition.values() if i.opcode == 'get-tuple-element'), None)
    place = re.search(r'index=(\d+)', counter.rest) if counter else None
    if compare is None or 'direction=LT' not in compare.rest or len(limits) != 1 or place is None:
        return None
    index, init, body = int(place[1]), scope.get(loop.operands[0]), module.computations[loop.attribute('body')]
    start = _constant(scope, init.operands[index]) if init and index < len(init.operands) else None
    step = _step(body, module.root(loop.attribute('body')), index)
    return None if start is None or not step else max(0, -(-(limits[0] - start) // step))


def _constant(scope: Computation, name: str) -> int | None:
    """Value of a 32-bit integer scalar constant, also through copies; None for anything else."""
    source = scope.get(name)
    while source is not None and source.opcode in ('copy', 'bitcast') and source.operands:
        source = scope.get(source.operands[0])
    if source is None or source.opcode != 'constant' or not source.shape.startswith(('s32[]', 'u32[]')):
        return None
    return int(source.literal) if source.literal.isdigit() else None


def _step(body: Computation, root: Instruction, index: int) -> int | None:
    """Increment of the loop counter at `index` of a loop's state; None if it is not an addition of a constant."""
    grown = body.get(root.operands[index]) if index < len(root.operands) else None
    while grown is not None and grown.opcode in ('copy', 'bitcast') and grown.operands:
        grown = body.get(grown.operands[0])
    if grown is None or grown.opcode != 'add':
        return None
    steps = [n for name in grown.operands if (n := _constant(body, name)) is not None]
    return steps[0] if len(steps) == 1 else None


def _operation(
    module: Module, instruction: Instruction, times: int, operands: list[Instruction], chip: Chip
) -> Operation | None:
    inner = list(module.within(instruction))
    codes = {i.opcode for i in inner}
    is_kernel = instruction.opcode == 'custom-call' and 'custom_call_target="tpu_custom_call"' in instruction.rest
    cycles, marked = instruction.cycles, False
    if cycles is None:
        seconds = _roofline(instruction, codes, operands, is_kernel, chip)
        if not seconds:
            return None
        cycles, marked = seconds * chip.clock, True
    source, part, name = described(module, instruction)
    return Operation(
        instruction.name,
        KERNEL if is_kernel else kind_of_operation(codes),
        direction(name),
        part,
        source,
        name,
        instruction.shape,
        cycles * times,
        times,
        marked,
    )


def _roofline(
    instruction: Instruction,
    codes: set[str],
    operands: list[Instruction],
    is_kernel: bool,
    chip: Chip,
) -> float:
    """Roofline time in seconds of an operation without a compiler's estimate; 0 = negligible."""
    if is_kernel:
        bytes_moved, flops = instruction.bytes + sum(o.bytes for o in operands), 0.0
        if found := re.search(r'"cost_estimate":(\{[^}]*\})', instruction.rest):
            given = {k: float(v) for k, v in json.loads(found[1]).items()}
            bytes_moved, flops = given.get('bytes_accessed') or bytes_moved, given.get('flops', 0.0)
        work = {k: float(v) for k, v in re.findall(r'(vector_ops|integer_products)\W+(\d+)', instruction.rest)}
        operations = work.get('vector_ops', 0.0) + work.get('integer_products', 0.0) * (chip.integer_product - 1)
        elementwise = operations / (chip.vector * chip.clock)
        return max(flops / chip.flops + elementwise, bytes_moved / chip.hbm_speed)
    is_collective = any(code.startswith(COLLECTIVES) for code in codes)
    is_call = 'custom-call' in codes and codes <= _FREE | {'custom-call'}  # buffer allocations, ends of collectives
    is_free = instruction.opcode in NOT_COSTED or is_call
    if is_collective or is_free or instruction.bytes < _SMALL:
        return 0.0
    if 'gather' in codes:  # reads only the gathered rows of the table
        return 2 * instruction.bytes / chip.hbm_speed
    return (instruction.bytes + sum(o.bytes for o in operands)) / chip.hbm_speed


def to_dict(cost: ProgramCost, largest: int) -> dict[str, object]:
    """The cost as JSON values; of the operations only the `largest` most expensive ones."""
    return {
        'cycles': cost.cycles,
        'marked_cycles': cost.marked_cycles,
        'loops_unknown': cost.loops_unknown,
        'bytes_moved': cost.moved,
        'custom_calls': cost.calls(),
        'by_kind': {' / '.join(k): v for k, v in cost.by('kind').items()},
        'by_part': {' / '.join(k): v for k, v in cost.by('part', 'direction').items()},
        'collectives': [dataclasses.asdict(c) for c in cost.collectives],
        'largest': [dataclasses.asdict(o) for o in cost.largest(largest)],
    }
