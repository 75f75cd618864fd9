"""From files on disk to examples: on small files written here, and on the folder of real data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.data.sources import (
    DataError,
    content_digest,
    needs_data_root,
    read_pairs,
    read_split,
    resolve_data_root,
    split_files,
)
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import PairExample, Table, TaskError

MNLI_HEADER = 'index\tsentence1\tsentence2\tgold_label\n'
FILE_TASKS = ['mnli', 'snli', 'anli', 'anli_r1', 'anli_r2', 'anli_r3', 'xnli', 'pawsx']


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
    first = content_digest(get_task('xnli'), 'en', 'dev', tmp_path)
    assert first == hashlib.sha256(file.read_bytes()).hexdigest()
    put(tmp_path, 'xtreme/xnli/dev-en.tsv', 'a\tb\tneutral')
    assert content_digest(get_task('xnli'), 'en', 'dev', tmp_path) != first
    assert split_files(get_task('xnli'), 'en', 'dev', tmp_path) == [file]


def test_the_digest_of_the_embedded_world_needs_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('XLMR_DATA_ROOT', raising=False)
    digests = {
        content_digest(get_task(name), language, split)
        for name, language, split in [
            ('world_nli', 'en', 'dev'),
            ('world_nli', 'en', 'test'),
            ('world_nli', 'de', 'dev'),
            ('world_pairs', 'en', 'dev'),
        ]
    }
    assert len(digests) == 4
    assert content_digest(get_task('world_nli'), 'en', 'dev') in digests
    assert split_files(get_task('world_nli'), 'en', 'dev') == []


@pytest.fixture(scope='module')
def manifest(data_root: Path) -> dict[str, tuple[int, str]]:
    """path -> (rows, sha256), as the data's own list states them."""
    lines = (data_root / 'MANIFEST.tsv').read_text(encoding='utf-8').splitlines()
    columns = lines[0].split('\t')
    rows_ = [dict(zip(columns, line.split('\t'), strict=True)) for line in lines[1:]]
    return {row['path']: (int(row['rows']), row['sha256']) for row in rows_}


@pytest.mark.parametrize('name', FILE_TASKS)
def test_row_counts_of_the_real_files(name: str, data_root: Path, manifest: dict[str, tuple[int, str]]) -> None:
    """Every row the list counts is read, but for SNLI's rows without a gold label; what is not listed is missed."""
    task = get_task(name)
    read_splits = 0
    for split, sources in task.splits.items():
        for language in task.languages:
            paths = [s.path.replace('{language}', language) for s in sources if isinstance(s, Table)]
            if split == 'train' and language != 'en':
                continue
            if not all(path in manifest for path in paths):
                with pytest.raises(DataError, match='no such file'):
                    read_split(task, language, split, data_root)
                continue
            dropped = 0
            if name == 'snli':
                dropped = sum(line.startswith('-\t') for line in (data_root / paths[0]).read_text('utf-8').split('\n'))
            examples = read_split(task, language, split, data_root)
            assert len(examples) == sum(manifest[path][0] for path in paths) - dropped
            assert {e.label for e in examples if isinstance(e, PairExample)} == set(range(len(task.labels)))
            if len(paths) == 1:
                assert content_digest(task, language, split, data_root) == manifest[paths[0]][1]
            read_splits += 1
    assert read_splits >= 2


def test_every_language_of_the_real_tatoeba_folder(data_root: Path, manifest: dict[str, tuple[int, str]]) -> None:
    task = get_task('tatoeba')
    codes = {path.rsplit('.', 1)[1] for path in manifest if '/tatoeba/v1/tatoeba.' in path} - {'eng'}
    assert len(codes) == 112
    for language in [*task.languages, *sorted(codes)]:
        english, foreign = read_pairs(task, language, 'test', data_root)
        code = task.local_code(language)
        assert len(english) == len(foreign) == manifest[f'xtreme/tatoeba/v1/tatoeba.{code}-eng.{code}'][0]
