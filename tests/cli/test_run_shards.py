"""Several processes on one workdir: no run twice, and the same tables as of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workdir_outcome import outcome

from xlmr_flax.cli.main import main

PLAN = (
    "config.targets = ('world_pairs', 'world_retrieval')", 'config.recipe.steps = 3',
    "config.evaluation.languages = {'world_pairs': ('en',), 'world_retrieval': ('de',)}",
    'config.recipe.log_every = 1', 'config.recipe.max_train = 64', 'config.tensorboard = True',
)  # fmt: skip

# In the config file: a process waits here until all of them have got so far, and counts what it trains.
TOGETHER = """
import os, time
from pathlib import Path
from xlmr_flax.experiment import training as phase
from xlmr_flax.experiment import runner
here = Path({folder!r})
def train_run(setting, run, real=phase.train_run):
    with (here / 'trained.log').open('a') as file:
        file.write(run.name + '\\n')
    real(setting, run)
runner.train_run = train_run
(here / f'ready-{{os.getpid()}}').touch()
until = time.monotonic() + 120
while len(list(here.glob('ready-*'))) < {count} and time.monotonic() < until:
    time.sleep(0.02)
"""


def claims(workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """run -> everyone who ever claimed it, in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((workdir / 'claims').glob('*.json')):
        found.setdefault(path.name.split('.')[0], []).append(json.loads(path.read_text()))
    return found


def start_all(config: Path, workdir: Path, flags: tuple[str, ...]) -> list[str]:
    """Starts one process for each of `flags` at once; returns what each has said when all have ended."""
    command = [sys.executable, '-m', 'xlmr_flax', 'run', f'--config={config}', f'--workdir={workdir}']
    processes = [
        subprocess.Popen([*command, *([flag] if flag else [])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, cwd=Path(__file__).parents[2])
        for flag in flags
    ]  # fmt: skip
    said = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(flags), '\n\n'.join(said)
    return said


@pytest.mark.slow
@pytest.mark.parametrize('flags', [('--shard=1/2', '--shard=2/2'), ('', '')])
def test_two_processes_at_once(flags: tuple[str, ...], config_file: Callable[..., Path], tmp_path: Path) -> None:
    path = config_file(*PLAN)
    alone, shared = tmp_path / 'alone', tmp_path / 'shared'
    assert main(['run', f'--config={path}', f'--workdir={alone}']) == 0
    path.write_text(TOGETHER.format(folder=str(tmp_path), count=len(flags)) + path.read_text())
    said = start_all(path, shared, flags)

    trained = (tmp_path / 'trained.log').read_text().split()
    assert sorted(trained) == sorted(p.parent.parent.name for p in alone.glob('runs/*/model/model.json'))
    assert len(trained) == len(set(trained)) == 3
    held = claims(shared)
    assert held.keys() == {p.name for p in (alone / 'runs').iterdir()}
    assert all([each['released'] for each in holders].count('finished') == 1 for holders in held.values())
    assert len({holders[0]['pid'] for holders in held.values()}) == 2, 'both have worked'

    assert outcome(shared) == outcome(alone)
    assert {'results.jsonl', 'tables.md'} < outcome(shared).keys()
    assert all('report: ' in each for each in said)
    assert not [p for p in shared.rglob('*') if p.name.endswith('.tmp') or p.name.startswith('.clock')]
    if all(flags):
        assert {p.name for p in shared.glob('time*')} == {'time-1of2.json', 'time-2of2.json'}
