"""docs/tasks.md is what the registry says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from xlmr_flax.data.split import Split
from xlmr_flax.tasks import all_tasks
from xlmr_flax.tasks.base import Task
from xlmr_flax.tasks.table import TRIED_ON, markdown, tried_on

DOCS = Path(__file__).parents[2] / 'docs' / 'tasks.md'


def test_the_file_is_up_to_date() -> None:
    assert DOCS.read_text(encoding='utf-8') == markdown(), 'run python -m xlmr_flax.tasks.table > docs/tasks.md'


def test_the_command_writes_it() -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'xlmr_flax.tasks.table'], capture_output=True, check=True, cwd=DOCS.parents[1]
    )
    assert done.stdout.decode('utf-8') == markdown()
    assert not done.stderr


def test_every_task_has_a_row_and_every_row_its_cells() -> None:
    summary, *sections = markdown().split('\n## ')[1:]
    *kinds, translated = sections
    rows = _rows(''.join(kinds))
    assert len(rows) == len(all_tasks())
    assert {len(row) for row in rows} == {9}
    assert [row[0] for row in _rows(summary)] == [f'`{name}`' for name in all_tasks()]
    assert [row[:2] for row in _rows(translated)] == [
        [f'`{task.name}`', split] for task in all_tasks().values() for split in task.translated
    ]
    text = '\n'.join(kinds)
    for said in (
        '`mnli` | train |',
        '`xnli` | target |',
        '`tatoeba` | evaluation |',
        '(stand-in)',
        '`siqa`, then `copa`',
    ):
        assert said in text


def test_what_a_task_was_tried_on_stands_in_one_of_four_columns() -> None:
    rows = {row[0].strip('`'): row[1:5] for row in _rows(markdown().split('\n## ')[1])}
    for task in all_tasks().values():
        assert rows[task.name] == ['yes' if name == tried_on(task) else '' for name in TRIED_ON]
    assert {name: tried_on(all_tasks()[name]) for name in ('mnli', 'qqp', 'pawsx', 'siqa', 'world_nli', 'xnli')} == {
        'mnli': 'real data', 'qqp': 'stand-in', 'pawsx': 'stand-in', 'siqa': 'embedded world only',
        'world_nli': 'embedded world only', 'xnli': 'evaluation only',
    }  # fmt: skip


def test_what_a_task_was_tried_on_is_what_is_there(data_root: Path) -> None:
    found = {task.name: _tried_on(task, data_root) for task in all_tasks().values()}
    assert {task.name: tried_on(task) for task in all_tasks().values()} == found


def _tried_on(task: Task, root: Path) -> str:
    """By the files alone. Translated rows are no rows of the dataset."""
    if task.checked_on == 'embedded world':
        return 'embedded world only'
    here = {
        split: [code for code in task.languages if Split(task, code, split, root).is_there()]
        for split in task.splits
        if split not in task.translated
    }
    if not any(here.values()):
        return 'embedded world only'
    if any(Split(task, code, split, root).stand_in() for split, codes in here.items() for code in codes):
        return 'stand-in'
    return 'real data' if here.get('train') else 'evaluation only'


def _rows(text: str) -> list[list[str]]:
    """The cells of every task's row."""
    return [
        [cell.strip() for cell in line.strip('|').split(' | ')] for line in text.splitlines() if line.startswith('| `')
    ]
