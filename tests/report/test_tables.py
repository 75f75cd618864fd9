"""Tables: the numbers in them, and what the three renderings make of them."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess
from typing import Any

import pytest

from xlmr_flax.report.latex import latex, latex_document, latex_table
from xlmr_flax.report.rows import RowsError, Score
from xlmr_flax.report.study import make_study
from xlmr_flax.report.table import BLANK, Column, Line, Table, fixed, signed, text
from xlmr_flax.report.tables import all_tables, caveats, sampling_margin, side_by_side, tidy, write_tables


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


def test_side_by_side_knows_the_run_of_each_number(make_row):
    rows = [make_row('de', 60, run='a1', preset='p'), make_row('de', 61, run='a2', seed=1)]
    rows += [make_row('de', 70, run='b1', intermediate='mnli')]
    table = side_by_side(rows, 'xnli')
    heads = [c.head for c in table.columns]
    assert table.hints[0, heads.index('none')] == 'run a1 (seed 0), run a2 (seed 1); preset p'
    assert table.hints[0, heads.index('Δ mnli')] == 'run b1 (seed 0)'


def test_side_by_side_without_english_has_one_mean(study):
    table = side_by_side(study, 'tatoeba')
    assert [line.cells[0] for line in table.lines if line.mean] == ['zero-shot mean (11 languages)']
    assert 'tatoeba: Trained contrastively: its retrieval scores start high.' in table.notes


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
    names = [table.name for table in all_tables(make_study(rows))]
    assert [name for name in names if name.startswith('differences')] == ['differences-1', 'differences-2']
    assert len(set(names)) == len(names)


def test_notes_say_chance_training_language_and_margin(study, make_row):
    notes = ' '.join(side_by_side(study, 'xnli').notes)
    assert 'Chance: 33.3.' in notes
    assert 'en is the training language' in notes
    assert '§ Stand-in data, not the dataset itself: XNLI cut <small>.' in notes
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


@pytest.mark.parametrize('value', [-5.875, 66.25, 8.75, 0.125])
def test_a_number_half_way_between_two_does_not_depend_on_its_last_digits(value: float) -> None:
    decimals = 1 if value * 100 % 1 == 0 else 2
    near = [math.nextafter(value, -math.inf), value, math.nextafter(value, math.inf)]
    assert len({f'{v:.{decimals}f}' for v in near}) == 2
    assert len({fixed(v, decimals) for v in near}) == len({signed(v, decimals) for v in near}) == 1
    assert len({text(Score(v, v), Column('x', 'score', decimals=decimals)) for v in near}) == 1


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
    for table in [AWKWARD, *all_tables(make_study(study))]:
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
    for table in all_tables(make_study(study)):
        rows = list(csv.reader(io.StringIO(table.csv())))
        assert len({len(row) for row in rows}) == 1
        if table.name.startswith('xnli'):
            assert not any(mark in table.csv() for mark in '–−±†')


def latex_columns(line: str) -> int:
    """Columns that a line of a tabular fills."""
    spans = [int(n) for n in re.findall(r'\\multicolumn\{(\d+)\}', line)]
    return len(re.findall(r'(?<!\\)&', line)) + 1 + sum(spans) - len(spans)


def test_latex_is_balanced_and_every_line_fills_the_columns(study):
    for table in [AWKWARD, *all_tables(make_study(study))]:
        source = latex_table(table)
        bare = re.sub(r'\\[{}]', '', source)
        assert bare.count('{') == bare.count('}')
        assert re.findall(r'\\begin\{(\w+)\}', source) == re.findall(r'\\end\{(\w+)\}', source)[::-1]
        assert not re.search(r'[^\x00-\xff]', source)
        lines = [line for line in source.splitlines() if line.endswith(r'\\')]
        assert len(lines) == 1 + bool(table.groups()) + len(table.lines)
        assert {latex_columns(line) for line in lines} == {len(table.columns)}
    assert r'\textbf{2.0}' in latex_table(AWKWARD)
    assert r'\multicolumn{2}{l}{over}' in latex_table(AWKWARD)
    assert r'\cmidrule(lr){2-3}' in latex_table(AWKWARD)


def test_latex_escapes():
    assert latex('a_b & 5 % $x$ {y} #1') == r'a\_b \& 5 \% \$x\$ \{y\} \#1'
    assert latex('−1.0 ± 0.2 – Δ') == r'$-$1.0 $\pm$ 0.2 -- $\Delta$'
    assert latex('[x]*') == '{[}x{]}{*}'
    assert latex('ñ ő 中') == r'ñ o \texttt{U+4E2D}'


def test_a_line_of_another_length_is_refused():
    with pytest.raises(ValueError, match='1 cells for 2 columns'):
        Table('t', (Column('a'), Column('b')), (Line(('x',)),))


def test_tidy_has_one_number_a_line_in_full_precision_with_its_runs(study):
    rows = [row | {'run': f'r{row["seed"]}', 'preset': 'p', 'command': 'run it'} for row in study]
    records = {(x['target'], x['intermediate'], x['language']): x for x in tidy(make_study(rows))}
    assert len(records) == 3 * (12 + 2) + 3 * (11 + 1)
    mean = records['xnli', 'mnli', 'mean:zero-shot']
    assert mean['value'] == pytest.approx(54.25 + 38 / 11)
    assert mean['delta'] == pytest.approx(38 / 11)
    assert (mean['seeds'], mean['n']) == (2, None)
    assert (mean['runs'], mean['presets'], mean['commands']) == ('r0:seed0 | r1:seed1', 'p', 'run it')
    assert mean['stand_in'] is True
    assert records['xnli', 'none', 'sw']['delta'] is None


def test_write_tables(tmp_path, study):
    write_tables(tmp_path / 'new', make_study(study), 'A_title', ['one & two'], 'xlmr-flax run')
    written = {p.relative_to(tmp_path / 'new').as_posix() for p in (tmp_path / 'new').rglob('*') if p.is_file()}
    assert written >= {
        'tables.md',
        'tables.tex',
        'tables.csv',
        'results.csv',
        'latex/differences.tex',
        'latex/runs.tex',
    }
    with open(tmp_path / 'new' / 'tables.csv', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]['language'], rows[0]['value']) == ('en', '60.25')
    with open(tmp_path / 'new' / 'results.csv', encoding='utf-8') as file:
        raw = list(csv.DictReader(file))
    assert len(raw) == len(study)
    assert [float(row['value']) for row in raw] == [row['value'] for row in study]
    document = (tmp_path / 'new' / 'tables.tex').read_text(encoding='utf-8')
    assert document.startswith(r'\documentclass')
    assert r'\section*{A\_title}' in document
    assert r'\item one \& two' in document
    assert (tmp_path / 'new' / 'tables.md').read_text(encoding='utf-8').startswith('# A\\_title\n\n- one & two')
    with pytest.raises(RowsError, match='no rows'):
        write_tables(tmp_path, make_study([]))


def columns_of(source: str) -> list[int]:
    return [len(spec) for spec in re.findall(r'\\begin\{tabular\}\{([lr]+)\}', source)]


def wide(columns: int, lines: int = 3) -> Table:
    heads = tuple(Column(f'language{j}', 'score', best=True) for j in range(columns))
    rows = tuple(Line(('arm', *(10.0 * i + j for j in range(columns)))) for i in range(lines))
    return Table('Wide', (Column('Arm'), *heads), rows, ('a note',), 'row')


def test_a_wide_table_is_turned_then_split_and_never_loses_a_column():
    assert 'landscape' not in latex_table(wide(5))
    turned = latex_table(wide(11))
    assert r'\begin{landscape}' in turned
    assert columns_of(turned) == [12]
    split = latex_table(wide(40))
    found = columns_of(split)
    assert len(found) > 1
    assert sum(found) == 40 + len(found)  # the first column again in each
    assert re.findall(r'language\d+', split) == [f'language{j}' for j in range(40)]
    assert split.count('a note') == 1
    assert split.count(r'\textbf{') == 3  # the best of the whole row, not of each part
    assert f'(1 of {len(found)})' in split


def test_a_long_table_goes_on_in_another():
    source = latex_table(wide(2, lines=200))
    assert len(columns_of(source)) > 2
    assert source.count('arm & ') == 200


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('pdflatex') is None, reason='no pdflatex')
def test_latex_compiles_without_a_box_that_is_too_wide(tmp_path, study):
    tables = [AWKWARD, wide(11), wide(40), wide(2, lines=200), *all_tables(make_study(study))]
    (tmp_path / 'all.tex').write_text(latex_document(tables, 'A & B', ['50 % of _']), encoding='utf-8')
    command = ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'all.tex']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert 'Overfull' not in done.stdout
    assert 'too large for page' not in done.stdout


def test_left_out_rows_and_tfds_are_said(make_row):
    rows = [make_row('de', 60, left_out=2), make_row('sw', 40, left_out=1000), make_row('fr', 50)]
    rows += [
        make_row('de', 61, left_out=2, intermediate='mnli'),
        make_row('de', 1, target='pawsx', tfds='paws_x:1.0.0'),
    ]
    assert caveats(rows) == [
        'xnli: test rows that could not be read are left out of the scores (de 2, sw 1,000).',
        'pawsx: read from TFDS (paws_x:1.0.0), not from the official files.',
    ]
    assert caveats([make_row('de', 60)]) == []


def test_collapsed_runs_are_counted_and_named(study: list[dict[str, Any]]) -> None:
    def rows(collapsed: dict[tuple[str, str, int], str]) -> list[dict[str, Any]]:
        return [
            {**row, 'collapsed': collapsed.get((row['intermediate'], row['target'], row['seed']), '')} for row in study
        ]

    how = 'mnli dev: neutral in 100 of 100 rows'
    [note] = [note for note in caveats(rows({('mnli', 'xnli', 1): how})) if 'collapsed' in note]
    assert note.startswith('1 of 12 trained runs') and f'mnli on xnli, seed 1 ({how})' in note
    assert not [note for note in caveats(rows({})) + caveats(study) if 'collapsed' in note]
