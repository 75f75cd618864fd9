"""Tables by language that a reader of the page can sort and filter, and strip plots by resource class and script."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from logic_rows import logic_rows

from xlmr_flax.analysis.language_effects import effects
from xlmr_flax.analysis.study_report import shows_tokens
from xlmr_flax.experiment.result_rows import language_facts
from xlmr_flax.report.by_language import MANY_LANGUAGES, SCRIPT, facts_by_language, language_table, with_facts
from xlmr_flax.report.effects import effect_figures
from xlmr_flax.report.html import page
from xlmr_flax.report.plots.figures import score_strips
from xlmr_flax.report.plots.strip_figure import CC100_SCRIPTS, strips
from xlmr_flax.report.study import make_study
from xlmr_flax.report.tables import side_by_side
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.languages import all_languages


def record(code: str, arm: str, difference: float, level: str, size: float | None) -> dict[str, Any]:
    names = {'language_name': code.upper(), 'family': 'IE:Germanic', 'script': 'Latn'}
    about = {'target': 'xnli_plus', 'intermediate': arm, 'language': code, 'difference': difference}
    return about | names | {'resource_level': level, 'cc100_gib': size}


RECORDS = [
    record('de', 'logic', 1.0, 'high', 66.6),
    record('sw', 'logic', -2.0, 'low', 1.6),
    record('ay', 'logic', 3.0, 'low', 0.0),
    record('qu', 'logic', 5.0, 'low', 0.0),
    record('acm', 'logic', 4.0, 'low', None),
    record('de', 'mnli', 0.5, 'high', 66.6),
]


@pytest.fixture(scope='module')
def topics(make_row: Any) -> list[dict[str, Any]]:
    """One arm and one seed in all languages of SIB-200: language i scores 90 - i / 4."""
    return [
        make_row(code, 90 - i / 4, target='sib200', chance=100 / 7, **language_facts(code))
        for i, code in enumerate(get_task('sib200').languages)
    ]


def cells_of(text: str) -> list[list[str]]:
    return [re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', row) for row in re.findall(r'<tr[^>]*>.*?</tr>', text, re.DOTALL)]


def test_the_table_has_a_line_for_each_language_and_a_column_for_each_arm() -> None:
    table = language_table(RECORDS, 'xnli_plus')
    heads = [column.head for column in table.columns]
    assert heads == ['Code', 'Language', 'Script', 'Family', 'CC-100 GiB', 'Class', 'logic', 'mnli']
    cells = {line[0]: line for line in table.texts()}
    assert list(cells) == ['de', 'sw', 'ay', 'qu', 'acm']
    assert cells['de'] == ['de', 'DE', 'Latn', 'IE:Germanic', '66.6', 'high', '+1.0', '+0.5']
    assert cells['sw'][-2:] == ['−2.0', '–']
    assert [cells[code][4] for code in ('sw', 'ay', 'acm')] == ['1.6', '0', '–']
    known = language_table([r | {'tokens_per_word': 1.25 if r['language'] == 'de' else None} for r in RECORDS], 'x')
    assert [line[6] for line in known.texts()] == ['1.25', *['–'] * 4]


def test_facts_of_languages_are_put_into_a_table_of_scores(study: list[dict[str, Any]]) -> None:
    plain = side_by_side(study, 'xnli')
    table = with_facts(plain, facts_by_language([row for row in study if row['target'] == 'xnli'], {'sw': 1.5}))
    assert table.sortable and not plain.sortable
    heads = [column.head for column in table.columns]
    assert heads[:7] == ['Code', 'Language', 'Script', 'CC-100 GiB', 'Class', 'Tokens/word', 'n']
    assert heads[7:] == ['none', 'mnli', 'squad', 'Δ mnli', 'Δ squad']
    for line, before in zip(table.texts(), plain.texts(), strict=True):
        assert line[0] == before[0] and line[-6:] == before[-6:]
    assert {line[0]: line[1:6] for line in table.texts()}['sw'] == ['Swahili', 'Latn', '1.6', 'low', '1.50']
    assert [line.mean for line in table.lines] == [line.mean for line in plain.lines]
    assert {table.columns[j].head for _, j in table.hints} == set(heads[7:])


def test_a_target_in_many_languages_is_sortable_with_one_arm_and_one_seed(topics: list[dict[str, Any]]) -> None:
    tokens = {row['language']: 1.5 for row in topics[1:]}
    text = page(make_study(topics), info={'tokens_per_word': {'small': {'sib200': tokens}}})
    assert re.findall(r'<script>\n(.*?)\n</script>', text, re.DOTALL) == [SCRIPT]
    (table,) = re.findall(r'<div class="sortable">.*?(<table.*?</table>)', text, re.DOTALL)
    head, *lines = cells_of(table)
    assert head == ['Code', 'Language', 'Script', 'Family', 'CC-100 GiB', 'Class', 'Tokens/word', 'n', 'none']
    assert [line[0] for line in lines if len(line) == len(head)] == make_study(topics).codes('sib200')
    found = {line[0]: line for line in lines}
    assert found['sw'][1:6] == ['Swahili', 'Latn', 'Niger-Congo', '1.6', 'low']
    assert found[topics[0]['language']][6:] == ['–', '400', '90.0'] and found['sw'][6] == '1.50'
    assert re.findall('data-order="(.*?)"', table) == ['high mid low']
    assert re.findall('<tr class="mean', table[table.index('>ar_Latn<') :])  # the means stand last
    assert shows_tokens(topics)


def test_few_languages_have_a_static_table(topics: list[dict[str, Any]]) -> None:
    assert 'sortable' in page(make_study(topics[: MANY_LANGUAGES + 1])).split('</style>')[1]
    assert 'sortable' not in page(make_study(topics[:MANY_LANGUAGES])).split('</style>')[1]
    assert shows_tokens(topics[: MANY_LANGUAGES + 1]) and not shows_tokens(topics[:MANY_LANGUAGES])


def test_strips_are_the_classes_that_have_languages() -> None:
    figure = strips(RECORDS, 'difference', 'points')
    assert figure is not None
    logic, mnli = figure.axes
    labels = [text.get_text().split() for text in logic.get_xticklabels()]
    assert [(label[0], label[-1]) for label in labels] == [
        ('high', '(1)'),
        ('low,', '(1)'),
        ('low,', '(2)'),
        ('unknown', '(1)'),
    ]
    (drawn,) = [line for line in logic.lines if line.get_marker() == 'o']
    by_strip: dict[int, list[float]] = {}
    for x, y in zip(*map(np.asarray, drawn.get_data()), strict=True):
        by_strip.setdefault(round(float(x)), []).append(float(y))
    assert {place: sorted(values) for place, values in by_strip.items()} == {
        0: [1.0],
        1: [-2.0],
        2: [3.0, 5.0],
        3: [4.0],
    }
    assert [np.asarray(line.get_ydata()).tolist() for line in mnli.lines if line.get_marker() == 'o'] == [[0.5]]
    assert strips([r for r in RECORDS if r['resource_level'] == 'high'], 'difference', '') is None


def test_strips_of_scores_have_a_look_for_each_frequent_script(topics: list[dict[str, Any]]) -> None:
    figure = score_strips(topics, 'sib200', 'accuracy', 'small', facts_by_language(topics, {}))
    assert figure is not None
    (axes,) = figure.axes
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.lines if line.get_marker() != 'None'}
    sizes = {label.split()[0].rstrip(':'): len(values) for label, values in drawn.items()}
    assert list(sizes.values()) == [126, 22, 12, 10, 28, 6]  # without English
    assert list(sizes)[:4] == ['Latn', 'Arab', 'Cyrl', 'Deva']
    lacking = {'Nkoo', 'Olck', 'Tfng', 'Tibt'}
    assert lacking == {row['script'] for row in topics} - CC100_SCRIPTS
    (label,) = [label for label in drawn if 'Nkoo' in label]
    assert all(script in label for script in lacking)
    assert sorted(drawn[label].tolist()) == sorted(row['value'] for row in topics if row['script'] in lacking)
    points = [line for line in axes.lines if line.get_marker() != 'None']
    assert (
        len({str(line.get_marker()) for line in points})
        == len({str(line.get_markeredgecolor()) for line in points})
        == 6
    )
    levels = {float(np.asarray(line.get_ydata())[0]): line.get_linestyle() for line in axes.lines[-2:]}
    assert levels == {next(r['value'] for r in topics if r['english']): '--', 14.3: ':'}


def test_scripts_of_cc100_are_those_of_its_languages() -> None:
    assert {each.script for each in all_languages().values() if each.cc100_gib} == CC100_SCRIPTS


def test_the_page_has_one_script_and_only_with_effects() -> None:
    rows = logic_rows({'logic': 2.0}, seeds=(1, 2))
    found = effects(rows)
    text = page(make_study(rows), (), {'effects': found})
    assert re.findall(r'<script>\n(.*?)\n</script>', text, re.DOTALL) == [SCRIPT]
    assert text.count('<div class="sortable">') == 3
    assert '<script' not in page(make_study(rows))
    assert {f'effects-classes-{target}' for target in ('xnli_plus', 'panx', 'tatoeba')} <= effect_figures(found).keys()
