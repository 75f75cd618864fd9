"""Effects by language in the page: a strip plot by resource class, and the table that a reader can sort and filter."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from logic_rows import logic_rows

from xlmr_flax.analysis.language_effects import effects
from xlmr_flax.report.by_language import SCRIPT, language_table
from xlmr_flax.report.effects import effect_figures
from xlmr_flax.report.html import page
from xlmr_flax.report.plots.strip_figure import strips
from xlmr_flax.report.study import make_study


def record(code: str, arm: str, difference: float, level: str, size: float | None) -> dict[str, Any]:
    names = {'language_name': code.upper(), 'family': 'IE:Germanic', 'script': 'Latn'}
    about = {'target': 'xnli_plus', 'intermediate': arm, 'language': code, 'difference': difference}
    return about | names | {'resource_level': level, 'cc100_gib': size}


RECORDS = [
    record('de', 'logic', 1.0, 'high', 66.6),
    record('sw', 'logic', -2.0, 'low', 1.6),
    record('ay', 'logic', 3.0, 'low', 0.0),
    record('qu', 'logic', 5.0, 'low', 0.0),
    record('de', 'mnli', 0.5, 'high', 66.6),
]


def test_the_table_has_a_line_for_each_language_and_a_column_for_each_arm() -> None:
    table = language_table(RECORDS, 'xnli_plus')
    assert [column.head for column in table.columns[-2:]] == ['logic', 'mnli']
    cells = {line[0]: line for line in table.texts()}
    assert list(cells) == ['de', 'sw', 'ay', 'qu']
    assert cells['de'][-2:] == ['+1.0', '+0.5'] and cells['sw'][-2:] == ['−2.0', '–']
    assert cells['ay'][4:6] == ['low', '0'] and cells['sw'][5] == '1.6'


def test_strips_are_the_classes_that_have_languages() -> None:
    figure = strips(RECORDS)
    assert figure is not None
    logic, mnli = figure.axes
    assert [text.get_text() for text in logic.get_xticklabels()] == ['high', 'low', 'low, not\nin CC-100']
    drawn = [line for line in logic.lines if line.get_marker() == 'o']
    assert [sorted(np.asarray(line.get_ydata()).tolist()) for line in drawn] == [[1.0], [-2.0], [3.0, 5.0]]
    assert len([line for line in mnli.lines if line.get_marker() == 'o']) == 1
    assert strips([r for r in RECORDS if r['resource_level'] == 'high']) is None


def test_the_page_has_one_script_and_only_with_effects() -> None:
    rows = logic_rows({'logic': 2.0}, seeds=(1, 2))
    found = effects(rows)
    text = page(make_study(rows), (), {'effects': found})
    assert re.findall(r'<script>\n(.*?)\n</script>', text, re.DOTALL) == [SCRIPT]
    assert text.count('<div class="sortable">') == 3
    assert '<script' not in page(make_study(rows))
    assert {f'effects-classes-{target}' for target in ('xnli_plus', 'panx', 'tatoeba')} <= effect_figures(found).keys()
