"""The page of a comparison: curves of both sides, tables, how it was made. It needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from xlmr_flax.report.canvas import inline, svg
from xlmr_flax.report.curves import training_curves
from xlmr_flax.report.html_table import Notes, html_table
from xlmr_flax.report.page_style import CSS
from xlmr_flax.report.table import Table

if TYPE_CHECKING:
    from xlmr_flax.baselines.comparison import Comparison

MOST = 12  # figures on a page


def figures(found: Comparison) -> dict[str, str]:
    """run -> SVG of its training losses on both sides, of the first runs."""
    from xlmr_flax.baselines.comparison import SIDES

    drawn = {}
    for curve in found.curves[:MOST]:
        points = [
            {'run': side, 'intermediate': side, 'step': step, 'loss': loss}
            for side, losses in zip(SIDES, curve.losses, strict=True)
            for step, loss in losses.items()
        ]
        figure = training_curves(points, curve.run, order=SIDES)
        if figure is not None:
            drawn[curve.run] = svg(figure, f'Training losses of {curve.run} in {SIDES[0]} and {SIDES[1]}')
    return drawn


def page(found: Comparison, tables: Sequence[Table], drawn: Mapping[str, str]) -> str:
    """The page as text."""
    notes = Notes()
    facts = ''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in found.facts().items())
    by_language = len(found.pairings)
    sections = [html_table(table, notes) for table in tables[: len(tables) - by_language]]
    sections.append('<h2>Training losses</h2>')
    for number, (name, drawing) in enumerate(drawn.items()):
        said = f"Training loss by step of {escape(name)}; where the two agree, PyTorch's dashes lie on JAX's line."
        sections.append(
            f'<figure><div class="scroll" tabindex="0" role="region" aria-label="Training losses of {escape(name)}">'
            f'{inline(drawing, f"c{number}-")}</div><figcaption>{said}</figcaption></figure>'
        )
    if len(found.curves) > len(drawn):
        sections.append(f'<p>{len(found.curves) - len(drawn)} more runs are in compare.json.</p>')
    if by_language:
        sections.append('<h2>Scores by language</h2>')
        sections += [html_table(table, notes) for table in tables[len(tables) - by_language :]]
    body = '\n'.join(sections)
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(found.title)}</title>
<style>
{CSS}
</style>
</head>
<body>
<main>
<header>
<h1>{escape(found.title)}</h1>
<p class="lead">The same starting weights, batches, recipe and scorers; model, gradients, optimizer and dropout are this
package's on one side, and those of transformers and torch on the other.</p>
<dl class="facts">{facts}</dl>
</header>
{body}
</main>
</body>
</html>
"""
    return notes.numbered(text)
