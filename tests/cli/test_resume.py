"""A run that is told to stop, as a launcher does it: a process, SIGTERM, exit code 143, the same command again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.cli.main import STOPPED, main

# In the config file, so that the process needs nothing but the command: at step 5 it says that it is there and waits.
WAIT = """
import time
from pathlib import Path
from xlmr_flax.train import streams
here, real = Path({folder!r}), streams.train_batch
def train_batch(data, step, *rest):
    if step == 5 and not (here / 'go').exists():
        (here / 'ready').touch()
        while not (here / 'go').exists():
            time.sleep(0.02)
    return real(data, step, *rest)
streams.train_batch = train_batch
"""


def metrics(workdir: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != 'examples_per_s'} for r in records]


def results(workdir: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (workdir / 'results.jsonl').read_text('utf-8').splitlines()]
    return [{k: v for k, v in row.items() if k != 'command'} for row in rows]


def weights(workdir: Path) -> bytes:
    (path,) = (workdir / 'runs').glob('*/model/model.safetensors')
    return path.read_bytes()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)


def test_stopped_and_started_again_it_ends_as_if_nothing_had_been(
    tmp_path: Path, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file(
        "config.intermediate = ('none',)", "config.targets = ('world_pairs',)", 'config.recipe.steps = 9',
        "config.evaluation.languages = {'world_pairs': ('en', 'de')}", 'config.recipe.log_every = 4',
    )  # fmt: skip
    whole = tmp_path / 'whole'
    assert main(['run', f'--config={path}', f'--workdir={whole}']) == 0

    path.write_text(WAIT.format(folder=str(tmp_path)) + path.read_text())
    parted = tmp_path / 'parted'
    command = [sys.executable, '-m', 'xlmr_flax', 'run', f'--config={path}', f'--workdir={parted}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / 'ready', process)
        process.send_signal(signal.SIGTERM)
        (tmp_path / 'go').touch()
        error = process.communicate(timeout=120)[1]
    assert process.returncode == STOPPED == 143
    assert 'stopped at step 6 of 9' in error
    assert error.strip().endswith('The same command resumes from what is saved.')
    assert 'Traceback' not in error
    assert [p.name for p in (parted / 'runs').glob('*/checkpoints/last/[0-9]*')] == ['6']
    assert not (parted / 'results.jsonl').exists()

    (tmp_path / 'config.py').write_text(path.read_text().removeprefix(WAIT.format(folder=str(tmp_path))))
    assert main(['run', f'--config={path}', f'--workdir={parted}']) == 0
    assert metrics(parted) == metrics(whole)
    assert weights(parted) == weights(whole)
    assert results(parted) == results(whole) != []
    assert not list((parted / 'runs').glob('*/checkpoints'))
