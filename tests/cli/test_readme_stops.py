"""The local run of docs/getting_started.md, with relative folders: stopped again and again, it ends as undisturbed."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from workdir_outcome import outcome

from xlmr_flax.cli.main import STOPPED, main
from xlmr_flax.train import loop

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'getting_started.md').read_text(encoding='utf-8')
OVERRIDES = [
    ['--config.recipe.checkpoint_every=2'],
    ['--config.recipe.keep=best', '--config.recipe.eval_every=2'],
]
# The first of its five runs alone.
SHORT = ["--config.intermediate=('none',)", "--config.targets=('world_pairs',)"]
IDS = ['checkpoint_every', 'keep best']


def command() -> list[str]:
    """The words of `xlmr-flax run --config=configs/tiny.py --workdir=runs/tiny`, as it can be pasted."""
    (found,) = re.findall(r'^xlmr-flax (run --config=configs/tiny\.py --workdir=[\w/]+)$', PAGE, re.MULTILINE)
    return shlex.split(found)


def folder(path: Path) -> Path:
    """A folder in which the README's relative paths lead to the configs."""
    path.mkdir()
    (path / 'configs').symlink_to(ROOT / 'configs')
    return path


@pytest.mark.parametrize('override', [OVERRIDES[0], pytest.param(OVERRIDES[1], marks=pytest.mark.slow)], ids=IDS)
@pytest.mark.parametrize('plan', [SHORT, pytest.param([], marks=pytest.mark.slow)], ids=['short', 'whole'])
def test_stopped_at_every_other_step(
    plan: list[str], override: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*command(), *override, *plan]
    workdir = words[2].removeprefix('--workdir=')
    assert not os.path.isabs(workdir)
    monkeypatch.chdir(folder(tmp_path / 'whole'))
    assert main(words) == 0
    monkeypatch.chdir(folder(tmp_path / 'parted'))
    real, calls, stops = loop.put_batch, [], 0

    def put_batch(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    monkeypatch.setattr(loop, 'put_batch', put_batch)
    while (code := main(words)) == STOPPED:
        stops += 1
        calls.clear()
        if stops == 1:  # the same workdir, from another folder
            (tmp_path / 'parted' / 'elsewhere').mkdir()
            monkeypatch.chdir(tmp_path / 'parted' / 'elsewhere')
            words = [f'--workdir=../{workdir}' if word.startswith('--workdir') else word for word in words]
            (tmp_path / 'parted' / 'elsewhere' / 'configs').symlink_to(ROOT / 'configs')
    assert code == 0
    assert stops >= (2 if plan else 6)
    assert outcome(tmp_path / 'parted' / workdir) == outcome(tmp_path / 'whole' / workdir)


@pytest.mark.slow
@pytest.mark.parametrize('override', OVERRIDES, ids=IDS)
def test_processes_stopped_by_the_clock(override: list[str], tmp_path: Path) -> None:
    words = [sys.executable, '-m', 'xlmr_flax', *command(), *override]
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    began = time.monotonic()
    subprocess.run(words, cwd=folder(tmp_path / 'whole'), env=env, check=True, capture_output=True)
    took, draw, codes = time.monotonic() - began, random.Random(str(override)), []
    parted = folder(tmp_path / 'parted')
    while len(codes) < 12 and 0 not in codes:
        with subprocess.Popen(words, cwd=parted, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            time.sleep(took * draw.uniform(0.3, 0.8))
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=300)[0].decode()
        assert process.returncode in (0, STOPPED), said
        assert 'Traceback' not in said
        codes.append(process.returncode)
        if codes == [0]:  # done before the signal: the first run took longer, since it compiled the programs
            shutil.rmtree(parted / 'runs')
            took, codes = took / 2, []
    assert STOPPED in codes
    subprocess.run(words, cwd=parted, env=env, check=True, capture_output=True)
    assert outcome(parted / 'runs' / 'tiny') == outcome(tmp_path / 'whole' / 'runs' / 'tiny')
