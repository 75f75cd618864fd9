"""Result rows are data: no path, no markup and no mark of a note comes from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.report import RowsError, make_study, read_rows, write_report
from xlmr_flax.report.tables import csv_text


def write(folder: Path, make_row, **fields: object) -> Path:
    folder.mkdir(parents=True)
    rows = [make_row(language, seed=seed, **fields) for language in ('en', 'de', 'sw') for seed in (1, 2)]
    (folder / 'results.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return folder


@pytest.mark.parametrize('target', ['../../../pwned', '/tmp/pwned', '.hidden/x'])
def test_a_target_that_is_a_path_stays_in_the_report(tmp_path: Path, make_row, target: str) -> None:
    results = write(tmp_path / 'a' / 'b' / 'results', make_row, target=target)
    assert main(['report', f'--results={results}']) == 0
    write_report(results / 'index.html', make_study(read_rows(results / 'results.jsonl')))
    outside = [p for p in tmp_path.rglob('*') if p.is_file() and results not in p.parents]
    assert outside == []
    assert not Path('/tmp/pwned').exists()


@pytest.mark.parametrize('target', ['x\x01999\x01', 'x\x009\x00', '<script>alert(1)</script>', 'a\x1bb'])
def test_control_characters_and_markup_are_text(tmp_path: Path, make_row, target: str) -> None:
    results = write(tmp_path / 'results', make_row, target=target)
    page = write_report(tmp_path / 'page' / 'index.html', make_study(read_rows(results / 'results.jsonl')))
    page = page.read_text(encoding='utf-8')
    assert '<script>alert' not in page
    assert not any(c in page for c in '\x00\x01\x1b')


@pytest.mark.parametrize('line', ['{"a": "\\ud83d"}', '[' * 100_000, '{"value": NaN}', '1' * 5000])
def test_a_line_that_is_no_row_names_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / 'results.jsonl'
    path.write_text(line + '\n', encoding='utf-8')
    with pytest.raises(RowsError, match=r'results\.jsonl:1'):
        read_rows(path)
    path.write_bytes(b'\xff\n')
    with pytest.raises(RowsError, match=r'results\.jsonl:1'):
        read_rows(path)


def test_a_cell_is_no_formula_and_floats_are_rounded_where_asked() -> None:
    rows = [{'target': '=1+1', 'value': 1 / 3}, {'target': '@x', 'value': 2.0}]
    assert csv_text(rows, decimals=6) == "target,value\n'=1+1,0.333333\n'@x,2.0\n"
    assert csv_text(rows[:1]) == f"target,value\n'=1+1,{1 / 3!r}\n"
