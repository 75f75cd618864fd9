"""Messages of user errors: long fields of damaged files are cut, whatever reader they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmr_flax.data.expression import Expression, ExpressionError
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, read_split
from xlmr_flax.scoring import files
from xlmr_flax.tasks import get_task
from xlmr_flax.util.errors import UserError, quote, shorten

LONG = 'x' * 1_000_000


def test_the_middle_of_a_long_text_is_left_out() -> None:
    assert shorten('abc') == 'abc'
    cut = shorten(f'begin {LONG} end', 100)
    assert len(cut) < 120
    assert cut.startswith('begin x')
    assert cut.endswith('x end')
    assert len(quote(LONG)) < 200


@pytest.mark.parametrize(
    ('task', 'file', 'text'),
    [
        ('xnli', 'xtreme/xnli/test-en.tsv', f'a\tb\t{LONG}\n'),
        ('panx', 'xtreme/panx/test-en.tsv', f'word\t{LONG}\n'),
        ('panx', 'xtreme/panx/test-en.tsv', f'{LONG} {LONG} {LONG}\n'),
        ('commonsenseqa', 'intermediate/commonsenseqa/dev_rand_split.jsonl', f'{{"id": "{LONG}"}}\n'),
    ],
)
def test_a_bad_row_does_not_repeat_megabytes(task: str, file: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding='utf-8')
    split = 'test' if 'test' in file else 'dev'
    bad: list[BadRow] = []
    assert read_split(get_task(task), 'en', split, tmp_path, skip_bad_rows=bad) == []
    assert 10 < len(bad[0].reason) < 1000
    with pytest.raises(DataError) as caught:
        read_split(get_task(task), 'en', split, tmp_path)
    assert len(str(caught.value)) < 2500
    assert str(path) in str(caught.value)


def test_a_prediction_file_with_a_long_line(tmp_path: Path) -> None:
    path = tmp_path / 'p.tsv'
    path.write_text(f'{LONG}\n', encoding='utf-8')
    with pytest.raises(UserError) as caught:
        files.read_indices(path)
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize('text', ['1' * 400, '0x' + 'f' * 400, '1e400 - t'])
def test_a_rate_with_a_number_that_no_float_holds(text: str) -> None:
    with pytest.raises(ExpressionError, match='too large'):
        Expression(text)
