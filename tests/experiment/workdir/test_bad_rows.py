"""Rows that a run leaves out: once each, said, listed, remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pawsx_files import BAD, HEADER, ROWS, write_pawsx

from xlmr_flax.config import Config
from xlmr_flax.data.cache import entry_name
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, read_split
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.workdir.bad_rows import FILE, BadRows, collector, count_among
from xlmr_flax.kinds import kind_of
from xlmr_flax.tasks import get_task


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pawsx(tmp_path / 'data')


def test_a_row_counts_once_and_the_first_ones_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'deep' / 'bad.tsv'
    rows = BadRows(path, shown=2)
    assert not path.exists() and not rows
    found = [BadRow('a.tsv', line, f'reason\t{line}') for line in (3, 5, 8, 9)]
    rows.extend([*found, found[0]])
    rows.append(found[1])
    assert [row.line for row in rows] == [3, 5, 8, 9]
    listed = path.read_text('utf-8').splitlines()
    assert listed == ['file\tline\treason', *(f'a.tsv\t{line}\treason {line}' for line in (3, 5, 8, 9))]
    rows.close()
    said = capsys.readouterr().out.splitlines()
    assert said == [
        'left out: a.tsv, line 3: reason 3',
        'left out: a.tsv, line 5: reason 5',
        f'left out: further rows, listed in {path}',
        f'4 rows left out, listed in {path}',
    ]
    assert count_among(rows, [Path('a.tsv'), Path('c.tsv')]) == 4
    assert count_among(rows, [Path('b.tsv')]) == 0


def test_a_later_start_knows_what_an_earlier_one_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / FILE
    first, second = (BadRow('a.tsv', line, 'reason') for line in (1, 2))
    BadRows(path).append(first)
    with path.open('a') as file:
        file.write('a.tsv\t1')  # cut by a kill
    again = collector(True, tmp_path)
    assert again is not None and again == [first]
    with path.open('a') as file:
        file.write('\n')
    capsys.readouterr()
    again.extend([first, second])
    assert capsys.readouterr().out == 'left out: a.tsv, line 2: reason\n'
    assert BadRows(path) == [first, second]


def test_another_file_is_not_taken_for_a_list(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('something else\n')
    with pytest.raises(DataError, match="not a list of rows that were left out: its header is 'something else'"):
        collector(True, tmp_path)
    assert collector(False, tmp_path) is None


def test_the_reader_appends_to_it(root: Path, tmp_path: Path) -> None:
    rows, task = BadRows(tmp_path / FILE), get_task('pawsx')
    examples = read_split(task, 'de', 'test', root, skip_bad_rows=rows)
    assert [example.id for example in examples] == [str(i) for i in range(6)]
    assert [row.line for row in rows] == [3, 4]
    read_split(task, 'de', 'test', root, skip_bad_rows=rows)
    assert len(rows) == 2
    assert count_among(rows, [root / 'xtreme/pawsx/x-final/de/test_2k.tsv']) == 2


def test_a_whole_run(
    root: Path, tmp_path: Path, config_of: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad rows in front of the training, dev and test rows: an error that names the first, or a run that lists all."""
    folder = root / 'xtreme' / 'pawsx' / 'x-final'
    files = [folder / name for name in ('en/train.tsv', 'en/dev_2k.tsv', 'en/test_2k.tsv')]
    for path in files:
        path.write_text(HEADER + BAD + ROWS, 'utf-8')
    settings = {'targets': ('pawsx',), 'intermediate': ('none',), 'data_root': str(root),
                'evaluation__languages': {'pawsx': ('en', 'de')}}  # fmt: skip
    with pytest.raises(DataError, match=r"_2k\.tsv, line 2, column 'label': unknown label 'yes'"):
        Runner.open(config_of(**settings), tmp_path / 'strict', 'x').run()
    runner = Runner.open(config_of(**settings, skip_bad_rows=True), tmp_path / 'w', 'x')
    rows = runner.run()
    assert [(row['language'], row['n'], row['left_out']) for row in rows] == [('en', 6, 2), ('de', 6, 2)]
    assert {row.file for row in BadRows(tmp_path / 'w' / FILE)} == {*map(str, files), str(folder / 'de/test_2k.tsv')}
    assert '8 rows left out, listed in' in capsys.readouterr().out
    before = (tmp_path / 'w' / FILE).read_bytes()
    assert Runner.open(config_of(**settings, skip_bad_rows=True), tmp_path / 'w', 'x').run() == rows
    assert (tmp_path / 'w' / FILE).read_bytes() == before


def test_leaving_out_changes_no_digest(root: Path) -> None:
    """One content has one outcome: an error or the rows that can be read. So what names a run need not know of it."""
    task = get_task('pawsx')
    before = Split(task, 'de', 'test', root).digest()
    read_split(task, 'de', 'test', root, skip_bad_rows=[])
    assert Split(task, 'de', 'test', root).digest() == before


def test_tokens_of_fewer_rows_are_another_entry_of_the_cache(root: Path, tiny_tokenizer: Path) -> None:
    task, path = get_task('pawsx'), root / 'xtreme/pawsx/x-final/de/test_2k.tsv'
    found = [read_split(task, 'de', 'test', root, skip_bad_rows=[])]
    path.write_text(HEADER + '90\tthe cat\ta dog\t1\n' + ROWS, 'utf-8')  # the row is repaired
    found.append(read_split(task, 'de', 'test', root))
    assert (len(found[0]), len(found[1])) == (6, 7)
    tokenizer = Tokenizer(tiny_tokenizer, 2048)
    assert len({entry_name(task, examples, tokenizer, 32, kind_of(task).encode) for examples in found}) == 2
