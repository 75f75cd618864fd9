"""A bench's outcome as Markdown."""

from __future__ import annotations

from statistics import median

from xlmr_flax.bench.timing import Measured, Outcome

QUIET = 0.08  # of a core, by other processes: more than that moves a median


def _others(measured: Measured) -> float | None:
    known = [value for value in measured.others if value is not None]
    return median(known) if known else None


def to_markdown(outcome: Outcome) -> str:
    """A table with one line a contestant, and what must be known to read it."""
    rounds = max(len(m.seconds) for m in outcome.measured.values())
    lines = [
        f'# {outcome.title}',
        '',
        f'Medians of {rounds} round(s); in each round every contestant ran once, in turn, in a process of its own, on '
        f'{outcome.threads}. The ratio is our time over theirs in the same round: median (lowest to highest); below 1 '
        'ours is faster.',
        '',
        '| | seconds | spread | CPU seconds | ours / theirs | peak MiB | before the first run, MiB | first run, s |',
        '|---|---:|---:|---:|---:|---:|---:|---:|',
    ]
    for name, found in outcome.measured.items():
        ratio = outcome.ratios.get(name)
        lines.append(
            f'| {name} | {median(found.seconds):.3f} | {min(found.seconds):.3f} to {max(found.seconds):.3f} '
            f'| {median(found.cpu_seconds):.3f} '
            f'| {f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else ""} '
            f'| {found.memory / 2**20:.0f} | {found.loaded / 2**20:.0f} | {found.first:.3f} |'
        )
    lines += ['', outcome.agreement]
    lines += [f'Left out: {name}: {why}.' for name, why in outcome.left_out.items()]
    known = {name: value for name, m in outcome.measured.items() if (value := _others(m)) is not None}
    if not known:
        lines.append('How busy other processes kept the machine is not told by this system.')
    elif max(known.values()) > QUIET:
        busy = ', '.join(f'{name} {value:.2f}' for name, value in known.items())
        lines.append(
            f'**The machine was not quiet**: cores that other processes kept busy meanwhile (median): {busy}. '
            'Implementations suffer differently from that; measure again before relying on a ratio.'
        )
    else:
        lines.append(
            f'The machine was quiet: other processes used at most {max(known.values()):.2f} of a core (median).'
        )
    lines += ['', '; '.join(f'{key} {value}' for key, value in outcome.machine.items() if value), '']
    return '\n'.join(lines)
