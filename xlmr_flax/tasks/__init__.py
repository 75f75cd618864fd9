"""The registry: every module of this package that defines `TASKS`, by task name."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from xlmr_flax.tasks.base import Task, TaskError, closest


@cache
def all_tasks() -> dict[str, Task]:
    """Task name -> Task, from every module of this package, in module order. Raises TaskError on a name used twice."""
    found: dict[str, Task] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f'{__name__}.{info.name}')
        for task in getattr(module, 'TASKS', ()):
            if task.name in found:
                raise TaskError(f'two tasks are named {task.name!r} (the second in {module.__name__})')
            found[task.name] = task
    return found


def get_task(name: str) -> Task:
    """The task of that name. Raises TaskError with the closest known name."""
    tasks = all_tasks()
    if name not in tasks:
        raise TaskError(f'unknown task {name!r}{closest(name, tasks)}')
    return tasks[name]
