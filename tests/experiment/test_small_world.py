"""Every task with training rows trains on the files that a download makes, in small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from download.small_world import build

from xlmr_flax.config import Config
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.tasks import all_tasks, get_task

BY_HAND = ('ccg', 'ccg_usual', 'mlm_text', 'mewslix')  # their training rows are not fetched
TRAINED = sorted(
    name
    for name, task in all_tasks().items()
    if 'train' in task.splits and task.kind != 'retrieval' and not name.startswith('world_') and name not in BY_HAND
)
DEFAULT = ('reclor', 'logicnli')  # whole runs on files that other tests have nothing of


@pytest.fixture(scope='module')
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of tests/download, where a download is shown to make it."""
    folder = tmp_path_factory.mktemp('small')
    for path, text in build(folder / 'table').tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding='utf-8', newline='')
    return folder


@pytest.mark.parametrize(
    'name', [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in TRAINED]
)
def test_a_task_trains_a_step(name: str, config_of: Callable[..., Config], small_root: Path, tmp_path: Path) -> None:
    language = 'en' if 'en' in get_task(name).languages else get_task(name).languages[0]
    assert Split(get_task(name), language, 'train', small_root).is_there()
    config = config_of(
        targets=('world_retrieval',),
        arms={'small': {'tasks': {name: {'languages': (language,)}}}},
        intermediate=('small',),
        data_root=str(small_root),
        recipe__steps=1,
        recipe__log_every=1,
        recipe__batch_size=2,
        evaluation__languages={'world_retrieval': ('de',)},
        evaluation__max_examples=8,
    )
    runner = Runner.open(config, tmp_path / 'w', 'x')
    assert {row['language'] for row in runner.run()} == {'de'}
    losses = [m['loss'] for m in runner.workdir.metrics() if 'loss' in m and m['run'] == runner.plan[0].name]
    assert len(losses) == 1
