"""docs/adding_a_kind.md: its files are written and its commands run, as they stand there."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xlmr_flax.kinds
import xlmr_flax.tasks
from xlmr_flax.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'adding_a_kind.md').read_text(encoding='utf-8')
FILES = dict(re.findall(r'```\w+ file=(\S+)\n(.*?)```', PAGE, re.DOTALL))
COMMANDS = [line for block in re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL) for line in block.splitlines()]
KIND, TASK = 'xlmr_flax/kinds/similarity.py', 'xlmr_flax/tasks/similarity.py'


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which a reader of the page has written its files; both modules are found like the package's."""
    for name, content in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding='utf-8')
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    for package, file in ((xlmr_flax.kinds, KIND), (xlmr_flax.tasks, TASK)):
        monkeypatch.setattr(package, '__path__', [*package.__path__, str((tmp_path / file).parent)])
    kind = importlib.import_module('xlmr_flax.kinds.similarity').Similarity()
    monkeypatch.setitem(xlmr_flax.kinds.KINDS, kind.name, kind)
    xlmr_flax.tasks.all_tasks.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for package in ('kinds', 'tasks'):
        sys.modules.pop(f'xlmr_flax.{package}.similarity', None)
    xlmr_flax.tasks.all_tasks.cache_clear()


def test_one_module_is_the_kind() -> None:
    assert [name for name in FILES if name.startswith('xlmr_flax')] == [KIND, TASK]
    assert len(FILES[KIND].splitlines()) < 80
    assert len(COMMANDS) == 2


def test_a_bad_row_is_named(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check, _ = (shlex.split(line)[1:] for line in COMMANDS)
    assert main(check) == 0
    file = reader / 'DATA/similarity/test-es.tsv'
    file.write_text(file.read_text(encoding='utf-8') + '7\ta\tb\n', encoding='utf-8')
    assert main(check) == 1
    assert "test-es.tsv, line 5, column 'score'" in capsys.readouterr().out


def test_the_kind_is_trained_and_scored(reader: Path) -> None:
    _, run = (shlex.split(line)[1:] for line in COMMANDS)
    assert main(run) == 0
    rows = [json.loads(line) for line in (reader / 'runs/similarity/results.jsonl').read_text().splitlines()]
    assert {(row['intermediate'], row['language'], row['metric'], row['n']) for row in rows} == {
        (arm, code, 'pearson', 3) for arm in ('none', 'world_nli') for code in ('en', 'es')
    }
    assert all(-100 <= row['value'] <= 100 for row in rows)
    (file,) = reader.glob('runs/similarity/predictions/none*/similarity/test-es.tsv')
    assert len([float(line) for line in file.read_text().splitlines()]) == 3
