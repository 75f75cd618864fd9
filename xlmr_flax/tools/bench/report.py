"""Writes the outcome of a benchmark as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from xlmr_flax.tools.bench.timing import QUIET, Measured, Outcome, quiet_rounds

SHORTEST = 1.0  # seconds: no ratio is given for shorter rounds, where noise decides
TRIAL = 'trial only'


def _others(measured: Measured) -> float | None:
    known = [value for value in measured.others if value is not None]
    return median(known) if known else None


def to_markdown(outcome: Outcome) -> str:
    """The report: a table with one row for each implementation, and notes on how to read it."""
    head, lines = (_rates if outcome.unit else _times)(outcome)
    rule = '|'.join(['', '---', *('---:' for _ in head[1:]), ''])
    text = [f'# {outcome.title}', '', _quietness(outcome), '', _what(outcome), '', f'| {" | ".join(head)} |', rule]
    text += [f'| {" | ".join(line)} |' for line in lines]
    text += ['', *(f'- {note}' for note in _footnotes(outcome)), '', outcome.agreement]
    text += [f'Left out: {name}: {why}.' for name, why in outcome.left_out.items()]
    if outcome.settings:
        text.append('Set for every implementation: ' + ', '.join(f'{k}={v}' for k, v in outcome.settings.items()) + '.')
    text += ['', '; '.join(f'{key} {value}' for key, value in outcome.machine.items() if value), '']
    return '\n'.join(text)


def _footnotes(outcome: Outcome) -> list[str]:
    """Notes below the table: rounds too short for a ratio, different shares of the rows, the first run."""
    notes = []
    short = [name for name in outcome.measured if _block(outcome, name) < SHORTEST]
    if short:
        blocks = ', '.join(f'{name} {_block(outcome, name):.2f} s' for name in short)
        notes.append(
            f'{TRIAL}: no ratio where the median round of either side is shorter than {SHORTEST:g} s ({blocks}); give '
            'more --rows.'
        )
    units = {name: median(_counted(outcome, [f['units'] for f in m.facts])) for name, m in outcome.measured.items()
             if outcome.unit}  # fmt: skip
    if len(set(units.values())) > 1:
        notes.append(
            f'{outcome.unit} a round: slower implementations have a share of the rows in each round, so that a round '
            'takes none of them much longer than the others; the speeds can be compared all the same.'
        )
    notes.append('First run: before the timed ones, and in none of them; it includes compilation (ours: by XLA).')
    return notes


def _block(outcome: Outcome, name: str) -> float:
    """Median seconds of a round."""
    return median(_counted(outcome, outcome.measured[name].seconds))


def _what(outcome: Outcome) -> str:
    rounds = max(len(m.seconds) for m in outcome.measured.values())
    counted = len(outcome.rounds) or rounds
    text = f'Medians of {rounds} round(s)'
    text += f', of which the {counted} quiet ones count' if counted < rounds else ''
    text += f'; in each round every implementation ran once, in turn, in a process of its own, on {outcome.threads}. '
    if outcome.unit:
        return text + (
            'The ratio is our speed over theirs: of the medians (lowest to highest of a round); above 1 ours is faster.'
        )
    return text + (
        'The ratio is our time over theirs in the same round: median (lowest to highest); below 1 ours is faster.'
    )


def _times(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    head = ['', 'seconds', 'spread', 'CPU seconds', 'ours / theirs', 'peak MiB', 'before the first run, MiB']
    lines = []
    for name, measured in outcome.measured.items():
        seconds, cpu = _counted(outcome, measured.seconds), _counted(outcome, measured.cpu_seconds)
        lines.append([
            name,
            f'{median(seconds):.3f}',
            f'{min(seconds):.3f} to {max(seconds):.3f}',
            f'{median(cpu):.3f}',
            _ratio(outcome, name),
            f'{measured.memory / 2**20:.0f}',
            f'{measured.loaded / 2**20:.0f}',
            f'{measured.first:.3f}',
        ])  # fmt: skip
    return [*head, 'first run, s'], lines


def _rates(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """Table of speeds; on an accelerator also its peak memory and the model FLOPs utilisation (MFU)."""
    head = ['', f'{outcome.unit}/s', 'spread', 'ours / theirs', f'{outcome.unit} a round', 'CPU s a round', 'peak MiB']
    columns: list[tuple[str, Callable[[Measured], str]]] = [('first run, s', lambda m: f'{m.first:.1f}')]
    if any('device_memory' in fact for m in outcome.measured.values() for fact in m.facts):
        columns.append(('device peak MiB', lambda m: f'{m.facts[-1].get("device_memory", 0) / 2**20:.0f}'))
    if outcome.peak_flops:
        columns.append(('MFU', lambda m: _utilisation(outcome, m)))
    lines = []
    for name, found in outcome.measured.items():
        rates = found.rates(outcome.rounds or range(len(found.seconds)))
        lines.append([
            name,
            f'{median(rates):.1f}',
            f'{min(rates):.1f} to {max(rates):.1f}',
            _ratio(outcome, name),
            f'{median(_counted(outcome, [fact["units"] for fact in found.facts])):.0f}',
            f'{median(_counted(outcome, found.cpu_seconds)):.1f}',
            f'{found.memory / 2**20:.0f}',
            *(cell(found) for _, cell in columns),
        ])  # fmt: skip
    return [*head, *(name for name, _ in columns)], lines


def _counted(outcome: Outcome, values: list[float]) -> list[float]:
    return [values[i] for i in outcome.rounds] if outcome.rounds else values


def _ratio(outcome: Outcome, name: str) -> str:
    found = outcome.ratios.get(name)
    if found and min(_block(outcome, next(iter(outcome.measured))), _block(outcome, name)) < SHORTEST:
        return TRIAL
    return f'{found.median:.2f} ({found.low:.2f} to {found.high:.2f})' if found else ''


def _utilisation(outcome: Outcome, measured: Measured) -> str:
    """Model FLOPs utilisation in percent: FLOP/s of the real tokens (no padding) over the accelerator's peak FLOP/s."""
    each = [fact['flops'] / s for fact, s in zip(measured.facts, measured.seconds, strict=True) if fact.get('flops')]
    return f'{100 * median(_counted(outcome, each)) / outcome.peak_flops:.1f} %' if each else ''


def _quietness(outcome: Outcome) -> str:
    known = {name: value for name, m in outcome.measured.items() if (value := _others(m)) is not None}
    if not known:
        return 'This system does not report the load of other processes.'
    if max(known.values()) <= QUIET:
        return f'The machine was quiet: other processes used at most {max(known.values()):.2f} of a core (median).'
    busy = ', '.join(f'{name} {value:.2f}' for name, value in known.items())
    rounds = max(len(m.seconds) for m in outcome.measured.values())
    quiet = [i + 1 for i in quiet_rounds(outcome.measured)]
    return (
        f'**The machine was not quiet**: cores that other processes kept busy meanwhile (median): {busy}; quiet '
        f'rounds: {", ".join(map(str, quiet)) or "none"} of {rounds}. Implementations suffer differently from that '
        '(torch more than XLA); measure again before relying on a ratio.'
    )
