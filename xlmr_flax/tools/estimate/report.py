"""Writes estimates as text tables and as JSON."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Sequence
from typing import Any

from xlmr_flax.parallel.chips import GIB
from xlmr_flax.tools.estimate import cost
from xlmr_flax.tools.estimate.chips import Topology
from xlmr_flax.tools.estimate.cost import Operation
from xlmr_flax.tools.estimate.plan import EVALUATION, PlanEstimate, Row
from xlmr_flax.tools.estimate.programs import Compiled

LARGEST = 12  # number of operations that are listed; the others are small
_SHOWN = 0.005  # share of the cycles below which a part of the model is not listed

METHOD = """How to read it. Cycles are the compiler's own estimates of the operations in its schedule, added up: a model
of the chip, not a measurement. ideal: the model's floating-point operations (without recomputation) at the chips'
bfloat16 peak. estimated: cycles / clock; this assumes that every collective overlaps with operations. with collectives:
the same if none does, at the speed of all links of a chip. The time of a step lies between the two. * costed by a
roofline: the compiler estimates no cycles for it."""
METHOD_GPU = """How to read it. XLA has no cycles for a GPU: each operation takes the longest of its bytes at the speed
of the memory, its products at peak FLOP/s and its elementwise operations at the rate of the lanes, a lower bound of
its time. ideal: the model's floating-point operations (without recomputation) at the GPUs' bfloat16 peak. estimated:
the sum over operations, every collective hidden; with collectives: none hidden, at the speed of NVLink."""


def method(topologies: Sequence[Topology]) -> str:
    """How to read the estimates for these slices and GPUs."""
    kinds = {t.chip.is_gpu for t in topologies}
    return '\n\n'.join(text for is_gpu, text in ((False, METHOD), (True, METHOD_GPU)) if is_gpu in kinds)


def columns(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """Formats rows as text columns; the first row is the head. right: indices of right-aligned columns (numbers)."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for i, row in enumerate(rows):
        cells = [c.rjust(w) if j in right else c.ljust(w) for j, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append('  '.join(cells).rstrip())
        if i == 0:
            lines.append('  '.join('-' * w for w in widths))
    return '\n'.join(lines)


def number(value: float) -> str:
    """Formats a number with at least three significant digits; '-' for NaN."""
    if math.isnan(value):
        return '-'
    power = math.floor(math.log10(abs(value))) if value else 0
    return f'{value:,.{min(max(0, 2 - power), 6)}f}'


def programs_table(compiled: Sequence[Compiled], seconds: Sequence[float] = ()) -> str:
    """Table with one row for each program. seconds: time that a plan spends in each program, () = unknown."""
    rows = [
        ['program', 'on', 'peak GiB', 'of', 'TFLOP', 'ideal ms', 'estimated ms', 'with collectives', 'ideal/estimated']
    ]
    rows[0] += ['hours'] * bool(seconds)
    for i, c in enumerate(compiled):
        row = [c.program.name, c.topology.name, number(c.memory.peak / GIB), number(c.memory.hbm / GIB)]
        row += [number(c.program.flops / 1e12), number(1e3 * c.ideal), number(1e3 * c.seconds)]
        row += [number(1e3 * c.slowest), number(c.ideal / c.seconds) if c.cost else 'DOES NOT FIT']
        rows.append([*row, number(seconds[i] / 3600)] if seconds else row)
    return columns(rows, range(2, len(rows[0])))


def program_text(c: Compiled) -> str:
    """Report of one program: memory, time, kinds of operations, parts of the model, collectives."""
    mesh = ' '.join(f'{axis} {n}' for axis, n in c.mesh.items())
    model = c.program.model
    head = (
        f'{c.program.name} on {c.topology.name}: {c.topology.chips} chips, mesh {mesh}, {model.dtype}'
        f'{", layers recomputed" if model.remat == "full" else ""}, {model.config.num_layers} layers of '
        f'{model.config.hidden_size}, {model.config.vocab_size:,} word rows; compiled in {c.compile_seconds:.0f} s'
    )
    parts = [head, _memory_text(c)]
    if c.cost is None:
        return '\n\n'.join([*parts, f'Does not fit. The compiler: {c.error}'])
    clock, (own_ideal, own) = c.topology.chip.clock, c.unmarked
    times = (
        f'time of a step: ideal {number(1e3 * c.ideal)} ms ({c.program.flops / 1e12:,.2f} TFLOP over the chips), '
        f'estimated {number(1e3 * c.seconds)} ms (ratio {c.ideal / c.seconds:.2f}), with collectives '
        f'{number(1e3 * c.slowest)} ms (ratio {c.ideal / c.slowest:.2f})'
    )
    if c.topology.chip.is_gpu:
        parts += [times, _traffic_text(c.cost)]
    else:
        parts.append(
            f'{times}; without what is costed by a roofline: ideal {number(1e3 * own_ideal)} ms, estimated '
            f'{number(1e3 * own)} ms (ratio {own_ideal / own:.2f})'
        )
    parts.append(_groups_text(c.cost, clock))
    parts.append(_collectives_text(c))
    parts.append(_largest_text(c.cost, clock))
    if c.cost.loops_unknown:
        parts.append(f'{c.cost.loops_unknown} loop(s) of unknown length were counted once: the estimate is too low.')
    return '\n\n'.join(parts)


def _memory_text(c: Compiled) -> str:
    m = c.memory
    named = {
        'parameters': m.parameters,
        'optimizer': m.optimizer,
        'batch, padding': m.inputs,
        'activations, gradients': m.temporary,
        'program': m.code,
        'peak': m.peak,
        'HBM': m.hbm,
    }
    rows = [['memory of a chip', 'GiB', 'of HBM']]
    for name, value in named.items():
        rows.append([name, number(value / GIB), '-' if math.isnan(value) else f'{value / m.hbm:.0%}'])
    return columns(rows, (1, 2))


def _groups_text(found: cost.ProgramCost, clock: float) -> str:
    marked = {o.kind for o in found.operations if o.marked and o.cycles > _SHOWN * found.cycles}
    kinds = [['kind of operation', 'ms', 'share']]
    for (kind,), cycles in found.by('kind').items():
        kinds.append([kind + ' *' * (kind in marked), number(1e3 * cycles / clock), f'{cycles / found.cycles:.1%}'])
    parts = [['part of the model', 'pass', 'ms', 'share']]
    for (part, direction), cycles in found.by('part', 'direction').items():
        if cycles > _SHOWN * found.cycles:
            parts.append([part, direction, number(1e3 * cycles / clock), f'{cycles / found.cycles:.1%}'])
    note = f'costed by a roofline: {found.marked_cycles / found.cycles:.1%} of the cycles\n' if not found.moved else ''
    return f'{columns(kinds, (1, 2))}\n{note}\n{columns(parts, (2, 3))}'


def _traffic_text(found: cost.ProgramCost) -> str:
    """Bytes moved and custom calls of a program on a GPU."""
    loops = sum(o.moved for o in found.operations if o.times > 1)
    calls = ', '.join(f'{count} x {name}' for name, count in found.calls().items()) or 'none'
    return f'bytes moved: {number(found.moved / 1e9)} GB, {number(loops / 1e9)} of them in loops\ncustom calls: {calls}'


def _collectives_text(c: Compiled) -> str:
    assert c.cost is not None
    rows = [['collective', 'chips', 'count', 'MB', 'sent by a chip, MB', 'ms at least']]
    for item in c.cost.collectives:
        milliseconds = 1e3 * item.sent / c.topology.chip.link_speed
        group = str(item.group) if item.group else '-'
        cells = [item.kind, group, f'{item.count:,}', number(item.bytes / 1e6), number(item.sent / 1e6)]
        rows.append([*cells, number(milliseconds)])
    return columns(rows, range(1, 6)) if len(rows) > 1 else 'no collectives'


def _largest_text(found: cost.ProgramCost, clock: float) -> str:
    rows = [['largest operations', 'kind', 'pass', 'ms', 'share', 'times', 'source', 'result']]
    for o in found.largest(LARGEST):
        shape = o.shape.strip('(').split('{')[0]
        cells = [o.name + ' *' * o.marked, o.kind, o.direction, number(1e3 * o.cycles / clock)]
        rows.append([*cells, f'{o.cycles / found.cycles:.1%}', str(o.times), _where(o), shape])
    return columns(rows, (3, 4, 5))


def _where(o: Operation) -> str:
    return f'{o.source} {o.part}' if o.source else '(compiler)'


def plan_table(estimates: Sequence[PlanEstimate]) -> str:
    """Table of hours and chip-hours by phase and in total, for every slice.

    Each cell has two numbers: the time if all collectives overlap with operations, and if none does.
    """
    first = estimates[0]
    rows = [['phase', 'of', 'runs', 'steps', *(cell for e in estimates for cell in _heads(e))]]
    lines: list[tuple[Row, list[Row]]] = [(row, [e.rows[i] for e in estimates]) for i, row in enumerate(first.rows)]
    phases = list(dict.fromkeys(row.phase for row in first.rows))
    for phase in (*phases, ''):
        if phase:
            for row, each in lines:
                if row.phase == phase:
                    rows.append(_cells(row, row.what, each, estimates))
        if not phase or len([row for row in first.rows if row.phase == phase]) > 1:
            rows.append(_cells(first.total(phase), 'all', [e.total(phase) for e in estimates], estimates))
    return columns(rows, range(2, len(rows[0])))


def _heads(e: PlanEstimate) -> list[str]:
    return [f'hours on {e.topology.name}', f'chip-hours ({e.topology.chips} chips)']


def _cells(row: Row, what: str, each: Sequence[Row], estimates: Sequence[PlanEstimate]) -> list[str]:
    is_total = row.phase == 'total'
    cells = [row.phase, what, '' if is_total else str(row.runs), '' if row.phase == EVALUATION else f'{row.steps:,.0f}']
    for e, mine in zip(estimates, each, strict=True):
        for factor in (1, e.topology.chips):
            low, high = (factor * value / 3600 for value in (mine.seconds, mine.slowest))
            cells.append('-' if math.isnan(low) else f'{number(low)} to {number(high)}')
    return cells


def plan_text(estimates: Sequence[PlanEstimate], *, every: bool) -> str:
    """Report of a plan: its table, its programs, and details of the most expensive program (every: of all programs)."""
    parts = [plan_table(estimates)]
    for e in estimates:
        parts.append('\n'.join([e.defaults.line(), *e.remarks]))
        if e.refused:
            parts.append('\n'.join([f'Not possible on {e.topology.name}:', *(f'  {text}' for text in e.refused)]))
        parts.append(programs_table([c for c, _ in e.programs], [s for _, s in e.programs]))
        known = [(s, c) for c, s in e.programs if c.cost]
        if every:
            parts += [program_text(c) for c, _ in e.programs]
        elif known:
            parts.append(program_text(max(known, key=lambda item: item[0])[1]))
    model = estimates[0].programs[0][0].program.model if estimates[0].programs else None
    if model and model.dtype == 'float32':
        parts.append('Computed in float32: --config.encoder.dtype=bfloat16 is what the chips are made for.')
    notes = """Hours: from every collective hidden to none. Padded lengths are those of experiment/plan/cost.py (see run
--dry_run). Reading, tokenizing, compiling, writing and scoring on the host are not in them."""
    return '\n\n'.join([*parts, notes, method([e.topology for e in estimates])])


def compiled_dict(c: Compiled) -> dict[str, Any]:
    """A compiled program's numbers as JSON values."""
    p = c.program
    return {
        'program': p.name,
        'does': p.does,
        'head': p.head.kind,
        'rows': p.rows,
        'length': p.length,
        'accumulation': p.accumulation,
        'model': dataclasses.asdict(p.model),
        'topology': c.topology.name,
        'chips': c.topology.chips,
        'mesh': dict(c.mesh),
        **_compiler(c.topology),
        'jax': _version('jax'),
        'memory': {k: None if math.isnan(v) else v for k, v in dataclasses.asdict(c.memory).items()},
        'fits': c.cost is not None,
        'error': c.error,
        'flops': p.flops,
        'ideal_seconds': c.ideal,
        'estimated_seconds': c.seconds if c.cost else None,
        'collective_seconds': c.collective_seconds if c.cost else None,
        'ratio': c.ideal / c.seconds if c.cost else None,
        'ratio_with_collectives': c.ideal / c.slowest if c.cost else None,
        'ratio_unmarked': c.unmarked[0] / c.unmarked[1] if c.cost else None,
        'compile_seconds': c.compile_seconds,
        'cost': cost.to_dict(c.cost, LARGEST) if c.cost else None,
    }


def plan_dict(e: PlanEstimate) -> dict[str, Any]:
    """A plan's estimate as JSON values.

    hours: all collectives overlap with operations; hours_with_collectives: none does; None if a program cannot run.
    """

    def row(r: Row) -> dict[str, Any]:
        def hours(seconds: float) -> float | None:
            return None if math.isnan(seconds) else seconds / 3600

        chips, low, high = e.topology.chips, hours(r.seconds), hours(r.slowest)
        return {
            'phase': r.phase,
            'of': r.what,
            'runs': r.runs,
            'steps': r.steps,
            'hours': low,
            'hours_with_collectives': high,
            'chip_hours': None if low is None else chips * low,
            'chip_hours_with_collectives': None if high is None else chips * high,
        }

    return {
        'topology': e.topology.name,
        'chips': e.topology.chips,
        'phases': [row(r) for r in e.rows],
        'total': row(e.total()),
        'refused': list(e.refused),
        'defaults': e.defaults.as_json() | {'line': e.defaults.line()},
        'remarks': list(e.remarks),
        'programs': [{**compiled_dict(c), 'hours': None if math.isnan(s) else s / 3600} for c, s in e.programs],
    }


def _compiler(topology: Topology) -> dict[str, str]:
    """The version of the compiler that made a program."""
    if topology.chip.is_gpu:
        found = {f'jax-cuda{n}-plugin': _version(f'jax-cuda{n}-plugin') for n in (12, 13)}
        return {name: version for name, version in found.items() if version != 'not installed'}
    return {'libtpu': _version('libtpu')}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return 'not installed'
