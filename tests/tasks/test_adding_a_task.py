"""docs/adding_a_task.md: its files are written and its commands run, as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import xlmr_flax.tasks
from xlmr_flax.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'adding_a_task.md').read_text(encoding='utf-8')
FILES = dict(re.findall(r'```\w+ file=(\S+)\n(.*?)```', PAGE, re.DOTALL))
COMMANDS = [line for block in re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL) for line in block.splitlines()]
MODULE = 'xlmr_flax/tasks/reviews.py'


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which a reader of the page has written its files; the task's module is found like the package's."""
    for name, content in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding='utf-8')
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(xlmr_flax.tasks, '__path__', [*xlmr_flax.tasks.__path__, str((tmp_path / MODULE).parent)])
    xlmr_flax.tasks.all_tasks.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    xlmr_flax.tasks.all_tasks.cache_clear()


def command(start: str) -> list[str]:
    """The arguments of the page's one command that begins so."""
    [line] = [line for line in COMMANDS if line.startswith(start)]
    return shlex.split(line)[1:]


def test_the_page_is_short_and_its_module_too() -> None:
    assert list(FILES)[3] == MODULE
    assert len(FILES[MODULE].splitlines()) <= 40
    assert len(FILES['DATA/reviews/train-en.jsonl'].splitlines()) == 3
    assert len(COMMANDS) == 2


def test_the_data_is_checked_with_the_output_that_is_shown(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command('xlmr-flax prepare --check --tasks=reviews')) == 0
    printed = capsys.readouterr().out
    [shown] = re.findall(r'```text\n(.*?)```', PAGE, re.DOTALL)
    assert shown in printed


def test_a_bad_row_is_named(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = reader / 'DATA/reviews/test-sw.jsonl'
    file.write_text(file.read_text(encoding='utf-8') + '{"id": "t3", "text": "?", "stars": 6}\n', encoding='utf-8')
    assert main(command('xlmr-flax prepare --check --tasks=reviews')) == 1
    assert "test-sw.jsonl, line 3, column 'stars': a number from 1 to 5 is expected, not 6" in capsys.readouterr().out


def test_the_task_is_trained_and_scored(reader: Path) -> None:
    assert main(command('xlmr-flax run --config=configs/tiny.py --workdir=runs/reviews')) == 0
    rows = [json.loads(line) for line in (reader / 'runs/reviews/results.jsonl').read_text().splitlines()]
    assert {(row['target'], row['language'], row['metric'], row['n']) for row in rows} == {
        ('reviews', code, 'accuracy', 2) for code in ('en', 'sw')
    }
