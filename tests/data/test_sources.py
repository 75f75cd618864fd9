"""From files on disk to examples: on small files written here, and on the folder of real data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.data.readers.paths import resolve_data_root
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, needs_data_root, read_gold, read_pairs, read_split, with_labels
from xlmr_flax.data.split import Split
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import PairExample, TaskError

MNLI_HEADER = 'index\tsentence1\tsentence2\tgold_label\n'


def put(root: Path, path: str, content: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding='utf-8', newline='')
    return file


def anli_row(uid: str, label: str = 'c') -> str:
    return f'{{"uid": "{uid}", "context": "p", "hypothesis": "h", "label": "{label}"}}\n'


def read(root: Path, task: str, language: str, split: str, **more: Any) -> list[Any]:
    return read_split(get_task(task), language, split, root, **more)


def test_examples_have_ids_by_row_number_and_dropped_rows_keep_theirs(tmp_path: Path) -> None:
    header = 'gold_label\tsentence1\tsentence2\n'
    put(tmp_path, 'intermediate/snli/snli_1.0_dev.txt', header + 'neutral\ta\tb\n-\tc\td\nentailment\te\tf\n')
    assert read(tmp_path, 'snli', 'en', 'dev') == [
        PairExample('snli-dev-en-0', 'a', 'b', 2),
        PairExample('snli-dev-en-2', 'e', 'f', 1),
    ]


def test_sources_of_a_split_follow_each_other_and_limit_cuts(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        path = f'intermediate/anli/anli_v1.0/R{number}/dev.jsonl'
        put(tmp_path, path, anli_row(f'{number}a') + anli_row(f'{number}b', 'n'))
    assert [e.id for e in read(tmp_path, 'anli', 'en', 'dev')] == ['1a', '1b', '2a', '2b', '3a', '3b']
    assert [e.id for e in read(tmp_path, 'anli', 'en', 'dev', limit=3)] == ['1a', '1b', '2a']
    assert [e.id for e in read(tmp_path, 'anli_r2', 'en', 'dev')] == ['2a', '2b']
    assert read(tmp_path, 'anli', 'en', 'dev', limit=0) == []


def test_a_public_test_file_without_labels_is_read(tmp_path: Path) -> None:
    put(tmp_path, 'xtreme/xnli/test-sw.tsv', 'a\tb\nc\td\n')
    assert [e.label for e in read(tmp_path, 'xnli', 'sw', 'test')] == [None, None]


def test_rows_that_cannot_be_read_name_file_line_and_column(tmp_path: Path) -> None:
    put(tmp_path, 'intermediate/mnli/train.tsv', MNLI_HEADER + '0\ta\tb\tneutral\n1\ta\tb\tnuetral\n')
    said = r"train\.tsv, line 3, column 'gold_label': unknown label 'nuetral' \(did you mean 'neutral'\?\)"
    with pytest.raises(DataError, match=said):
        read(tmp_path, 'mnli', 'en', 'train')


def test_an_id_twice_names_both_places(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        put(tmp_path, f'intermediate/anli/anli_v1.0/R{number}/dev.jsonl', anli_row('x') + anli_row(f'y{number}'))
    said = r"R2/dev\.jsonl, line 1: id 'x' was used already in .*R1/dev\.jsonl, line 1"
    with pytest.raises(DataError, match=said):
        read(tmp_path, 'anli', 'en', 'dev')


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    put(tmp_path, 'xtreme/xnli/dev-de.tsv', 'a\tb\tneutral\n')
    put(tmp_path, 'xtreme/xnli/test-deu.tsv', 'a\tb\tneutral\n')
    with pytest.raises(DataError) as caught:
        read(tmp_path, 'xnli', 'de', 'test')
    message = str(caught.value)
    assert str(tmp_path / 'xtreme/xnli/test-de.tsv') in message
    assert "did you mean 'deu'?" in message
    assert 'CC BY-NC 4.0' in message
    assert 'https://github.com/facebookresearch/XNLI' in message
    with pytest.raises(DataError, match=r"files for other languages \(did you mean 'yid'\?\)"):
        put(tmp_path, 'xtreme/tatoeba/v1/tatoeba.yid-eng.eng', 'a\n')
        read_pairs(get_task('tatoeba'), 'ydi', 'test', tmp_path)


def test_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('XLMR_DATA_ROOT', raising=False)
    how = 'set --data_root=FOLDER or the environment variable XLMR_DATA_ROOT'
    with pytest.raises(DataError, match=f'no data root: {how}'):
        resolve_data_root()
    with pytest.raises(DataError, match=how):
        read_split(get_task('xnli'), 'en', 'test')
    with pytest.raises(DataError, match=rf"nowhere' \(from --data_root\) is not a folder: {how}"):
        resolve_data_root(tmp_path / 'nowhere')
    monkeypatch.setenv('XLMR_DATA_ROOT', str(tmp_path / 'gone'))
    with pytest.raises(DataError, match='from XLMR_DATA_ROOT'):
        resolve_data_root('')
    assert resolve_data_root(tmp_path) == tmp_path
    monkeypatch.setenv('XLMR_DATA_ROOT', str(tmp_path))
    assert resolve_data_root(None) == tmp_path
    assert needs_data_root(get_task('xnli'), 'test')
    assert not needs_data_root(get_task('world_nli'), 'test')


def test_splits_and_languages_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no split 'validation'"):
        read(tmp_path, 'xnli', 'en', 'validation')
    with pytest.raises(TaskError, match="no language 'ja'"):
        read(tmp_path, 'xnli', 'ja', 'test')
    with pytest.raises(TaskError, match='read_pairs'):
        read(tmp_path, 'tatoeba', 'de', 'test')
    with pytest.raises(TaskError, match='read_split'):
        read_pairs(get_task('xnli'), 'en', 'test', tmp_path)


def test_pairs_of_sentences(tmp_path: Path) -> None:
    put(tmp_path, 'xtreme/tatoeba/v1/tatoeba.deu-eng.deu', 'eins\nzwei\n')
    put(tmp_path, 'xtreme/tatoeba/v1/tatoeba.deu-eng.eng', 'one\ntwo\n')
    english, foreign = read_pairs(get_task('tatoeba'), 'de', 'test', tmp_path)
    assert [(e.id, e.text) for e in english] == [('tatoeba-test-de-0-en', 'one'), ('tatoeba-test-de-1-en', 'two')]
    assert [(f.id, f.text) for f in foreign] == [('tatoeba-test-de-0', 'eins'), ('tatoeba-test-de-1', 'zwei')]
    assert [len(side) for side in read_pairs(get_task('tatoeba'), 'deu', 'test', tmp_path, limit=1)] == [1, 1]


def test_sides_of_different_length(tmp_path: Path) -> None:
    put(tmp_path, 'xtreme/tatoeba/v1/tatoeba.deu-eng.deu', 'eins\nzwei\n')
    put(tmp_path, 'xtreme/tatoeba/v1/tatoeba.deu-eng.eng', 'one\n')
    with pytest.raises(DataError, match=r'eng-?.*eng has 1 lines, .*\.deu has 2'):
        read_pairs(get_task('tatoeba'), 'de', 'test', tmp_path, limit=1)


def test_the_digest_follows_the_bytes(tmp_path: Path) -> None:
    file = put(tmp_path, 'xtreme/xnli/dev-en.tsv', 'a\tb\tneutral\n')
    first = Split(get_task('xnli'), 'en', 'dev', tmp_path).digest()
    assert first == hashlib.sha256(file.read_bytes()).hexdigest()
    put(tmp_path, 'xtreme/xnli/dev-en.tsv', 'a\tb\tneutral')
    assert Split(get_task('xnli'), 'en', 'dev', tmp_path).digest() != first
    assert Split(get_task('xnli'), 'en', 'dev', tmp_path).files() == [file]


def test_a_file_is_digested_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(tmp_path, 'xtreme/xnli/dev-en.tsv', 'a\tb\tcontradiction')
    opened: list[Path] = []
    real = Path.open

    def noted(path: Path, *arguments: Any, **more: Any) -> Any:
        opened.append(path)
        return real(path, *arguments, **more)

    monkeypatch.setattr(Path, 'open', noted)
    digests = {Split(get_task('xnli'), 'en', 'dev', root).digest() for root in (tmp_path, tmp_path, str(tmp_path))}
    assert (len(digests), opened) == (1, [file])
    os.utime(file, ns=(1, 1))
    assert Split(get_task('xnli'), 'en', 'dev', tmp_path).digest() in digests
    assert opened == [file, file]


def test_the_digest_of_the_embedded_world_needs_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('XLMR_DATA_ROOT', raising=False)
    digests = {
        Split(get_task(name), language, split).digest()
        for name, language, split in [
            ('world_nli', 'en', 'dev'),
            ('world_nli', 'en', 'test'),
            ('world_nli', 'de', 'dev'),
            ('world_pairs', 'en', 'dev'),
        ]
    }
    assert len(digests) == 4
    assert Split(get_task('world_nli'), 'en', 'dev').digest() in digests
    assert Split(get_task('world_nli'), 'en', 'dev').files() == []


def test_bad_rows_are_counted_and_listed_instead(tmp_path: Path) -> None:
    rows = ['0\ta\tb\tneutral', '1\ta\tb', '2\ta\tb\tnuetral', '3\tc\td\tentailment']
    file = put(tmp_path, 'intermediate/mnli/train.tsv', MNLI_HEADER + '\n'.join(rows) + '\n')
    bad: list[BadRow] = []
    assert [e.id for e in read(tmp_path, 'mnli', 'en', 'train', skip_bad_rows=bad)] == [
        'mnli-train-en-0',
        'mnli-train-en-3',
    ]
    assert bad == [
        BadRow(str(file), 3, '3 fields, expected 4; a row cut short?'),
        BadRow(str(file), 4, "column 'gold_label': unknown label 'nuetral' (did you mean 'neutral'?)"),
    ]
    with pytest.raises(DataError) as caught:
        read(tmp_path, 'mnli', 'en', 'train')
    assert str(caught.value) == str(bad[0]) == f'{file}, line 3: 3 fields, expected 4; a row cut short?'


SQUAD = (
    '{"data": [{"paragraphs": [{"context": "The lake froze in May.", "qas": [\n'
    '{"id": "q1", "question": "When?", "answers": [{"text": "May", "answer_start": 18}]},\n'
    '{"id": "q2", "question": "When?", "answers": [%s]},\n'
    '{"id": "q3", "question": "When?", "answers": []}]}]}]}'
)
SPANS = [
    ('{"text": "May", "answer_start": 99}', 'answer_start 99 is outside the context (22 characters)'),
    ('{"text": "May", "answer_start": -1}', 'answer_start -1 is outside the context (22 characters)'),
    ('{"text": "May", "answer_start": 17}', "'May' does not stand at character 17: ' Ma'"),
    ('{"text": "may", "answer_start": 18}', "'may' does not stand at character 18: 'May'"),
    ('{"text": "May.  ", "answer_start": 99}', 'answer_start 99 is outside the context (22 characters)'),
    ('{"text": "", "answer_start": 3}', 'an empty answer at character 3'),
    ('{"text": "May", "answer_start": "18"}', "a text and a number are expected, not 'May' and '18'"),
    ('"May"', "an object with text and answer_start is expected, not 'May'"),
]


@pytest.mark.parametrize(('answer', 'said'), SPANS)
def test_answers_that_are_not_at_their_place(answer: str, said: str, tmp_path: Path) -> None:
    file = put(tmp_path, 'xtreme/xquad/xquad.en.json', SQUAD % answer)
    bad: list[BadRow] = []
    assert [e.id for e in read(tmp_path, 'xquad', 'en', 'test', skip_bad_rows=bad)] == ['q1', 'q3']
    assert bad == [BadRow(str(file), 3, f"column 'answers': {said}")]
    with pytest.raises(DataError, match=r"xquad\.en\.json, line 3, column 'answers'"):
        read(tmp_path, 'xquad', 'en', 'test')


def test_an_unanswerable_question_has_no_answers(tmp_path: Path) -> None:
    content = SQUAD % '{"text": "May", "answer_start": 18}'
    put(
        tmp_path,
        'intermediate/squad_v2.0/dev-v2.0.json',
        content.replace('"id": "q2"', '"id": "q2", "is_impossible": true'),
    )
    with pytest.raises(DataError, match=r"line 3, column 'answers': an unanswerable question with answers"):
        read(tmp_path, 'squad_v2', 'en', 'dev')


def test_a_tag_outside_the_set_names_its_own_line(tmp_path: Path) -> None:
    file = put(tmp_path, 'xtreme/panx/dev-de.tsv', 'a\tO\nb\tB-LCO\n\nc\tB-LOC\n\nd\n')
    bad: list[BadRow] = []
    assert [e.id for e in read(tmp_path, 'panx', 'de', 'dev', skip_bad_rows=bad)] == ['panx-dev-de-1']
    assert bad == [
        BadRow(str(file), 2, "column 'tags': unknown label 'B-LCO' (did you mean 'B-LOC'?)"),
        BadRow(str(file), 6, "a word and a tag are expected, not 'd'"),
    ]


def test_an_id_twice_and_a_broken_line_can_be_left_out(tmp_path: Path) -> None:
    first = put(tmp_path, 'intermediate/anli/anli_v1.0/R1/dev.jsonl', anli_row('x') + anli_row('x') + '{"uid": \n')
    bad: list[BadRow] = []
    assert [e.id for e in read(tmp_path, 'anli_r1', 'en', 'dev', skip_bad_rows=bad)] == ['x']
    assert [(row.line, row.reason.split(':')[0]) for row in bad] == [
        (2, f"id 'x' was used already in {first}, line 1"),
        (3, 'broken JSON'),
    ]


def test_choices_that_cannot_be(tmp_path: Path) -> None:
    row = '{"ctx_a": "a", "ctx_b": "b", "endings": ["1", "2", "3"], "label": %s}\n'
    put(tmp_path, 'intermediate/hellaswag/hellaswag_val.jsonl', row % 4 + row.replace('"3"', '"3", "4"') % 4)
    bad: list[BadRow] = []
    assert read(tmp_path, 'hellaswag', 'en', 'dev', skip_bad_rows=bad) == []
    assert [b.reason for b in bad] == [
        "column 'label': 3 choices, expected 4",
        "column 'label': 4 is not the index of one of 4 choices",
    ]


def test_rows_of_pairs_are_never_left_out(tmp_path: Path) -> None:
    """Without gold by id a row less on one side would shift the pairs."""
    put(tmp_path, 'xtreme/bucc2018/de-en.dev.de', 'd1\tEins.\nd2\n')
    put(tmp_path, 'xtreme/bucc2018/de-en.dev.en', 'e1\tOne.\n')
    put(tmp_path, 'xtreme/bucc2018/de-en.dev.gold', 'd1\te1\n')
    bad: list[BadRow] = []
    german, _ = read_pairs(get_task('bucc2018'), 'de', 'dev', tmp_path, skip_bad_rows=bad)
    assert ([e.id for e in german], [b.line for b in bad]) == (['d1'], [2])
    put(tmp_path, 'xtremer/mewslix/wikipedia_pairs-train.jsonl', '{"contextual_mention": {}}\n')
    with pytest.raises(DataError, match="no field 'entity'"):
        read_pairs(get_task('mewslix'), 'de', 'train', tmp_path, skip_bad_rows=[])


def test_gold_that_cannot_be_read(tmp_path: Path) -> None:
    put(tmp_path, 'xtreme/bucc2018/de-en.dev.gold', 'd1\te1\nd2\n')
    with pytest.raises(DataError, match=r'de-en\.dev\.gold, line 2: 1 fields, expected 2'):
        read_gold(get_task('bucc2018'), 'de', 'dev', tmp_path)
    with pytest.raises(TaskError, match='no gold pairs by id'):
        read_gold(get_task('tatoeba'), 'de', 'test', tmp_path)


def test_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, 'xtreme/xnli/dev-de.tsv', 'a\tb\tneutral\n')
    task = get_task('xnli')
    assert Split(task, 'de', 'dev', tmp_path).is_there()
    assert not Split(task, 'de', 'test', tmp_path).is_there()
    assert not Split(task, 'de', 'train', tmp_path).is_there()
    assert Split(get_task('world_nli'), 'de', 'dev').is_there()


def test_labels_of_a_task_whose_files_are_missing(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r'AUTO/0\[0-9\]/wsj_\*\.auto: no such file.*nor intermediate/ccg/train\.stagged'
    ):
        with_labels(get_task('ccg'), tmp_path)


def test_the_digest_of_the_real_files(data_root: Path) -> None:
    """The digest of a split of one file is that file's, as the data's own list states it."""
    lines = (data_root / 'MANIFEST.tsv').read_text(encoding='utf-8').splitlines()
    path, sha256 = (lines[0].split('\t').index(name) for name in ('path', 'sha256'))
    listed = {cells[path]: cells[sha256] for cells in (line.split('\t') for line in lines[1:])}
    for name, language, split in (('xnli', 'sw', 'test'), ('mnli', 'en', 'train'), ('xquad', 'th', 'test')):
        (file,) = Split(get_task(name), language, split, data_root).files()
        assert (
            Split(get_task(name), language, split, data_root).digest() == listed[file.relative_to(data_root).as_posix()]
        )
