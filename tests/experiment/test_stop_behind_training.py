"""A stop request behind the last step of a training, which has no state to go on from: its model is saved first."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.config import Config
from xlmr_flax.experiment import training as phase
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.models.source import open_source
from xlmr_flax.util.stopping import Stopped

WHERE = ['fetch', '_save', 'save_checkpoint']  # of phase.py, in which the signal comes


@pytest.fixture(scope='module')
def whole(config_of: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    runner = Runner.open(changed(config_of), tmp_path_factory.mktemp('whole') / 'w', 'x')
    runner.run()
    return runner.workdir.weights(runner.plan[0]).read_bytes()


def changed(config_of: Callable[..., Config]) -> Config:
    languages = {'world_pairs': ('en',)}
    return config_of(intermediate=('none',), targets=('world_pairs',), evaluation__languages=languages)


@pytest.mark.parametrize('name', WHERE)
def test_a_finished_training_is_not_lost(
    name: str, whole: bytes, config_of: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(config_of)
    assert config.recipe.checkpoint_every == 0
    real, calls = getattr(phase, name), []

    def stopped(*args: Any, **more: Any) -> Any:
        calls.append(name)
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **more)

    monkeypatch.setattr(phase, name, stopped)
    runner = Runner.open(config, tmp_path / 'w', 'x')
    with pytest.raises(Stopped):
        runner.run()
    (run,) = runner.plan
    assert calls == [name]
    assert runner.is_trained(run)
    assert not runner.is_finished(run), 'the evaluation has not begun'
    assert not (runner.workdir.run_dir(run) / 'checkpoints').exists()
    assert not (tmp_path / 'w' / 'failed').exists()

    monkeypatch.setattr(phase, 'train', lambda *args: pytest.fail('trained again'))
    again = Runner.open(config, tmp_path / 'w', 'x')
    assert len(again.run()) > 0
    assert again.workdir.weights(run).read_bytes() == whole
    open_source(f'ckpt:{again.workdir.run_dir(run)}').load()
