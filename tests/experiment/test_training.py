"""What is read of a finished training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from xlmr_flax.config import Config
from xlmr_flax.encoders.config import ModelError
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.training import trained_facts


@pytest.mark.parametrize('content', ['{}', '{"trained": 5}', '{"trained": {}}', '{"trained": {"step": null}}'])
def test_a_model_without_a_run_is_an_error(config_of: Callable[..., Config], tmp_path: Path, content: str) -> None:
    """For example a converted model that was put into the folder of a run."""
    config = config_of(intermediate=('none',), targets=('world_pairs',))
    runner = Runner.open(config, tmp_path, 'x', look_only=True)
    path = runner.workdir.run_dir(runner.plan[0]) / 'model' / 'model.json'
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding='utf-8')
    with pytest.raises(ModelError, match=str(path)):
        trained_facts(runner.setting, runner.plan[0])
