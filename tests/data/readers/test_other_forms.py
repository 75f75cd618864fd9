"""Files of the right name in another form: read right, or refused with the line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from xlmr_flax.data.readers.tables import Problem, read_rows, read_text
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, read_split
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import ChoiceExample, PairExample, RowError, Table

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


def test_each_word_may_have_another_languages_prefix(tmp_path: Path) -> None:
    ((_, found),) = rows(tmp_path / 'f', 'en:Ada\tB-PER\nde:schrieb\tO\nsimple:.\tO\n')
    assert isinstance(found, dict)
    assert found['words'] == ['Ada', 'schrieb', '.']


def test_a_word_with_a_colon_is_left_alone(tmp_path: Path) -> None:
    ((_, found),) = rows(tmp_path / 'f', 'en:Ada\tB-PER\nwrote\tO\n.\tO\n')
    assert isinstance(found, dict)
    assert found['words'] == ['en:Ada', 'wrote', '.']


@pytest.mark.parametrize(
    ('text', 'lines'),
    [
        ('en:Ada\tB-PER\nLondon\tB-LOC\n', [2]),
        ('en:Ada\tB-PER\nen:saw\tO\nen:it\tO\n\n' + 'x\tO\n' * 9 + '\nen:y\tO\n', [5]),  # two files joined
        ('Ada,B-PER\nran,O\n', [1]),
        ('Ada\u00a0B-PER\nran\u00a0O\n', [1]),
        ('word;tag\n\nAda;PROPN\n\nran;VERB\n', [3, 5]),
    ],
)
def test_lines_that_would_keep_a_prefix_or_a_tag(text: str, lines: list[int], tmp_path: Path) -> None:
    assert [line for line, row in rows(tmp_path / 'f', text) if isinstance(row, Problem)] == lines


@pytest.mark.parametrize('mark', ['-DOCSTART-', '-DOCSTART-\tO', '-DOCSTART- O'])
def test_the_mark_of_a_document_is_no_word(mark: str, tmp_path: Path) -> None:
    found = rows(tmp_path / 'f', f'{mark}\n\nAda\tB-PER\n\n{mark}\nOslo\tB-LOC\n')
    assert [(line, row['words'] if isinstance(row, dict) else row) for line, row in found] == [
        (3, ['Ada']),
        (6, ['Oslo']),
    ]


@pytest.mark.parametrize('letters', ['AABCDE', 'ABCDEF', 'ABCD'])
def test_every_choice_has_a_letter_of_its_own(letters: str) -> None:
    question = {'stem': 's', 'choices': [{'label': letter, 'text': str(i)} for i, letter in enumerate(letters)]}
    task = get_task('commonsenseqa')
    with pytest.raises(RowError, match='question'):
        task.parse({'id': '1', 'answerKey': 'A', 'question': question}, task, 'en')


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

    for deps, tag in (('3:nsubj|4:nsubj:xsubj', 'AUX'), ('3:nsubj', 'PRON'), ('_', 'PRON'), ('8.1:x', 'PRON')):
        path = tmp_path / 'en_x-ud-test.conllu'
        path.write_text(text(deps), encoding='utf-8')
        ((_, row),) = read_rows(path, Table('f', 'conllu', ()))
        assert isinstance(row, dict)
        assert (row['words'][0], row['tags'][0]) == ("I'll", tag), deps


def test_a_row_may_lack_the_last_fields_of_a_header(tmp_path: Path) -> None:
    """SNLI's training rows lack the annotators' labels, which nothing reads; a missing sentence is a bad row."""
    path = tmp_path / 'intermediate' / 'snli' / 'snli_1.0_train.txt'
    path.parent.mkdir(parents=True)
    header = 'gold_label\tsentence1\tsentence2\tpairID\tlabel1\tlabel2\n'
    path.write_text(header + 'neutral\ta\tb\t1\tneutral\nneutral\ta\tb\nneutral\ta\n', encoding='utf-8')
    bad: list[BadRow] = []
    rows = read_split(get_task('snli'), 'en', 'train', tmp_path, skip_bad_rows=bad)
    assert [(row.text_a, row.text_b) for row in rows if isinstance(row, PairExample)] == [('a', 'b')] * 2
    assert [row.line for row in bad] == [4]


def test_cosmos_qa_has_its_test_rows_as_json_lines(tmp_path: Path) -> None:
    path = tmp_path / 'intermediate' / 'cosmosqa' / 'test.jsonl'
    path.parent.mkdir(parents=True)
    row = {'id': 'x', 'context': 'c', 'question': 'q'} | {f'answer{i}': f'a{i}' for i in range(4)}
    path.write_text(json.dumps(row) + '\n', encoding='utf-8')
    (found,) = read_split(get_task('cosmosqa'), 'en', 'test', tmp_path)
    assert isinstance(found, ChoiceExample)
    assert (found.choices, found.label) == (('a0', 'a1', 'a2', 'a3'), None)


@pytest.mark.parametrize(
    ('task', 'name', 'row'),
    [
        ('control', 'control/test.jsonl', {'uid': 1, 'premise': 'p', 'hypothesis': 'h', 'label': 'e'}),
        ('logiqa2', 'logiqa2/LOGIQA/dev.txt',
         {'id': 1, 'text': 't', 'question': 'q', 'options': list('abcd'), 'answer': 2}),
    ],
)  # fmt: skip
def test_files_that_repeat_an_id_are_read_whole(task: str, name: str, row: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / 'logic' / name
    path.parent.mkdir(parents=True)
    path.write_text((json.dumps(row) + '\n') * 2, encoding='utf-8')
    rows = read_split(get_task(task), 'en', path.stem, tmp_path)
    assert [each.id for each in rows] == [f'{task}-{path.stem}-en-{i}' for i in range(2)]


LINES = Table('f', 'lines', ('text',), header=False)


@pytest.mark.parametrize('form', [CONLL, LINES], ids=['conll', 'lines'])
@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (b'een\rtwee\rdrie\r', 'carriage returns'),
        (b'\n{"text": "een"}\n{"text": "twee"}\n', 'line 2: JSON lines'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n', 'Git LFS'),
        (b'\xef\xbb\xbf\n<!DOCTYPE html>\n<p>404</p>\n', 'HTML'),
        (gzip.compress(b'een\n', mtime=0), 'gzip'),
        ('een\ntwee\n'.encode('utf-16-le'), 'line 1: not UTF-8'),
        (b'een\ntwee\n' + b'\0' * 9, 'line 3: not UTF-8'),
        ('een\n'.encode('utf-16'), 'line 1: not UTF-8'),
    ],
)
def test_another_kind_of_file_is_no_text(tmp_path: Path, form: Table, content: bytes, named: str) -> None:
    path = tmp_path / 'f'
    path.write_bytes(content)
    with pytest.raises(DataError, match=named) as error:
        list(read_rows(path, form))
    assert str(error.value).startswith(str(path))


def test_texts_that_look_like_another_kind_of_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / 'f'
    texts = ['{a set of words', 'PK \u0003', 'a\rb', '<p>', 'version 1']
    path.write_text('\n'.join(texts) + '\n', encoding='utf-8', newline='\n')
    assert [row['text'] for _, row in read_rows(path, LINES) if isinstance(row, dict)] == texts
    path.write_text('one text\r', encoding='utf-8', newline='')
    assert [row for _, row in read_rows(path, LINES)] == [{'text': 'one text'}]
    assert read_text(path) == 'one text\r'
