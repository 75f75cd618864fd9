"""A config that was changed while a training was unfinished: nothing is gone on from, and people read why."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.config import Config
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.train import loop
from xlmr_flax.util.stopping import Stopped


def test_the_difference_is_said(
    config_of: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def config(**changes: Any) -> Config:
        languages = {'world_pairs': ('en',)}
        return config_of(
            intermediate=('world_nli',), targets=('world_pairs',), evaluation__languages=languages, **changes
        )

    real = loop.put_batch

    def stopped(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    monkeypatch.setattr(loop, 'put_batch', stopped)
    for _ in range(2):
        with pytest.raises(Stopped):
            Runner.open(config(), tmp_path / 'w', 'x').run()
    assert 'another configuration' not in capsys.readouterr().out, 'its own state is gone on from'

    with pytest.raises(Stopped):
        Runner.open(config(recipe__steps=4, recipe__checkpoint_every=2), tmp_path / 'w', 'x').run()
    (line,) = [text for text in capsys.readouterr().out.splitlines() if 'another configuration' in text]
    assert line.endswith(
        'checkpoints: step 2 of another configuration is not used (recipe.steps: 3 in the checkpoint, 4 now)'
    )


def test_the_parents_configuration_is_a_part_of_it(config_of: Callable[..., Config], tmp_path: Path) -> None:
    """Of a run that starts from another one, what that one was trained with."""
    parent, child = (
        next(
            run
            for run in Runner.open(config_of(), tmp_path / 'w', 'x').plan
            if run.intermediate != 'none' and run.target == t
        )
        for t in ('', 'world_pairs')
    )
    assert child.decides['parent'] == parent.decides
    assert parent.decides['recipe'] == child.decides['recipe'] != {}
