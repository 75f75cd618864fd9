"""Figures of effects by language: what is drawn stays readable whatever the intervals are."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from xlmr_flax.report.plots.canvas import panels_across
from xlmr_flax.report.plots.effect_figures import forest, line_panels


def line(**changes: Any) -> dict[str, Any]:
    points = [(f'l{i}', math.log10(0.05), float(i)) for i in range(10)] + [('de', 1.8, 12.0), ('ru', 2.4, -8.0)]
    record = {'target': 'xnli', 'intermediate': 'mnli', 'slope': 0.1, 'points': points}
    return {**record, 'at': [(-1.3, 1.0, -90.0, 92.0), (2.4, 2.0, -80.0, 84.0)], **changes}


def test_languages_are_not_one_heap_in_a_wide_band() -> None:
    for axes in line_panels([line(), line(intermediate='logic')]).axes:
        low, high = axes.get_ylim()
        assert -20 < low < -8
        assert 12 < high < 20
        assert max(t for t in axes.get_xticks()) <= 2.4


def test_languages_without_text_in_pretraining_stand_apart_in_the_panel() -> None:
    (axes,) = line_panels([line()]).axes
    places = {(round(float(x), 6), float(y)) for a in axes.lines for x, y in zip(*a.get_data(), strict=True)}
    names = {text.get_text(): text.xy for text in axes.texts}
    unseen = sorted((y, x) for code, (x, y) in names.items() if code.startswith('l'))
    assert len(unseen) == 10
    assert all(abs(a[1] - b[1]) > 0.3 for a, b in itertools.pairwise(unseen)), 'neighbours in height'
    low, high = axes.get_xlim()
    assert all(low < x < high for _, x in unseen)
    assert all((round(x, 6), y) in places for y, x in unseen)


def test_an_interval_may_leave_the_panel_and_no_difference_does() -> None:
    facts = {'target': 'xnli', 'metric': 'accuracy', 'group': 'all'}
    wide = {**facts, 'intermediate': 'logic', 'estimate': -51.0, 'low': -490.0, 'high': 387.0}
    close = {**facts, 'intermediate': 'mnli', 'estimate': 4.0, 'low': 1.0, 'high': 7.0}
    low, high = forest([wide, close]).axes[0].get_xlim()
    assert (low, high) == (-105, 105)
    low, high = forest([close]).axes[0].get_xlim()
    assert -5 < low < high < 10


def test_the_band_behind_an_arm_is_that_of_its_design() -> None:
    facts = {'target': 'xnli', 'metric': 'accuracy', 'group': 'all', 'estimate': -1.0, 'low': -2.0, 'high': 0.0}
    records = [{**facts, 'intermediate': arm} for arm in ('logic', 'mnli', 'folio')]
    power = [
        {'target': 'xnli', 'group': 'all', 'arms': 'logic', 'smallest': 2.0},
        {'target': 'xnli', 'group': 'all', 'arms': 'mnli+folio', 'smallest': 5.0},
        {'target': 'xnli', 'group': 'low-resource', 'arms': 'logic+mnli+folio', 'smallest': 9.0},
    ]
    bands = {patch.get_y() + 0.5: patch.get_x() for patch in forest(records, power).axes[0].patches}
    assert bands == {0: -2.0, 1: -5.0, 2: -5.0}
    assert not forest(records).axes[0].patches


@pytest.mark.parametrize(('number', 'across'), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (7, 3), (9, 3)])
def test_rows_of_panels_have_nearly_equal_length(number: int, across: int) -> None:
    assert panels_across(number) == across
