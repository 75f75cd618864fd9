"""What is reported beside the official F1 of tagging tasks: token accuracy, and F1 without dates."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from xlmr_flax.kinds import score_files
from xlmr_flax.scoring import files
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import TagExample, Task


def _score(task: Task, tmp_path: Path, gold: list[str], said: list[str]) -> dict[str, float]:
    files.write_tags(tmp_path / 'p.tsv', [said])
    tags = tuple(task.labels.index(tag) for tag in gold)
    return score_files(task, 'sw', tmp_path / 'p.tsv', [TagExample('a', ('w',) * len(gold), tags)])


def test_dates_are_scored_and_left_out(tmp_path: Path) -> None:
    task = get_task('masakhaner2')
    gold = ['B-PER', 'O', 'B-DATE', 'I-DATE', 'O', 'B-LOC']
    said = ['B-PER', 'O', 'O', 'O', 'O', 'B-LOC']  # a PAN-X head never says DATE
    scores = _score(task, tmp_path, gold, said)
    assert scores['f1'] == pytest.approx(100 * 2 * 2 / (2 + 3))
    assert scores['f1_without_date'] == 100.0
    assert scores['accuracy'] == pytest.approx(100 * 4 / 6)


def test_a_task_without_dates_has_no_such_score(tmp_path: Path) -> None:
    scores = _score(get_task('world_ner'), tmp_path, ['B-PER', 'O'], ['B-PER', 'B-LOC'])
    assert 'f1_without_date' not in scores and scores['accuracy'] == 50.0


def test_supertags_are_scored_by_token_accuracy_alone(tmp_path: Path) -> None:
    task = dataclasses.replace(get_task('ccg'), labels=('N', 'NP', 'S'))
    assert _score(task, tmp_path, ['N', 'NP', 'S', 'N'], ['N', 'NP', 'N', 'N']) == {'accuracy': 75.0}
