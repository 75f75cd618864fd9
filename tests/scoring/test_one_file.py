"""Prediction and gold files of other labels, indices or ids than the task's are named, and never scored as 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.kinds import example_sums, score_files
from xlmr_flax.kinds.gold import GoldSet
from xlmr_flax.scoring.score import score_folder, warnings
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, SentenceExample, TagExample


def questions(*answers: tuple[str, Any]) -> str:
    """A file in SQuAD's form with these (id, answers)."""
    asked = [{'id': id_, 'question': '?', 'answers': texts} for id_, texts in answers]
    return json.dumps({'data': [{'paragraphs': [{'context': 'c', 'qas': asked}]}]}, indent=0)


ANSWER, PLACEHOLDER = [{'text': 'x', 'answer_start': 0}], [{'text': '', 'answer_start': 0}]
NAMED = [  # task, file, predictions, gold, the file at fault (by its folder), its line
    ('xnli', 'test-en.tsv', 'neutral\n0\n', 'neutral\nneutral\n', 'predictions', 2),
    ('xnli', 'test-en.tsv', 'Neutral\n', 'neutral\n', 'predictions', 1),
    ('xnli', 'test-en.tsv', 'neutral\n', 'contradictory\n', 'labels', 1),
    ('xnli', 'test-en.tsv', 'label\nneutral\n', 'label\nneutral\n', 'labels', 1),
    ('pawsx', 'test-en.tsv', '1\nparaphrase\n', '1\n0\n', 'predictions', 2),
    ('udpos', 'test-en.tsv', 'X\n\nNN\n', 'X\n\nNOUN\n', 'predictions', 3),
    ('panx', 'test-en.tsv', 'B-LOC\nO\n', 'Oslo\nrains\n', 'labels', 1),
    ('tatoeba', 'test-af.tsv', '1\n2\n3\n', '0\n1\n2\n', 'predictions', 3),
    ('tatoeba', 'test-af.tsv', '0\n1\n2\n', '1\n2\n3\n', 'labels', 3),
    ('xcopa', 'test-et.jsonl', '{"label": 2}\n', '{"label": 1}\n', 'predictions', 1),
    ('bucc2018', 'test-de.tsv', 'de-7\ten-7\nen-1\tde-1\n', 'de-1\ten-1\n', 'predictions', 2),
    ('xquad', 'test-en.json', '{"a": "x"}', questions(('a', ANSWER), ('b', [{'text': 5}])), 'labels', 19),
    ('xquad', 'test-en.json', '{"a": "x"}', questions(('a', ANSWER), ('b', [{'text': None}])), 'labels', 19),
    ('xquad', 'test-en.json', '{"a": "x"}', questions(('a', ANSWER), ('b', PLACEHOLDER)), 'labels', 19),
]


@pytest.mark.parametrize(('task', 'name', 'predicted', 'gold', 'folder', 'line'), NAMED)
def test_labels_that_the_task_does_not_have_are_named(
    tmp_path: Path, task: str, name: str, predicted: str, gold: str, folder: str, line: int
) -> None:
    roots = two_files(tmp_path, task, name, predicted, gold)
    with pytest.raises(DataError) as error:
        score_folder(*roots, 'xtreme-r' if task == 'xcopa' else 'xtreme', [task], allow_missing=True)
    assert str(error.value).startswith(f'{tmp_path / folder / task / name}, line {line}: ')


@pytest.mark.parametrize('task', ['xquad', 'mewslix'])
@pytest.mark.parametrize('content', [[{'id': 'a', 'prediction_text': 'x'}], [['a', 'x']], ['a'], 'a', 5, None])
def test_predictions_that_are_no_object_by_id_are_named(tmp_path: Path, task: str, content: object) -> None:
    gold = questions(('a', ANSWER)) if task == 'xquad' else '{"a": ["x"]}'
    roots = two_files(tmp_path, task, 'test-en.json', json.dumps(content), gold)
    with pytest.raises(DataError, match='object by id') as error:
        score_folder(*roots, 'xtreme-r', [task], allow_missing=True)
    assert str(error.value).startswith(f'{tmp_path / "predictions" / task / "test-en.json"}: ')


def test_gold_without_an_entity_has_no_f1(tmp_path: Path) -> None:
    roots = two_files(tmp_path, 'panx', 'test-en.tsv', 'B-PER\nO\n', 'O\nO\n')
    with pytest.raises(DataError, match='no entity') as error:
        score_folder(*roots, tasks=['panx'], allow_missing=True)
    assert str(error.value).startswith(f'{tmp_path / "labels" / "panx" / "test-en.tsv"}: ')


def two_files(root: Path, task: str, name: str, predicted: str, gold: str) -> tuple[Path, Path]:
    for side, content in (('predictions', predicted), ('labels', gold)):
        path = root / side / task / name
        path.parent.mkdir(parents=True)
        path.write_text(content, encoding='utf-8')
    return root / 'predictions', root / 'labels'


def test_gold_lines_drawn_from_a_larger_file_have_any_index(tmp_path: Path) -> None:
    roots = two_files(tmp_path, 'tatoeba', 'test-af.tsv', '939\n7\n', '939\n35\n')
    assert score_folder(*roots, allow_missing=True)['tasks']['tatoeba']['score'] == 50.0


def test_pairs_are_counted_and_ids_of_another_file_are_an_error(tmp_path: Path) -> None:
    roots = two_files(tmp_path, 'bucc2018', 'test-de.tsv', 'de-1\ten-1\nde-2\ten-9\n', 'de-1\ten-1\nde-2\ten-2\n')
    scores = score_folder(*roots, allow_missing=True)
    assert scores['tasks']['bucc2018']['coverage'] == {'de': {'gold': 2, 'unanswered': 1, 'unknown': 1}}
    assert scores['tasks']['bucc2018']['score'] == 50.0
    (tmp_path / 'predictions/bucc2018/test-de.tsv').write_text('x-1\ty-1\n')
    with pytest.raises(DataError, match=r'predictions/bucc2018/test-de\.tsv: none of the ids of its 1 pairs'):
        score_folder(*roots, allow_missing=True)


def test_a_public_test_file_is_not_scored_and_named(tmp_path: Path) -> None:
    roots = two_files(tmp_path, 'xquad', 'test-en.json', '{"a": "x"}', questions(('a', PLACEHOLDER)))
    scores = score_folder(*roots, allow_missing=True)
    assert scores['tasks'] == {} and 'xquad' in scores['missing_tasks']
    [line] = warnings(scores)
    assert line.startswith('xquad en: ') and str(tmp_path / 'labels/xquad/test-en.json') in line


def test_a_task_of_which_no_file_is_found_is_named(tmp_path: Path) -> None:
    roots = two_files(tmp_path, 'xcopa', 'test-et.tsv', '0\n', '0\n')
    with pytest.raises(DataError, match=r'predictions/xcopa/test-et\.tsv: .*test-et\.jsonl is expected'):
        score_folder(*roots, 'xtreme-r', ['xcopa'], allow_missing=True)
    for root in roots:
        (root / 'xcopa/test-et.tsv').rename(root / 'xcopa/estonian.jsonl')
    [line] = warnings(score_folder(*roots, 'xtreme-r', ['xcopa'], allow_missing=True))
    assert line.startswith('xcopa: ') and 'test-LANG.jsonl' in line


OUTSIDE: list[tuple[str, list[Example], str, int]] = [  # task, gold, predictions, the line at fault
    ('xnli', [PairExample('a', '', '', 0), PairExample('b', '', '', 1)], 'neutral\n1\n', 2),
    ('panx', [TagExample('a', ('w',), (6,)), TagExample('b', ('w',), (6,))], 'O\n\nLOC\n', 3),
    ('xcopa', [ChoiceExample('a', '', ('', ''), 1)], '{"label": 2}\n', 1),
    ('tatoeba', [SentenceExample(name, name) for name in 'abcdef'], '0\n1\n2\n3\n4\n99\n', 6),
]


@pytest.mark.parametrize(('task', 'examples', 'predicted', 'line'), OUTSIDE)
def test_every_kind_refuses_what_the_task_does_not_have(
    tmp_path: Path, task: str, examples: list[Example], predicted: str, line: int
) -> None:
    """In the scores of an evaluation, and in those by example that `report --against` compares."""
    path, known = tmp_path / 'test-en', get_task(task)
    path.write_text(predicted, encoding='utf-8')
    with pytest.raises(DataError) as error:
        score_files(known, 'en', path, examples)
    assert str(error.value).startswith(f'{path}, line {line}: ')
    ids = [str(row) for row in range(len(examples))]
    metric = 'f1' if task == 'panx' else 'accuracy'
    with pytest.raises(DataError) as error:
        example_sums(GoldSet(known, 'en', ids, examples), path, metric)
    assert str(error.value).startswith(f'{path}, line {line}: ')
