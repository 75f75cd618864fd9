"""Tagging files of the right name in another form: read right, or refused with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmr_flax.data.tables import Problem, read_rows
from xlmr_flax.tasks.base import Table

CONLL = Table('f', 'conll', ())


def rows(path: Path, text: str) -> list[tuple[int, object]]:
    path.write_text(text, encoding='utf-8')
    return list(read_rows(path, CONLL))


@pytest.mark.parametrize('prefix', ['en:', 'sw:', 'zh-yue:'])
def test_a_prefix_of_the_language_is_taken_off(tmp_path: Path, prefix: str) -> None:
    words = [('Ada', 'B-PER'), (':', 'O'), ('en:x', 'O')]
    text = ''.join(f'{prefix}{word}\t{tag}\n' for word, tag in words) + '\n'
    (found,) = [row for _, row in rows(tmp_path / 'f', text + text)][:1]
    assert isinstance(found, dict)
    assert (found['words'], found['tags']) == (['Ada', ':', 'en:x'], ['B-PER', 'O', 'O'])


def test_a_word_with_a_colon_is_left_alone(tmp_path: Path) -> None:
    ((_, found),) = rows(tmp_path / 'f', 'en:Ada\tB-PER\nwrote\tO\n')
    assert isinstance(found, dict)
    assert found['words'] == ['en:Ada', 'wrote']


@pytest.mark.parametrize('separator', [' ', '\t'])
def test_four_columns_are_refused_with_their_line(tmp_path: Path, separator: str) -> None:
    lines = ['-DOCSTART- -X- -X- O', '', 'Nairobi NNP B-NP B-LOC', 'hosts VBZ B-VP O', '']
    found = rows(tmp_path / 'f', '\n'.join(lines).replace(' ', separator))
    assert [(line, isinstance(row, Problem)) for line, row in found] == [(1, True), (3, True)]


def test_a_blank_parts_a_word_from_its_tag(tmp_path: Path) -> None:
    ((_, found),) = rows(tmp_path / 'f', 'Nairobi B-LOC\n. O\n')
    assert isinstance(found, dict)
    assert (found['words'], found['tags']) == (['Nairobi', '.'], ['B-LOC', 'O'])


def test_a_fused_token_is_tagged_by_the_enhanced_graph(tmp_path: Path) -> None:
    """'I' hangs on two verbs in DEPS and has more ancestors than "'ll"; by HEAD alone both have as many."""

    def text(deps: str) -> str:
        lines = [
            "1-2\tI'll" + '\t_' * 8,
            f'1\tI\tI\tPRON\t_\t_\t3\tnsubj\t{deps}\t_',
            "2\t'll\twill\tAUX\t_\t_\t3\taux\t3:aux\t_",
            '3\tstart\tstart\tVERB\t_\t_\t0\troot\t0:root\t_',
            '4\tlooking\tlook\tVERB\t_\t_\t3\txcomp\t3:xcomp\t_',
        ]
        return '\n'.join(lines) + '\n'

    for deps, tag in (('3:nsubj|4:nsubj:xsubj', 'AUX'), ('3:nsubj', 'PRON'), ('_', 'PRON'), ('8.1:x|²:y', 'PRON')):
        path = tmp_path / 'en_x-ud-test.conllu'
        path.write_text(text(deps), encoding='utf-8')
        ((_, row),) = read_rows(path, Table('f', 'conllu', ()))
        assert isinstance(row, dict)
        assert (row['words'][0], row['tags'][0]) == ("I'll", tag), deps
