"""run --profile: a flag with or without a value, and where the trace of a run lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from xlmr_flax.cli.main import main

PLAN = (
    "config.intermediate = ('none',)", "config.targets = ('world_pairs',)", 'config.recipe.max_train = 32',
    "config.evaluation.languages = {'world_pairs': ('en',)}", 'config.recipe.steps = 4',
)  # fmt: skip


def test_a_window_that_is_none(config_file: Callable[..., Path], tmp_path: Path, fails: Callable[..., str]) -> None:
    workdir = tmp_path / 'w'
    said = fails('run', f'--config={config_file(*PLAN)}', f'--workdir={workdir}', '--profile=7')
    assert said.startswith('error: --profile=7: expected FIRST:STOP')
    assert not workdir.exists()


@pytest.mark.slow
def test_the_first_training_is_traced(
    config_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / 'w'
    command = ['run', f'--config={config_file(*PLAN)}', f'--workdir={workdir}']
    assert main([*command, '--profile']) == 0
    (run,) = (workdir / 'profile').iterdir()
    assert (workdir / 'runs' / run.name).is_dir()
    assert f'xprof --logdir={run}' in capsys.readouterr().out
    (path,) = run.glob('plugins/profile/*/*.xplane.pb')
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events]
    assert [dict(e.stats)['step_num'] for e in events if e.name == 'train'] == [1, 2, 3]
    assert main([*command, '--profile=2:4']) == 0, 'nothing is left to train'
    assert 'profile: nothing was traced' in capsys.readouterr().out
