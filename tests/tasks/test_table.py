"""docs/tasks.md is what the registry says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from xlmr_flax.tasks import all_tasks
from xlmr_flax.tasks.table import markdown

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
    lines = markdown().splitlines()
    rows = [line for line in lines if line.startswith('| `')]
    assert len(rows) == len(all_tasks())
    assert {line.count(' | ') for line in rows} == {8}
    text = '\n'.join(rows)
    for said in (
        '`mnli` | train |',
        '`xnli` | target |',
        '`tatoeba` | evaluation |',
        '(stand-in)',
        '`siqa`, then `copa`',
    ):
        assert said in text
