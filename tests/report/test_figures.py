"""The figures: what they say, that equal points are all seen, and that the same rows give the same drawing."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from xlmr_flax.report.plots import canvas, figures, heatmaps
from xlmr_flax.report.plots import curves as curve_figures
from xlmr_flax.report.rows import RowsError


def texts(svg: str) -> list[str]:
    return [''.join(e.itertext()).strip() for e in ElementTree.fromstring(svg).iter() if e.tag.endswith('}text')]


def test_dumbbells_say_language_metric_unit_and_chance(study):
    found = texts(canvas.svg(figures.dumbbells(study, 'xnli')))
    for said in ('Swahili (sw)', 'mnli: +3.5 zero-shot', 'squad: −1.0 zero-shot', 'chance (33.3 %)'):
        assert said in found
    assert 'xnli: accuracy in %, test split; whiskers: sd over seeds' in found
    assert found.index('English (en)') < found.index('Thai (th)') < found.index('Swahili (sw)')
    axes = figures.dumbbells([row for row in study if row['language'] == 'sw'], 'xnli').axes[0]
    assert axes.get_xlim()[1] - axes.get_xlim()[0] >= 10
    far = texts(canvas.svg(figures.dumbbells(study, 'tatoeba')))
    assert any('chance (0.1 %) is outside of the axis' in said for said in far)


def test_dumbbells_refuse_an_encoder_without_rows(study):
    with pytest.raises(RowsError, match="encoder 'large'"):
        figures.dumbbells(study, 'xnli', encoder='large')


def test_heat_map_prints_every_difference(study):
    figure = heatmaps.delta_heatmap(study)
    assert figure is not None
    found = texts(canvas.svg(figure))
    assert found.count('+4.0') == 10
    assert found.count('+10.0') == 1
    assert found.count('+3.5') == 1  # the zero-shot mean, without English
    assert found.count('−2.0') == 1
    assert found.count('−1.0') == 12 + 1  # with its mean
    assert found.count('–') == 2  # English has no tatoeba
    assert heatmaps.delta_heatmap([row for row in study if row['intermediate'] == 'none']) is None


def test_heat_map_says_only_what_is_there(make_row):
    def said(*values: float) -> list[str]:
        rows = [make_row(code, 50) for code in ('de', 'sw')]
        rows += [make_row(code, v, intermediate='mnli') for code, v in zip(('de', 'sw'), values, strict=True)]
        figure = heatmaps.delta_heatmap(rows)
        assert figure is not None
        return texts(canvas.svg(figure))

    assert "Δ of mnli in points against 'none'" in ' '.join(said(50, 54))
    assert 'mnli' not in said(50, 54)  # one arm needs no name under each column
    assert not any('hatched' in each for each in said(50, 54)) and any('hatched' in each for each in said(50, 46))
    assert {'−4', '0', '+4'} <= set(said(50, 54))  # the colour scale
    assert '0' not in said(50, 50)


def test_equal_points_are_all_seen():
    points = [
        {'run': n, 'intermediate': n, 'target': 't', 'seed': 0, 'step': step, **more}
        for n in ('none', 'mnli')
        for step, more in ((2, {'loss': 1.0985}), (6, {'loss': 1.0986}), (6, {'metric': 'accuracy', 'value': 50.0}))
    ]
    figure = curve_figures.training_curves(points, 't', ('none', 'mnli'))
    assert figure is not None
    loss, metric = figure.axes
    sizes = [line.get_markersize() for line in metric.get_lines()]
    assert sizes[0] > sizes[1] and {line.get_markerfacecolor() for line in metric.get_lines()} == {'none'}
    figure.draw_without_rendering()
    assert not loss.yaxis.get_offset_text().get_text()
    assert metric.get_xlim() == loss.get_xlim()
    assert metric.get_ylim()[1] - metric.get_ylim()[0] >= curve_figures.LEAST
    assert all(tick == round(tick) for tick in metric.get_xticks())
    alone = curve_figures.training_curves([p for p in points if 'value' in p])
    assert alone is not None and alone.axes[0].get_xlim()[0] == 0


def test_axes_that_are_shared_show_every_line():
    # As many arms as have a panel each, far apart from one another, each with less than LEAST points of its own.
    points = [
        {'run': f'r{arm}', 'intermediate': f'r{arm}', 'target': 't', 'seed': 0, 'step': step, 'metric': 'accuracy',
         'value': 10.0 * arm + step}
        for arm in range(curve_figures.FEW + 1) for step in (1, 2)
    ]  # fmt: skip
    for arms in (2, curve_figures.FEW + 1):
        figure = curve_figures.training_curves([p for p in points if int(p['run'][1:]) < arms])
        assert figure is not None
        low, high = figure.axes[0].get_ylim()
        assert low <= 1 and high >= 10 * (arms - 1) + 2
        assert figure.axes[0].get_xlim()[0] <= 1 and figure.axes[0].get_xlim()[1] >= 2


def test_the_ring_of_none_is_seen_behind_an_equal_dot(make_row):
    axes = figures.dumbbells([make_row('de', 50), make_row('de', 50, intermediate='mnli')], 'xnli').axes[0]
    sizes = [container.lines[0].get_markersize() for container in axes.containers]
    assert sizes[0] > sizes[1] + 2


def test_the_ends_of_a_dumbbell_are_means_over_the_seeds_that_both_have(make_row):
    rows = [make_row('de', 50, seed=1), make_row('de', 70, seed=2), make_row('sw', 40, seed=1)]
    rows += [make_row('de', 53, seed=1, intermediate='mnli')]
    axes = figures.dumbbells(rows, 'xnli').axes[0]
    ends = {tuple(line.get_ydata()): list(line.get_xdata()) for line in axes.get_lines() if len(line.get_xdata()) == 2}
    assert list(ends.values()) == [[50.0, 53.0]]  # and not 60, the mean over both seeds of 'none'
    assert axes.get_title('left') == 'mnli: +3.0 zero-shot'
    dots = [float(container.lines[0].get_xdata()[0]) for container in axes.containers]
    assert sorted(dots) == [40.0, 50.0, 53.0]  # a language without the arm keeps its dot


def test_curves_have_a_line_for_each_run(curves):
    figure = curve_figures.training_curves([c for c in curves if c['target']], 'xnli')
    assert figure is not None
    loss, metric = figure.axes
    assert [len(line.get_xdata()) for line in loss.get_lines()] == [5, 5]
    assert [list(line.get_ydata()) for line in metric.get_lines()] == [[35.0, 55.0, 75.0]] * 2
    assert (loss.get_xlabel(), metric.get_ylabel()) == ('training step', 'dev accuracy (%)')
    assert curve_figures.training_curves([]) is None


def test_figures_are_the_same_twice_and_text_is_not_mathematics(make_row):
    rows = [make_row('de', language_name='$x$ & <y>'), make_row('de', 60, intermediate='a_b^c')]
    first, second = (canvas.svg(figures.dumbbells(rows, 'xnli'), 'it "says"') for _ in range(2))
    assert first == second
    assert '$x$ & <y> (de)' in texts(first)
    assert 'aria-label="it &quot;says&quot;"' in first
    assert canvas.png(figures.dumbbells(rows, 'xnli'), dpi=40).startswith(b'\x89PNG')
