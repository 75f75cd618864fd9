"""Official order and layout: Tatoeba's sorted English lines, XCOPA as JSON lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_pairs
from xlmr_flax.kinds import example_sums, read_gold_set, score_files
from xlmr_flax.scoring import files
from xlmr_flax.scoring.score import coverage_lines, score_folder
from xlmr_flax.tasks import get_task

ENGLISH = ['The sun rises.', 'A dog barks.', 'zebras run.', ' Bread is warm.', 'A dog barks.', 'Éclairs melt.']
GOLD = [1, 4, 3, 0, 2, 5]  # by code point, stripped; equal lines in their order
TATOEBA = get_task('tatoeba')


def write(root: Path, english: list[str]) -> Path:
    folder = root / 'data' / 'xtreme' / 'tatoeba' / 'v1'
    folder.mkdir(parents=True)
    (folder / 'tatoeba.afr-eng.eng').write_text(''.join(f'{line}\n' for line in english), encoding='utf-8')
    (folder / 'tatoeba.afr-eng.afr').write_text(''.join(f'sin {i}\n' for i in range(len(english))), encoding='utf-8')
    return root / 'data'


def test_a_perfect_official_file_scores_100_everywhere(tmp_path: Path) -> None:
    data = write(tmp_path, ENGLISH)
    english = read_pairs(TATOEBA, 'af', 'test', data)[0]
    assert TATOEBA.query_order([e.text for e in english]) == GOLD
    path = tmp_path / 'p' / 'tatoeba' / 'test-af.tsv'
    files.write_labels(path, GOLD)
    assert score_files(TATOEBA, 'af', path, english) == {'accuracy': 100.0}
    assert score_folder(tmp_path / 'p', tmp_path / 'p', allow_missing=True)['tasks']['tatoeba']['score'] == 100.0
    over, under = example_sums(read_gold_set(TATOEBA, 'af', 'test', str(data), 0), path, 'accuracy')
    np.testing.assert_array_equal(over, under)


def test_rows_are_cut_before_they_are_sorted(tmp_path: Path) -> None:
    data, path = write(tmp_path, ENGLISH), tmp_path / 'test-af.tsv'
    files.write_labels(path, [1, 0, 2])
    gold = read_gold_set(TATOEBA, 'af', 'test', str(data), 3)
    assert gold.ids == ['1', '0', '2']
    assert example_sums(gold, path, 'accuracy')[0].tolist() == [1, 1, 1]


def test_a_file_in_the_order_of_rows_is_refused(tmp_path: Path) -> None:
    data, path = write(tmp_path, [f'{(i * 37) % 100:02d}' for i in range(100)]), tmp_path / 'test-af.tsv'
    files.write_labels(path, range(100))
    with pytest.raises(DataError, match='order of the rows'):
        example_sums(read_gold_set(TATOEBA, 'af', 'test', str(data), 0), path, 'accuracy')


def test_other_retrieval_tasks_keep_the_order_of_rows() -> None:
    assert get_task('world_retrieval').query_order(['b', 'a']) == [0, 1]


def test_xcopa_is_scored_in_the_layout_of_xtreme_r(tmp_path: Path) -> None:
    for root, labels in (('gold', [0, 1, 1, 0]), ('said', [0, 1, 0, 0])):
        lines = ''.join(f'{{"premise": "p", "idx": {i}, "label": {label}}}\n' for i, label in enumerate(labels))
        (tmp_path / root / 'xcopa').mkdir(parents=True)
        (tmp_path / root / 'xcopa' / 'test-qu.jsonl').write_text(lines, encoding='utf-8')
    scores = score_folder(tmp_path / 'said', tmp_path / 'gold', 'xtreme-r', allow_missing=True)
    assert scores['tasks']['xcopa']['languages'] == {'qu': {'accuracy': 75.0}}


def write_questions(root: Path, gold: str, said: str) -> tuple[Path, Path]:
    qas = [{'id': id_, 'question': '?', 'answers': [{'text': 'yes', 'answer_start': 0}]} for id_ in gold]
    files.write_answers(root / 'gold/xquad/test-en.json', {'data': [{'paragraphs': [{'context': 'yes', 'qas': qas}]}]})
    files.write_answers(root / 'said/xquad/test-en.json', dict.fromkeys(said, 'yes'))
    return root / 'said', root / 'gold'


def test_unanswered_questions_are_counted(tmp_path: Path) -> None:
    scores = score_folder(*write_questions(tmp_path, 'abcd', 'abx'), allow_missing=True)
    assert scores['tasks']['xquad']['languages']['en'] == {'f1': 50.0, 'exact_match': 50.0}
    assert scores['tasks']['xquad']['coverage'] == {'en': {'gold': 4, 'unanswered': 2, 'unknown': 1}}
    assert len(coverage_lines(scores)) == 1
    whole = score_folder(*write_questions(tmp_path / 'whole', 'abcd', 'abcd'), allow_missing=True)
    assert whole['tasks']['xquad']['coverage'] == {}


def test_predictions_for_other_questions_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='none of its 2 ids'):
        score_folder(*write_questions(tmp_path, 'abcd', 'xy'), allow_missing=True)


@pytest.mark.parametrize(('task', 'line'), [('panx', 'Oslo\tB-LOC'), ('xnli', 'A man.\tSomeone.\tentailment')])
def test_gold_with_the_columns_of_the_dataset_is_an_error(tmp_path: Path, task: str, line: str) -> None:
    for root, text in (('said', line.split('\t')[-1]), ('gold', line)):
        (tmp_path / root / task).mkdir(parents=True)
        (tmp_path / root / task / 'test-en.tsv').write_text(f'{text}\n', encoding='utf-8')
    with pytest.raises(DataError, match='line 1'):
        score_folder(tmp_path / 'said', tmp_path / 'gold', allow_missing=True)
