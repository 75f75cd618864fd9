"""A stop whose state cannot be saved, and a full disk: exit codes and messages that say what is there."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.experiment import training as phase
from xlmr_flax.experiment.workdir import files as module
from xlmr_flax.train import loop
from xlmr_flax.train.checkpoint import Handler

PLAN = (
    "config.intermediate, config.targets = ('none',), ('world_pairs', 'world_nli')",
    "config.evaluation.languages = {'world_pairs': ('en',), 'world_nli': ('en',)}",
    'config.recipe.steps, config.recipe.log_every, config.recipe.max_train = 4, 2, 64',
)


def full(*args: Any, **more: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stopped(*args: Any, real: Any = loop.put_batch) -> Any:
    os.kill(os.getpid(), signal.SIGTERM)
    return real(*args)


@pytest.mark.parametrize('disk', ['state', 'everything'])
def test_a_stop_whose_state_is_not_saved(
    disk: str, config_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ['run', f'--config={config_file(*PLAN)}', f'--workdir={tmp_path / "w"}']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, 'finalize', full)
        patch.setattr(loop, 'put_batch', stopped)
        if disk == 'everything':
            real = loop._Loop.stop

            def stop(self: Any, step: int) -> None:
                patch.setattr(module, 'write_atomically', full)
                real(self, step)

            patch.setattr(loop._Loop, 'stop', stop)
        assert main(command) == 1
    said = capsys.readouterr()
    error = said.err.splitlines()[-1]
    assert error.startswith("error: stopped at step 1 of 4 of task 'world_pairs', but the state is not saved: ")
    assert error.endswith('no checkpoint had been saved before')
    assert 'same command' not in said.err
    assert 'Traceback' not in said.err
    assert not list((tmp_path / 'w').glob('runs/*/checkpoints/last/*'))
    failures = [json.loads(path.read_text('utf-8')) for path in (tmp_path / 'w' / 'failed').glob('*.json')]
    assert [failure['type'] for failure in failures] == (['CheckpointError'] if disk == 'state' else [])
    assert len(list((tmp_path / 'w' / 'runs').iterdir())) == 1, 'it went on to the next run'
    assert main([*command, '--retry_failed']) == 0
    assert len((tmp_path / 'w' / 'results.jsonl').read_text('utf-8').splitlines()) == 2


def test_a_model_that_is_not_saved_is_not_finished(
    config_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind the last step, with a stop request besides."""
    config = config_file(*PLAN, "config.targets = ('world_pairs',)")
    command = ['run', f'--config={config}', f'--workdir={tmp_path / "w"}']
    for asked in (False, True):
        with pytest.MonkeyPatch.context() as patch:

            def save(*args: Any, asked: bool = asked, **more: Any) -> None:
                if asked:
                    os.kill(os.getpid(), signal.SIGTERM)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / 'w' / 'model'))

            patch.setattr(phase, 'save_checkpoint', save)
            assert main([*command, '--retry_failed']) == 1
        said = capsys.readouterr()
        assert said.err.splitlines()[-1] == f'error: {tmp_path}/w/model: {os.strerror(errno.ENOSPC)}'
        text = (said.out + said.err).replace(str(tmp_path), '')
        assert not [word for word in ('finished', 'saved') if word in text]
    assert main([*command, '--retry_failed']) == 0
    assert len(list((tmp_path / 'w' / 'runs').glob('*/model/manifest.json'))) == 1
