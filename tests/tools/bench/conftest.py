"""Options of a bench on the embedded world, and one thread for torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from xlmr_flax.tools.bench import settings

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope='session')
def options_of() -> Make:
    """(task, more) -> options of a tiny random encoder. embed, target and languages as in settings.task_config."""

    def make(task: str, *, embed: bool = False, **more: Any) -> dict[str, Any]:
        config = settings.task_config(
            task, 'random:tiny', rows=more.pop('rows', 20), max_length=80, batch=4, dropout=0.1, dtype='float32', **more
        )
        return {'config': config, 'task': task, 'device': 'cpu', 'device_name': 'a CPU', 'embed': embed}

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch's threads wait for each other in a model this small, for long where other tests run beside."""
    torch = pytest.importorskip('torch')
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
