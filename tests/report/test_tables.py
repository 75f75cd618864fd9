"""Tables: the numbers in them, and what the three renderings make of them."""

from __future__ import annotations

import csv
import io
import re

import pytest

from xlmr_flax.report.rows import RowsError, Score
from xlmr_flax.report.table import BLANK, Column, Line, Table, latex, signed, text
from xlmr_flax.report.tables import all_tables, sampling_margin, side_by_side, summary, tidy, write_tables


def by_head(table, line):
    return dict(zip([c.head for c in table.columns], table.texts()[line], strict=True))


def test_side_by_side_has_languages_as_rows_and_worked_means(study):
    table = side_by_side(study, 'xnli')
    heads = ['Code', 'Language', 'Script', 'Resources', 'n', 'none', 'mnli', 'squad', 'Δ mnli', 'Δ squad']
    assert [c.head for c in table.columns] == heads
    assert len(table.lines) == 12 + 2
    assert by_head(table, 0) == {
        'Code': 'en', 'Language': 'English', 'Script': 'Latn', 'Resources': 'high', 'n': '400', 'none': '60.2 ± 0.4',
        'mnli': '70.2 ± 0.4', 'squad': '59.2 ± 0.4', 'Δ mnli': '+10.0 ± 0.0', 'Δ squad': '−1.0 ± 0.0',
    }  # fmt: skip
    # none, languages 1 to 11: 60 - 6 + 0.25; mnli gains (10 · 4 - 2) / 11, and with English (38 + 10) / 12
    zero_shot, everything = by_head(table, 12), by_head(table, 13)
    assert zero_shot['Code'] == 'zero-shot mean (11 languages)'
    assert (zero_shot['none'], zero_shot['mnli'], zero_shot['Δ mnli']) == ('54.2 ± 0.4', '57.7 ± 0.4', '+3.5 ± 0.0')
    assert everything['Code'] == 'mean of all (12 languages)'
    assert (everything['none'], everything['Δ mnli']) == ('54.8 ± 0.4', '+4.0 ± 0.0')
    assert [line.mean for line in table.lines[-3:]] == [False, True, True]


def test_side_by_side_without_english_has_one_mean(study):
    table = side_by_side(study, 'tatoeba')
    assert [line.cells[0] for line in table.lines if line.mean] == ['zero-shot mean (11 languages)']
    assert 'Trained contrastively: its retrieval scores start high.' in table.notes


def test_best_is_marked_by_row_and_ties_together(study):
    table = side_by_side(study, 'xnli')
    heads = [c.head for c in table.columns]
    assert {heads[j] for i, j in table.marked() if i == 0} == {'mnli'}
    assert {heads[j] for i, j in table.marked() if i == 11} == {'none'}  # Swahili lost with mnli
    tatoeba = side_by_side([row for row in study if row['intermediate'] != 'mnli'], 'tatoeba')
    assert not tatoeba.marked()  # all equal: nothing to point at


def test_side_by_side_marks_what_is_missing_and_partial(make_row):
    rows = [make_row('de', 60), make_row('sw', 40), make_row('de', 70, intermediate='mnli')]
    table = side_by_side(rows, 'xnli')
    assert by_head(table, 1) == {'Code': 'sw', 'n': '400', 'none': '40.0', 'mnli': '–', 'Δ mnli': '–'}
    mean = by_head(table, 2)
    assert (mean['none'], mean['mnli'], mean['Δ mnli']) == ('50.0', '70.0†', '+10.0†')  # not +20: languages in common
    assert not [place for place in table.marked() if place[0] == 2]
    assert any(note.startswith('†') for note in table.all_notes())
    assert any(note.startswith('One seed (0)') for note in table.notes)


def test_two_encoders_are_two_groups_each_with_its_own_none(make_row):
    rows = [
        make_row('de', value, encoder=encoder, intermediate=task)
        for encoder, task, value in [('S', 'none', 50), ('S', 'mnli', 53), ('L', 'none', 70), ('L', 'mnli', 71)]
    ]
    table = side_by_side(rows, 'xnli')
    assert table.groups() == [('', 2), ('S', 3), ('L', 3)]
    assert table.texts()[0] == ['de', '400', '50.0', '53.0', '+3.0', '70.0', '71.0', '+1.0']
    lines = summary(rows).texts()
    assert lines == [['S', 'none', '50.0', '–'], ['S', 'mnli', '53.0', '+3.0'],
                     ['L', 'none', '70.0', '–'], ['L', 'mnli', '71.0', '+1.0']]  # fmt: skip


def test_summary_has_intermediates_as_rows_and_an_average(study):
    table = summary(study)
    assert table.groups() == [('', 1), ('xnli (accuracy)', 2), ('tatoeba (accuracy)', 2), ('average', 2)]
    none, mnli, squad = table.texts()
    # tatoeba, languages 1 to 11: 90 - 12; average with xnli's 54.25
    assert none == ['none', '54.2 ± 0.4', '–', '78.0 ± 0.0', '–', '66.1 ± 0.2', '–']
    assert mnli == ['mnli', '57.7 ± 0.4', '+3.5 ± 0.0', '81.0 ± 0.0', '+3.0 ± 0.0', '69.4 ± 0.2', '+3.2 ± 0.0']
    assert squad[2:5] == ['−1.0 ± 0.0', '78.0 ± 0.0', '0.0 ± 0.0']
    assert {i for i, _ in table.marked()} == {1}
    assert summary(study, zero_shot=False).texts()[0][1] == '54.8 ± 0.4'


def test_summary_gives_no_average_over_missing_targets(make_row):
    rows = [make_row(), make_row(target='pawsx'), make_row(intermediate='mnli', value=60)]
    assert summary(rows).texts()[1] == ['mnli', '60.0', '+10.0', '–', '–', '–', '–']
    with pytest.raises(RowsError):
        summary([])


def test_notes_say_chance_training_language_and_margin(study, make_row):
    notes = ' '.join(side_by_side(study, 'xnli').notes)
    assert 'Chance: 33.3.' in notes
    assert 'en is the training language' in notes
    assert 'Stand-in data: XNLI cut <small>' in notes
    assert 'over seeds 0, 1' in notes
    assert sampling_margin([make_row(value=50, n=400)]) == pytest.approx(4.9)  # 1.96 · sqrt(0.25 / 400)
    assert sampling_margin([make_row(metric='f1')]) is None


@pytest.mark.parametrize(
    ('cell', 'kind', 'shown'),
    [
        (71.25, 'score', '71.2'),
        (Score(71.26, 0.44, 3), 'score', '71.3 ± 0.4'),
        (Score(-0.04), 'delta', '0.0'),
        (Score(-1.26), 'delta', '−1.3'),
        (2.0, 'delta', '+2.0'),
        (1000, 'count', '1,000'),
        (None, 'score', '–'),
        ('', 'text', '–'),
    ],
)
def test_text_of_a_cell(cell, kind, shown):
    assert text(cell, Column('x', kind)) == shown


def test_signed():
    assert [signed(v) for v in (1.25, -1.0, 0.04, -0.04)] == ['+1.2', '−1.0', '0.0', '0.0']


AWKWARD = Table(
    'A & B_1 | 100 % of #2',
    (Column('Name'), Column('none', 'score', 'g_1', best=True), Column('x|y', 'score', 'g_1', best=True)),
    (
        Line(('[x] a_b & <i>c</i> | $5 \\ {d} ~ ^', 1.0, 2.0)),
        Line(('Õ ñ ħ ő 中', None, Score(1.0, 0.5, 2))),
        Line(('mean, "all"', 1.0, 2.0), mean=True),
        Line(('over', BLANK, 2.0), mean=True),
    ),
    ('note with * and _',),
    best='row',
)


def test_markdown_has_the_same_cells_in_every_line_and_right_aligned_numbers(study):
    for table in [AWKWARD, *all_tables(study)]:
        lines = [line for line in table.markdown().splitlines() if line.startswith('|')]
        assert len(lines) == 2 + len(table.lines)
        assert {len(re.findall(r'(?<!\\)\|', line)) for line in lines} == {len(table.columns) + 1}
        assert len({len(line) for line in lines}) == 1
        rules = [cell.strip() for cell in lines[1].strip('|').split('|')]
        assert [rule.endswith(':') for rule in rules] == [c.kind != 'text' for c in table.columns]
    assert '**2.0**' in AWKWARD.markdown()
    assert '\\<i\\>' in AWKWARD.markdown()


def test_csv_is_rectangular_with_plain_numbers(study):
    grid = list(csv.reader(io.StringIO(AWKWARD.csv())))
    assert grid[0] == ['Name', 'g_1 none', 'g_1 x|y', 'g_1 x|y sd']
    assert grid[2] == ['Õ ñ ħ ő 中', '', '1.0', '0.5']
    assert grid[3] == ['mean, "all"', '1.0', '2.0', '']
    for table in all_tables(study):
        rows = list(csv.reader(io.StringIO(table.csv())))
        assert len({len(row) for row in rows}) == 1
        assert not any(mark in table.csv() for mark in '–−±†')


def latex_columns(line: str) -> int:
    """Columns that a line of a tabular fills."""
    spans = [int(n) for n in re.findall(r'\\multicolumn\{(\d+)\}', line)]
    return len(re.findall(r'(?<!\\)&', line)) + 1 + sum(spans) - len(spans)


def test_latex_is_balanced_and_every_line_fills_the_columns(study):
    for table in [AWKWARD, *all_tables(study)]:
        source = table.latex()
        bare = re.sub(r'\\[{}]', '', source)
        assert bare.count('{') == bare.count('}')
        assert re.findall(r'\\begin\{(\w+)\}', source) == re.findall(r'\\end\{(\w+)\}', source)[::-1]
        assert not re.search(r'[^\x00-\xff]', source)
        lines = [line for line in source.splitlines() if line.endswith(r'\\')]
        assert len(lines) == 1 + bool(table.groups()) + len(table.lines)
        assert {latex_columns(line) for line in lines} == {len(table.columns)}
    assert r'\textbf{2.0}' in AWKWARD.latex()
    assert r'\multicolumn{2}{l}{over}' in AWKWARD.latex()
    assert r'\cmidrule(lr){2-3}' in AWKWARD.latex()


def test_latex_escapes():
    assert latex('a_b & 5 % $x$ {y} #1') == r'a\_b \& 5 \% \$x\$ \{y\} \#1'
    assert latex('−1.0 ± 0.2 – Δ') == r'$-$1.0 $\pm$ 0.2 -- $\Delta$'
    assert latex('[x]*') == '{[}x{]}{*}'
    assert latex('ñ ő 中') == r'ñ o \texttt{U+4E2D}'


def test_a_line_of_another_length_is_refused():
    with pytest.raises(ValueError, match='1 cells for 2 columns'):
        Table('t', (Column('a'), Column('b')), (Line(('x',)),))


def test_tidy_has_one_number_a_line(study):
    records = {(x['target'], x['intermediate'], x['language']): x for x in tidy(study)}
    assert len(records) == 3 * (12 + 2) + 3 * (11 + 1)
    mean = records['xnli', 'mnli', 'mean:zero-shot']
    assert mean['value'] == pytest.approx(54.25 + 38 / 11)
    assert mean['delta'] == pytest.approx(38 / 11)
    assert (mean['seeds'], mean['n']) == (2, None)
    assert records['xnli', 'none', 'sw']['delta'] is None


def test_write_tables(tmp_path, study):
    paths = write_tables(tmp_path / 'new', study)
    assert sorted(path.name for path in paths) == ['tables.csv', 'tables.md', 'tables.tex']
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['tables.csv', 'tables.md', 'tables.tex']
    with open(tmp_path / 'new' / 'tables.csv', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert rows[0]['language'] == 'en'
    assert rows[0]['value'] == '60.2500'
    document = (tmp_path / 'new' / 'tables.tex').read_text(encoding='utf-8')
    assert document.startswith(r'\documentclass')
    assert document.count(r'\begin{table}') == 4
