"""The task registry: collects the tasks of every module of this package that defines `TASKS`, by name."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from xlmr_flax.tasks.base import Task, TaskError
from xlmr_flax.util.errors import closest


@cache
def all_tasks() -> dict[str, Task]:
    """All tasks as {name: Task}, in the order of modules. Raises TaskError if a name is used twice."""
    tasks: dict[str, Task] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f'{__name__}.{info.name}')
        for task in getattr(module, 'TASKS', ()):
            if task.name in tasks:
                raise TaskError(f'two tasks are named {task.name!r} (the second in {module.__name__})')
            tasks[task.name] = task
    return tasks


def get_task(name: str) -> Task:
    """Looks up a task by name. Raises TaskError with the closest known name."""
    tasks = all_tasks()
    if name not in tasks:
        raise TaskError(f'unknown task {name!r}{closest(name, tasks)}')
    return tasks[name]
