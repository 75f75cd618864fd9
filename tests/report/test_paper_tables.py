"""The paper's tables: what stands in which cell, how the best arm is chosen, what is said of gaps and tests."""

from __future__ import annotations

import re
from dataclasses import replace
from statistics import fmean

import pytest
from paper_study import ARMS, paper_curves, paper_plan, paper_rows, paper_tests

from xlmr_flax.report.html import page
from xlmr_flax.report.html_table import html_table
from xlmr_flax.report.paper_tables import by_language, differences, intervals, runs_table, scores, upright
from xlmr_flax.report.plots import canvas, figures, heatmaps
from xlmr_flax.report.plots import curves as curve_figures
from xlmr_flax.report.rows import RowsError
from xlmr_flax.report.study import F1_AND_EM, make_study, score_rows
from xlmr_flax.report.tables import all_tables
from xlmr_flax.report.view import ON_SHOWN, View, stand_in_notes


@pytest.fixture(scope='module')
def rows():
    return paper_rows()


@pytest.fixture(scope='module')
def view(rows):
    return View(make_study(rows, paper_plan(), paper_tests(rows)), 'small')


def cell(table, line, head):
    """The text of a cell by its line's and its column's (or group's) name."""
    names = [c.group or c.head for c in table.columns]
    texts = next(texts for texts in table.texts() if texts[0].rstrip('§') == line)
    return texts[names.index(head)]


def mean(rows, arm, target, metric):
    found = [r for r in rows if (r['intermediate'], r['target'], r['metric']) == (arm, target, metric)]
    return fmean(r['value'] for r in found)


def test_rows_are_arms_in_plan_order_and_columns_targets(view):
    table = differences(view)
    assert [line.cells[0].rstrip('§') for line in table.lines] == [*ARMS, 'best arm', 'its Δ']
    assert [c.group.rstrip('§') for c in table.columns[1:-1]] == list(paper_plan()['targets'])
    assert [c.head for c in table.columns[1:]] == [
        'accuracy', 'accuracy', 'F1', 'F1', 'F1/EM', 'F1/EM', 'F1/EM', 'F1', 'accuracy', 'average',
    ]  # fmt: skip


def test_baseline_is_absolute_the_others_are_signed_and_english_is_in_the_mean(rows, view):
    table = differences(view)
    base = mean(rows, 'none', 'xnli', 'accuracy')
    assert cell(table, 'none', 'xnli') == f'{base:.1f}'
    change = mean(rows, 'mnli', 'xnli', 'accuracy') - base
    assert cell(table, 'mnli', 'xnli').rstrip('*') == f'{change:+.1f}'.replace('-', '−')
    others = [r for r in rows if r['language'] != 'en']
    zero_shot = differences(replace(view, zero_shot=True))
    assert cell(zero_shot, 'none', 'xnli') == f'{mean(others, "none", "xnli", "accuracy"):.1f}'
    assert cell(zero_shot, 'none', 'tatoeba') == cell(table, 'none', 'tatoeba')  # English has none


def test_question_answering_counts_as_the_mean_of_f1_and_em(rows, view):
    f1, em = (mean(rows, 'none', 'mlqa', metric) for metric in ('f1', 'exact_match'))
    assert cell(differences(view), 'none', 'mlqa') == f'{(f1 + em) / 2:.1f}'
    line = scores(view).texts()[0]
    heads = [(c.group, c.head) for c in scores(view).columns]
    assert line[heads.index(('mlqa', 'F1'))] == f'{f1:.1f}'
    assert line[heads.index(('mlqa', 'EM'))] == f'{em:.1f}'
    targets = paper_plan()['targets']
    parts = [fmean(r['value'] for r in score_rows(rows, t) if r['intermediate'] == 'none') for t in targets]
    assert line[-1] == f'{fmean(parts):.1f}'
    assert {r['metric'] for r in score_rows(rows, 'xquad')} == {F1_AND_EM}


def test_a_language_without_its_em_has_no_score(make_row):
    rows = [make_row('de', 60, metric='f1'), make_row('de', 40, metric='exact_match'), make_row('sw', 50, metric='f1')]
    assert [(r['language'], r['value']) for r in score_rows(rows, 'xnli')] == [('de', 50)]


@pytest.mark.parametrize('changed', [{'split': 'dev'}, {'language': 'ru'}, {'seed': 3}, {'intermediate': 'mnli'}])
def test_f1_and_em_of_another_split_language_seed_or_arm_give_no_score(make_row, changed):
    rows = [make_row('de', 60, metric='f1'), make_row(**{'language': 'de', 'metric': 'exact_match', **changed})]
    with pytest.raises(RowsError, match='xnli'):
        score_rows(rows, 'xnli')


def test_gaps_are_counted_and_named():
    rows = paper_rows((1, 2), gaps=True)
    table = differences(View(make_study(rows, paper_plan((1, 2))), 'small'))
    assert cell(table, 'multi', 'xnli') == '–'
    assert cell(table, 'ccg', 'udpos') == '–'
    assert '†' in cell(table, 'qqp', 'xnli')
    assert '†' in cell(table, 'mnli', 'tydiqa')
    assert cell(table, 'qqp', 'average') == '–'
    said = next(note for note in table.notes if note.startswith('Missing'))
    assert '10 of 99 have no score' in said  # multi on nine targets, ccg on one
    assert 'qqp on xnli (2 of 30)' in said
    assert 'mnli on tydiqa (9 of 18)' in said
    assert not any(
        note.startswith('Missing') for note in differences(View(make_study(rows[:0] + paper_rows()), 'small')).notes
    )


def test_the_best_arm_is_chosen_on_dev_where_there_is_one(make_row):
    rows = [make_row('de', value, intermediate=name) for name, value in (('none', 50), ('mnli', 60), ('qqp', 55))]
    on_shown = differences(View(make_study(rows), 'small'))
    assert [line[1] for line in on_shown.texts()[-2:]] == ['mnli‡', '+10.0']
    assert any(note.startswith(ON_SHOWN) for note in on_shown.notes)
    points = [
        {
            'run': n,
            'intermediate': n,
            'target': 'xnli',
            'seed': 0,
            'step': step,
            'metric': 'dev accuracy',
            'value': value,
        }
        for n, values in (('none', (40, 41)), ('mnli', (70, 50)), ('qqp', (60, 62)))
        for step, value in enumerate(values)
    ]
    best = differences(View(make_study(rows, curves=points), 'small'))
    assert [line[1] for line in best.texts()[-2:]] == ['mnli', '+10.0']  # its best dev score is 70
    last = differences(View(make_study(rows, {'keep': {'xnli': 'last'}}, curves=points), 'small'))
    assert [line[1] for line in last.texts()[-2:]] == ['qqp', '+5.0']
    assert not any(note.startswith(ON_SHOWN) for note in last.notes)
    dev = [make_row('de', v, intermediate=n, split='dev') for n, v in (('none', 10), ('mnli', 20), ('qqp', 30))]
    assert differences(View(make_study([*dev, *rows]), 'small')).texts()[-2][1] == 'qqp'


def test_arms_that_tie_are_called_a_tie(make_row):
    rows = [make_row('de', v, intermediate=n) for n, v in (('none', 50), ('mnli', 60), ('qqp', 60))]
    rows += [make_row('de', v, intermediate=n, target='pawsx') for n, v in (('none', 70), ('mnli', 60), ('qqp', 60))]
    table = differences(View(make_study(rows), 'small'))
    assert [list(line[1:3]) for line in table.texts()[-2:]] == [['tie‡', 'none‡'], ['+10.0', '0.0']]
    assert 'tie: several arms have the highest score; their mean is shown.' in table.notes
    assert [list(line[1:3]) for line in scores(View(make_study(rows), 'small')).texts()[-1:]] == [['60.0', '70.0']]
    dev = [make_row('de', 1, intermediate=n, split='dev') for n in ('none', 'mnli', 'qqp')]
    mixed = differences(View(make_study([*dev, *rows]), 'small'))
    assert [list(line[1:3]) for line in mixed.texts()[-2:]] == [['tie', 'none‡'], ['+6.7', '0.0']]  # (0 + 10 + 10) / 3
    assert 'Best arm of xnli: the one with the highest score on its English dev set.' in mixed.notes
    assert any(note.startswith(f'{ON_SHOWN} Best arm of pawsx:') for note in mixed.notes)


def test_an_average_over_different_chance_levels_says_so(make_row):
    def notes(other: float) -> str:
        both = (('none', 50), ('mnli', 60))
        rows = [make_row('de', v, intermediate=n, chance=50.0) for n, v in both]
        rows += [make_row('de', v, intermediate=n, target='tatoeba', chance=other) for n, v in both]
        return ' '.join(differences(View(make_study(rows), 'small')).notes)

    assert 'over scores with different chance levels (xnli 50.0, tatoeba 0.1).' in notes(0.1)
    assert 'chance' not in notes(50.0)


def test_means_say_which_targets_have_english(make_row):
    both = (('none', 50), ('mnli', 60))
    rows = [make_row(code, v, intermediate=n) for n, v in both for code in ('en', 'de')]
    rows += [make_row('de', v, intermediate=n, target='tatoeba') for n, v in both]
    notes = ' '.join(differences(View(make_study(rows), 'small')).notes)
    assert (
        'Unweighted means over languages (number with English: xnli 2; number without English: tatoeba 1); test split.'
        in notes
    )
    zero_shot = ' '.join(differences(View(make_study(rows), 'small', zero_shot=True)).notes)
    assert 'Unweighted means over languages (number without English: xnli 1, tatoeba 1); test split.' in zero_shot


def test_tables_say_what_bold_means_where_something_is(make_row):
    rows = [make_row('de', v, intermediate=n) for n, v in (('none', 50), ('mnli', 60))]
    table = differences(View(make_study(rows), 'small'))
    assert 'Bold: the highest score of its column.' in table.all_notes()
    same = [row | {'value': 50} for row in rows]
    assert not any('Bold' in note for note in differences(View(make_study(same), 'small')).all_notes())


def test_none_is_bold_where_nothing_is_better(make_row):
    rows = [make_row('de', value, intermediate=name) for name, value in (('none', 50), ('mnli', 40))]
    assert differences(View(make_study(rows), 'small')).marked() == {(0, 1)}


def test_significance_is_marked_explained_and_tabled(rows, view):
    table = differences(view)
    marked = sum(text.endswith('*') for line in table.texts()[:11] for text in line)
    assert marked == 40  # every second of ten arms on eight targets
    assert any('family-wise error rate of 5 %' in n and 'B = 9,600' in n and '80 differences' in n for n in table.notes)
    assert 'Not tested (bucc2018): F1 over mined pairs is no sum over examples.' in table.notes
    found = intervals(view)
    assert found is not None
    assert len(found.lines) == 80
    assert intervals(View(make_study(rows), 'small')) is None
    assert '*' not in ''.join(text for line in differences(View(make_study(rows), 'small')).texts() for text in line)


def test_a_test_of_another_difference_marks_nothing(rows):
    tests = [{**row, 'difference': row['difference'] + 1} for row in paper_tests(rows) if 'difference' in row]
    table = differences(View(make_study(rows, paper_plan(), tests), 'small'))
    assert not any('*' in text for line in table.texts() for text in line)


def test_stand_in_data_are_flagged_in_every_table(view):
    for table in all_tables(view.study):
        if any(r.get('stand_in') for r in view.study.rows if table.name.startswith(r['target'])):
            assert any(note.startswith('§ Stand-in data') for note in table.notes), table.name
    table = differences(view)
    assert 'bucc2018§' in [c.group for c in table.columns]
    assert 'ccg§' in [line.cells[0] for line in table.lines]
    one = [dict(r) for r in view.study.rows]
    for row in one:
        if (row['intermediate'], row['target']) != ('qqp', 'xnli'):
            row.pop('stand_in', None)
        else:
            row['stand_in'] = 'qqp train: x'
    table = differences(View(make_study(one), 'small'))
    assert cell(table, 'qqp', 'xnli').endswith('§')
    assert not cell(table, 'qqp', 'pawsx').endswith('§')
    assert stand_in_notes([{'stand_in': 'a train: x; b test: y'}, {'stand_in': 'c train: x'}]) == [
        'a train, c train: x', 'b test: y',
    ]  # fmt: skip


def test_the_decoding_of_answers_is_stated_in_every_table_of_question_answering(rows):
    one = [{**r, **({'qa_decoding': 'reference'} if r['target'] == 'xquad' else {})} for r in rows]
    study = make_study(one, paper_plan())
    said = [table.name for table in all_tables(study) if any('qa_decoding: reference' in n for n in table.notes)]
    assert [name for name in said if name.startswith('xquad')] == [
        table.name for table in all_tables(study) if table.name.startswith('xquad')
    ]
    assert differences(View(study, 'small')).name in said
    assert not [name for name in said if name.startswith(('xnli', 'mlqa'))]
    mixed = [{**r, 'qa_decoding': ('offsets', 'reference')[r['intermediate'] == 'none']} for r in one]
    notes = differences(View(make_study(mixed), 'small')).notes
    assert [sum(f'qa_decoding: {how}' in note for note in notes) for how in ('offsets', 'reference')] == [1, 1]


def test_every_number_names_its_run(view):
    cells = re.findall(r'<td class="number[^"]*"[^>]*>', html_table(by_language(view, 'panx', 'f1')))
    assert sum('title="run' in c for c in cells) == len(ARMS) * 40
    assert 'title="run nonexnli0001 (seed 1); preset paper_small"' in html_table(differences(view))
    assert 'Holm' in html_table(differences(view))
    runs = runs_table(view.study)
    assert len(runs.lines) == len(ARMS) * 9
    assert len([note for note in runs.notes if note.startswith('[1] xlmr-flax run')]) == 1


def test_by_language_has_means_first_then_every_language(view):
    table = by_language(view, 'xnli', 'accuracy')
    assert [c.head for c in table.columns[:4]] == ['Intermediate', 'mean', 'zero-shot', 'en']
    assert len(table.columns) == 3 + 15


def test_upright_has_the_same_numbers_with_languages_as_rows(view):
    table = by_language(view, 'panx', 'f1')
    turned = upright(table)
    assert [c.head for c in turned.columns] == ['Language', *[line.cells[0] for line in table.lines]]
    assert [line.cells[0] for line in turned.lines][-2:] == ['mean', 'zero-shot']
    assert [line.mean for line in turned.lines] == [False] * 40 + [True] * 2
    there = {(c.head, line.cells[0]): v for line in table.lines for c, v in zip(table.columns, line.cells, strict=True)}
    for line in turned.lines:
        for column, value in zip(turned.columns[1:], line.cells[1:], strict=True):
            assert there[line.cells[0], column.head] == value
    place = turned.lines[5].cells[0], turned.columns[3].head
    old = [c.head for c in table.columns].index(place[0])
    assert turned.hints[5, 3] == table.hints[2, old]
    marks = {(turned.lines[i].cells[0], turned.columns[j].head) for i, j in turned.marked()}
    assert marks == {(table.columns[j].head, table.lines[i].cells[0]) for i, j in table.marked()}


def test_the_page_of_a_study_of_the_papers_size(rows, monkeypatch):
    drawn = {'differences', 'gains', 'xnli-by-language', 'curves-xnli'}
    small = [row for row in rows if row['target'] in ('xnli', 'pawsx')]
    plan = paper_plan() | {'targets': ['xnli', 'pawsx']}
    points = [p for p in paper_curves(steps=20) if p['target'] == 'xnli']
    study = make_study(small, plan, paper_tests(rows), points)
    text = page(study, points)
    assert text.count('<svg ') == len(drawn) + 1
    assert 'Absolute scores' in text
    assert 'Intervals of the differences' in text


def test_heat_map_of_arms_says_sign_without_colour(view):
    figure = heatmaps.arms_by_targets(view)
    assert figure is not None
    svg = canvas.svg(figure)
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    negative = [t.get_text() for t in figure.axes[0].texts if t.get_text().startswith('−')]
    assert len(hatched) == len(negative) > 10
    assert svg.count('*') >= 40
    assert (
        heatmaps.arms_by_targets(View(make_study([r for r in view.study.rows if r['intermediate'] == 'none']), 'small'))
        is None
    )


def test_gains_have_a_panel_for_each_target(view):
    figure = figures.gains_by_language(view)
    assert figure is not None
    assert len([axes for axes in figure.axes if axes.get_visible()]) == 9
    assert any(axes.get_title(loc='left').startswith('panx: ') for axes in figure.axes)


def test_curves_of_many_arms_have_a_panel_each_in_plan_order():
    points = [p for p in paper_curves(steps=60) if p['target'] == 'xnli']
    figure = curve_figures.training_curves(points, 'xnli', ARMS)
    assert figure is not None
    titles = [axes.get_title(loc='left') for axes in figure.axes if axes.get_visible()]
    assert titles == ARMS * 2  # loss and dev


def test_smoothing_keeps_level_and_length():
    assert curve_figures.smooth([1.0, 5.0, 3.0]) == [1.0, 5.0, 3.0]
    noisy = [3.0 + (-1) ** i for i in range(90)]
    smooth = curve_figures.smooth(noisy)
    assert len(smooth) == 90
    assert max(abs(v - 3.0) for v in smooth) < 0.5
