"""Which files a table reads: patterns, alternatives, further paths, labels beside them, what only stands in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from xlmr_flax.data.readers.paths import Found, MissingFile, find_files, stand_in_notes
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_split
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Table, TagExample

TASK = dataclasses.replace(get_task('xnli'), languages=('en', 'de'), licence='a licence', source='a home')
OTHER = Table('stand/{language}.tsv', 'tsv', (), stand_in='something else')


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, table: Table, language: str = 'de') -> list[str]:
    return [item.path.relative_to(root).as_posix() for item in find_files(TASK, table, language, root)]


def test_the_first_place_that_has_files(tmp_path: Path) -> None:
    table = Table('real/{language}.tsv', 'tsv', (), alternatives=(OTHER,))
    with pytest.raises(
        MissingFile, match=r"real/de\.tsv: no such file, .* in 'de' \(nor stand/de\.tsv\)\. Licence: a licen"
    ):
        find_files(TASK, table, 'de', tmp_path)
    touch(tmp_path, 'stand/de.tsv')
    assert found(tmp_path, table) == ['stand/de.tsv']
    assert find_files(TASK, table, 'de', tmp_path)[0].table is OTHER
    touch(tmp_path, 'real/de.tsv')
    assert found(tmp_path, table) == ['real/de.tsv']


def test_patterns_match_files_in_order_of_name(tmp_path: Path) -> None:
    touch(tmp_path, '02/b.x', '02/a.x', '13/c.x', '20/d.x', '01/e.y')
    (tmp_path / '01' / 'folder.x').mkdir()
    table = Table('0[0-9]/*.x', 'tsv', (), also=('1[0-8]/*.x',))
    assert found(tmp_path, table) == ['02/a.x', '02/b.x', '13/c.x']


@pytest.mark.parametrize(('there', 'lacking'), [('and.tsv', 'or.tsv'), ('or.tsv', 'and.tsv')])
def test_a_part_of_the_files_is_not_read(there: str, lacking: str, tmp_path: Path) -> None:
    table = Table('whole.tsv', 'tsv', (), alternatives=(Table('and.tsv', 'tsv', (), also=('or.tsv',)), OTHER))
    touch(tmp_path, there, 'stand/de.tsv')
    with pytest.raises(MissingFile, match=rf'{lacking}: no such file, needed with .*{there}') as caught:
        find_files(TASK, table, 'de', tmp_path)
    assert caught.value.lacking == (tmp_path / lacking,)
    touch(tmp_path, lacking)
    assert found(tmp_path, table) == ['and.tsv', 'or.tsv']
    patterns = Table('0[0-9]/*.x', 'tsv', (), also=('1[0-8]/*.x', '99/*.x'))
    touch(tmp_path, '02/a.x', '13/b.x')
    with pytest.raises(MissingFile) as caught:
        find_files(TASK, patterns, 'de', tmp_path)
    assert caught.value.lacking == (tmp_path / '99/*.x',)


def test_the_closest_language_of_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, 'UD_A/dee_a-x', 'UD_B/fr_b-x')
    with pytest.raises(DataError, match=r"there are files for other languages \(did you mean 'dee'\?\)"):
        find_files(TASK, Table('UD_*/{language}_*-x', 'conllu', ()), 'de', tmp_path)


def test_every_language(tmp_path: Path) -> None:
    touch(tmp_path, 'en.tsv', 'de.tsv')
    table = Table('{language}.tsv', 'tsv', (), every_language=True)
    assert [(item.language, item.path.name) for item in find_files(TASK, table, 'de', tmp_path)] == [
        ('en', 'en.tsv'),
        ('de', 'de.tsv'),
    ]


def test_labels_beside(tmp_path: Path) -> None:
    table = Table('{language}.jsonl', 'jsonl', (), label_file='{language}.lst')
    touch(tmp_path, 'de.jsonl')
    with pytest.raises(DataError, match=r'de\.lst: no such file, needed for the labels of .*de\.jsonl'):
        find_files(TASK, table, 'de', tmp_path)
    touch(tmp_path, 'de.lst')
    assert find_files(TASK, table, 'de', tmp_path)[0].label_path == tmp_path / 'de.lst'


def test_what_stands_in(tmp_path: Path) -> None:
    real, other = Found(Table('a', 'tsv', ()), 'de', tmp_path / 'a'), Found(OTHER, 'de', tmp_path / 'b')
    assert stand_in_notes([real], tmp_path) == []
    assert stand_in_notes([real, other, other], tmp_path) == ['something else']
    (tmp_path / 'MANIFEST.tsv').write_text(
        'path\tnote\na\tSTAND-IN: dev rows\nb\tSTAND-IN\nc\twhole\n', encoding='utf-8'
    )
    assert stand_in_notes([real, other], tmp_path) == ['STAND-IN: dev rows', 'something else']
    (tmp_path / 'MANIFEST.tsv').write_text('path\trows\na\tSTAND-IN\n', encoding='utf-8')
    assert stand_in_notes([real], tmp_path) == [], 'a list of another form says nothing'


def test_treebanks_are_read_in_the_order_of_their_file_names(tmp_path: Path) -> None:
    """XTREME orders by file name; by folder name UD_English-PUD would stand before UD_English-ParTUT."""
    for folder, name in (('PUD', 'pud'), ('ParTUT', 'partut'), ('EWT', 'ewt')):
        path = tmp_path / 'xtreme' / 'udpos' / f'UD_English-{folder}' / f'en_{name}-ud-test.conllu'
        path.parent.mkdir(parents=True)
        path.write_text(f'1\t{name}\t_\tNOUN\t_\t_\t0\troot\t_\t_\n\n', encoding='utf-8')
    sentences = read_split(get_task('udpos'), 'en', 'test', tmp_path)
    assert [s.words[0] for s in sentences if isinstance(s, TagExample)] == ['ewt', 'partut', 'pud']


def test_a_head_that_is_no_ascii_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'xtreme' / 'udpos' / 'UD_English-EWT' / 'en_ewt-ud-test.conllu'
    path.parent.mkdir(parents=True)
    words = '1-2\tdel\t_\t_\t_\t_\t_\t_\t_\t_\n1\tde\t_\tADP\t_\t_\t²\tx\t_\t_\n2\tel\t_\tDET\t_\t_\t1\tx\t_\t_\n\n'
    path.write_text(words, encoding='utf-8')
    with pytest.raises(DataError, match=r'en_ewt-ud-test.conllu, line 2: .* in HEAD'):
        read_split(get_task('udpos'), 'en', 'test', tmp_path)
