"""SIGTERM and Ctrl-C outside of the steps of a training: before the first run, in an evaluation, before the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workdir_outcome import outcome

from xlmr_flax.cli.main import main
from xlmr_flax.eval import predict

PLAN = (
    "config.intermediate, config.targets = ('none',), ('world_pairs',)",
    "config.evaluation.languages = {'world_pairs': ('en', 'de')}",
    'config.recipe.steps, config.recipe.eval_every, config.recipe.log_every = 6, 2, 4',
    "config.recipe.keep, config.recipe.max_train, config.evaluation.packing = 'best', 64, False",
)
# Batches of the evaluations: two of dev at each of the steps 2, 4 and 6, two of dev with the kept weights, which are
# those of an earlier step, then one of each language.
BATCHES = {'dev at step 2': 1, 'dev at step 6': 5, 'en': 9, 'de': 10}


def stop_at(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, call: int, number: int = signal.SIGTERM) -> None:
    """Sends the signal in one call of a function."""
    real, calls = getattr(place, name), []

    def stopped(*args: Any, **more: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return real(*args, **more)

    monkeypatch.setattr(place, name, stopped)


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_before_the_first_run(config_file: Callable[..., Path], tmp_path: Path, number: signal.Signals) -> None:
    config = config_file('import os', f'os.kill(os.getpid(), {int(number)})')
    done = subprocess.run(
        [sys.executable, '-m', 'xlmr_flax', 'run', f'--config={config}', f'--workdir={tmp_path / "w"}'],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 128 + number
    (line,) = done.stderr.splitlines()
    assert line.startswith('stopped before the first run began')
    assert done.stdout == ''
    assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
    'where', [pytest.param(where, marks=[pytest.mark.slow] * (where in ('dev at step 6', 'de'))) for where in BATCHES]
)
def test_in_an_evaluation(
    where: str, whole: dict[str, Any], config_file: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    config = config_file(*PLAN)
    if not whole:
        folder = tmp_path_factory.mktemp('whole') / 'w'
        assert main(['run', f'--config={config}', f'--workdir={folder}']) == 0
        whole |= outcome(folder)
    workdir = tmp_path / 'w'
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, predict, 'put_batch', BATCHES[where])
        capsys.readouterr()
        assert main(['run', f'--config={config}', f'--workdir={workdir}']) == 143
    error = capsys.readouterr().err
    facts = [json.loads(p.read_text('utf-8')) for p in workdir.glob('runs/*/checkpoints/last/*/facts/metadata')]
    languages = {p.stem.rsplit('-', 1)[1] for p in workdir.glob('runs/*/evaluations/*.json')}
    if where.startswith('dev'):
        assert f'\nstopped at step {where[-1]} of 6' in f'\n{error}'
        assert [(str(f['step']), f['unevaluated']) for f in facts] == [(where[-1], True)]
        assert languages == set()
    else:
        assert ('\nstopped; what is finished' if where == 'en' else '\nstopped before the report') in f'\n{error}'
        assert languages == ({'en'} if where == 'en' else {'en', 'de'})
        assert not (workdir / 'report').exists()
    assert main(['run', f'--config={config}', f'--workdir={workdir}']) == 0
    assert outcome(workdir) == whole
