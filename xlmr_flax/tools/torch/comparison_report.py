"""Writes a comparison as compare.md, compare.json and a self-contained HTML page with the curves of both sides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from xlmr_flax.analysis.against import as_json
from xlmr_flax.analysis.paired import Pairing
from xlmr_flax.report.html_table import Notes, html_table
from xlmr_flax.report.page_style import document
from xlmr_flax.report.plots.canvas import inline, svg
from xlmr_flax.report.plots.curves import training_curves
from xlmr_flax.report.study import metric_name
from xlmr_flax.report.table import Column, Line, Table
from xlmr_flax.util.files import write_atomically

SIDES = ('JAX', 'PyTorch')
FIRST = 50  # number of first steps whose losses are compared separately
# No speed is given for a shorter training run: its median is over few steps, and one pause of the machine changes it.
LEAST_STEPS, LEAST_SECONDS = 50, 30.0
MOST = 12  # largest number of figures on a page


@dataclass(frozen=True)
class Curve:
    """One training run on both sides.

    losses: for each side, step (from 1) -> mean training loss since our previous logged step. speeds: median examples/s
    without the first record; None if a side's training was short.
    """

    run: str
    losses: tuple[Mapping[int, float], Mapping[int, float]]
    speeds: tuple[float | None, float | None]

    def apart(self, first: int = 0) -> tuple[float, int]:
        """(largest difference of the losses, its step), over the first `first` steps (0 = all)."""
        ours, theirs = self.losses
        both = [step for step in ours if step in theirs and (not first or step <= first)]
        return max(((abs(ours[step] - theirs[step]), step) for step in both), default=(0.0, 0))


@dataclass(frozen=True)
class Comparison:
    """The data of a comparison.

    pairings: (arm, scores of both sides). seconds: training and evaluation of each side. sources: git commits
    (experiment/workdir/git_version.py).
    """

    title: str
    command: str
    curves: tuple[Curve, ...]
    pairings: tuple[tuple[str, Pairing], ...]
    seconds: tuple[float, float]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    date: str = ''
    sources: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """Command, date, commits and versions, for the head of a page."""
        known = {
            'Command': self.command,
            'Date': self.date,
            'Source': ', '.join(f'commit {source}' for source in self.sources),
            'Versions': ', '.join(f'{name} {version}' for name, version in self.versions.items()),
        }
        return {name: text for name, text in known.items() if text}


def tables(comparison: Comparison) -> list[Table]:
    """Tables of a comparison: mean scores, losses and speeds, then scores by language."""
    shown = [_summary(comparison)] if comparison.pairings else []
    shown.append(_training_table(comparison))
    for arm, pairing in comparison.pairings:
        title = f'{pairing.target}, {pairing.metric.replace("_", " ")} ({pairing.split}), intermediate: {arm}'
        shown.append(pairing.table(*SIDES, title))
    return shown


def _summary(comparison: Comparison) -> Table:
    columns = (
        Column('target'), Column('intermediate'), Column('metric'), Column('languages', 'count'),
        *(Column(side, 'score', 'mean', decimals=2) for side in SIDES),
        Column('difference', 'delta', 'mean', decimals=2),
        Column('largest Δ', 'score', 'single languages', decimals=2),
        Column('lowest p', 'score', 'single languages', decimals=4),
    )  # fmt: skip
    lines = []
    for arm, pairing in comparison.pairings:
        mean = pairing.means[0]
        largest = max(100 * abs(each.change.difference) for each in pairing.languages)
        lowest = min(each.p_holm for each in pairing.languages if each.p_holm is not None)
        about = (pairing.target, arm, metric_name(pairing.metric), len(pairing.languages))
        lines.append(Line((*about, mean.first, mean.second, 100 * mean.change.difference, largest, lowest)))
    note = (
        f'Scores in %; mean: over all languages of a target, its difference {SIDES[0]} - {SIDES[1]} in points; single '
        'languages: the largest difference without its sign, and the lowest p, corrected over the languages (Holm).'
    )
    return Table('Summary', columns, tuple(lines), (note,))


def _training_table(comparison: Comparison) -> Table:
    timed = any(None not in curve.speeds for curve in comparison.curves)
    columns = (
        Column('run'),
        Column('steps', 'count'),
        Column(f'steps 1–{FIRST}', 'score', 'largest difference of the losses,'),
        Column('all steps', 'score', 'largest difference of the losses,'),
        *(Column(side, 'score', 'examples/s', decimals=1) for side in SIDES if timed),
    )
    lines = []
    for c in comparison.curves:
        apart = f'{c.apart(FIRST)[0]:.1e}', f'{c.apart()[0]:.1e}'
        lines.append(Line((c.run, max(c.losses[0], default=0), *apart, *(c.speeds if timed else ()))))
    took = ', '.join(f'{side} {seconds:.0f} s' for side, seconds in zip(SIDES, comparison.seconds, strict=True))
    notes = [f'Training and evaluation in all: {took} (compilation included), one side after the other.']
    if timed:
        notes.append(f'examples/s: median of the steps, of trainings of {LEAST_STEPS} steps and {LEAST_SECONDS:.0f} s.')
    notes.append('Speed: measure with: xlmr-flax bench train')
    return Table('Training', columns, tuple(lines), (*notes, *comparison.notes))


def to_json(comparison: Comparison) -> str:
    """All numbers of a comparison as JSON."""
    return json.dumps(
        {
            'title': comparison.title, 'command': comparison.command, 'versions': dict(comparison.versions),
            'date': comparison.date, 'sources': comparison.sources,
            'seconds': dict(zip(SIDES, comparison.seconds, strict=True)),
            'curves': [
                {'run': c.run, 'losses': dict(zip(SIDES, c.losses, strict=True)), 'examples_per_s': c.speeds}
                for c in comparison.curves
            ],
            'pairings': [as_json(pairing) | {'intermediate': arm} for arm, pairing in comparison.pairings],
        },
        indent=1,
    ) + '\n'  # fmt: skip


def report(comparison: Comparison, folder: Path) -> Path:
    """Writes compare.md, compare.json, index.html and figures/; returns the page's path."""
    drawn = figures(comparison)
    for name, drawing in drawn.items():
        write_atomically(folder / 'figures' / f'{name}.svg', drawing)
    lines = [f'# {comparison.title}', '', *(f'- {name}: `{text}`' for name, text in comparison.facts().items()), '']
    lines += [table.markdown() for table in tables(comparison)]
    lines += [f'![Training losses of {name}](figures/{name}.svg)\n' for name in drawn]
    write_atomically(folder / 'compare.md', '\n'.join(lines))
    write_atomically(folder / 'compare.json', to_json(comparison))
    write_atomically(folder / 'index.html', page(comparison, tables(comparison), drawn))
    return folder / 'index.html'


def figures(comparison: Comparison) -> dict[str, str]:
    """{run: SVG of its training losses on both sides}, for the first `MOST` runs."""
    drawn = {}
    for curve in comparison.curves[:MOST]:
        points = [
            {'run': side, 'intermediate': side, 'step': step, 'loss': loss}
            for side, losses in zip(SIDES, curve.losses, strict=True)
            for step, loss in losses.items()
        ]
        figure = training_curves(points, curve.run, order=SIDES)
        if figure is not None:
            drawn[curve.run] = svg(figure, f'Training losses of {curve.run} in {SIDES[0]} and {SIDES[1]}')
    return drawn


def page(comparison: Comparison, shown: Sequence[Table], drawn: Mapping[str, str]) -> str:
    """The HTML page as text."""
    notes = Notes()
    facts = ''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in comparison.facts().items())
    by_language = len(comparison.pairings)
    sections = [html_table(table, notes) for table in shown[: len(shown) - by_language]]
    sections.append('<h2>Training losses</h2>')
    for number, (name, drawing) in enumerate(drawn.items()):
        caption = f"Training loss by step of {escape(name)}; where the two agree, PyTorch's dashes lie on JAX's line."
        sections.append(
            f'<figure><div class="scroll" tabindex="0" role="region" aria-label="Training losses of {escape(name)}">'
            f'{inline(drawing, f"c{number}-")}</div><figcaption>{caption}</figcaption></figure>'
        )
    if len(comparison.curves) > len(drawn):
        sections.append(f'<p>{len(comparison.curves) - len(drawn)} more runs are in compare.json.</p>')
    if by_language:
        sections.append('<h2>Scores by language</h2>')
        sections += [html_table(table, notes) for table in shown[len(shown) - by_language :]]
    body = '\n'.join(sections)
    lead = f"""<p class="lead">The same starting weights, batches, recipe and scorers; model, gradients, optimizer and
dropout are this package's on one side, and those of transformers and torch on the other.</p>
<dl class="facts">{facts}</dl>"""
    return notes.numbered(document(comparison.title, lead, body))
