"""A plan of two seeds run once for all tests of this folder that only look at it."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faked_runner import Faked

from xlmr_flax.config import Config, parse
from xlmr_flax.experiment.workdir.scheduling import Share

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.py'
LANGUAGES = {'world_pairs': ('en', 'de'), 'world_retrieval': ('de',)}


def tiny_config(**changes: Any) -> Config:
    """configs/tiny.py with fewer steps and languages. changes: fields of the Config, nested ones with '__'."""
    raw = runpy.run_path(str(TINY))['get_config']().to_dict()
    raw['recipe'] |= {'steps': 3, 'log_every': 2, 'max_train': 64}
    raw['evaluation'] |= {'languages': LANGUAGES}
    for name, value in changes.items():
        *parents, last = name.split('__')
        node = raw
        for parent in parents:
            node = node[parent]
        node[last] = value
    return parse(raw)


@pytest.fixture(scope='session')
def config_of() -> Any:
    return tiny_config


@pytest.fixture(scope='session')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workdir of seeds 1 and 2. Copy it before changing anything."""
    from xlmr_flax.analysis.study_report import write_run_report
    from xlmr_flax.experiment.runner import Runner

    workdir = tmp_path_factory.mktemp('finished') / 'w'
    runner = Runner.open(tiny_config(seeds=(1, 2)), workdir, 'first')
    runner.run()
    write_run_report(runner, {'jax': '0'})
    return workdir


@pytest.fixture
def walk(config_of: Callable[..., Config], tmp_path: Path) -> Callable[..., Faked]:
    """A walk through the plan of two arms and two targets."""

    def make(share: Share | None = None, **changes: Any) -> Faked:
        return Faked.open(config_of(**changes), tmp_path / 'w', 'the command', share)

    return make
