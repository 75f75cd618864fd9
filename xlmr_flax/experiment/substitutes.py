"""Training rows that a config wants and does not get: other rows in their place, and first trainings that are left out.

A run says so in its result rows (`stand_in`, § in tables); this says it before there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xlmr_flax.config import Config
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.arms import NONE, Dataset, arm_of, datasets, target_arm, task_of
from xlmr_flax.experiment.check import missing_files
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task, TaskError

MARK = '§'  # of results from such rows, in tables


@dataclass(frozen=True)
class Gap:
    """Training rows that are not used. split: theirs, of `task` in `language`. users: the arms and targets that would
    train on them ('arm logic'). instead: the split that these train on, '' = they leave this training out. missing: the
    files that are not there; () where the task has no training set (`has_set` False) or the config names another split.
    """

    task: str
    split: str
    language: str
    users: tuple[str, ...]
    instead: str = ''
    missing: tuple[Path, ...] = ()
    has_set: bool = True

    @property
    def is_chosen(self) -> bool:
        """Whether the rows are there and the config asks for others."""
        return self.has_set and not self.missing

    def __str__(self) -> str:
        kinds: dict[str, list[str]] = {}
        for user in self.users:
            kind, name = user.split(' ', 1)
            kinds.setdefault(kind, []).append(name)
        who = ' and '.join(f'{kind}{"s" if len(n) > 1 else ""} {", ".join(n)}' for kind, n in kinds.items())
        train = 'train' if len(self.users) > 1 else 'trains'
        if not self.instead:
            are = 'are' if len(self.users) > 1 else 'is'
            return f'{self.split}: missing: {who} {are} trained without it, though the recipe trains on it first'
        why = 'missing' if self.missing else 'there, and not used' if self.has_set else 'the task has none'
        return f'{self.split}: {why}: {who} {train} on {self.instead} rows ({MARK} in tables)'


def find_gaps(config: Config) -> list[Gap]:
    """What a config's runs do not train on, a line a task, language and split. Raises TaskError, ConfigError."""
    users: dict[tuple[str, str, str, str], list[str]] = {}
    for user, dataset in _trained(config):
        wanted, language = wanted_split(dataset), dataset.language
        if wanted != dataset.split:
            users.setdefault((dataset.task.name, wanted, language, dataset.split), []).append(user)
    for target in map(get_task, config.targets):
        if (first := left_out_warmup(config, target)) and any(_warms_up(config, arm) for arm in config.intermediate):
            users.setdefault((first.name, 'train', 'en', ''), []).append(f'target {target.name}')
    return [_gap(config, *key, tuple(dict.fromkeys(who))) for key, who in users.items()]


def wanted_split(dataset: Dataset) -> str:
    """The split of a task's training rows in the language of a dataset; '' for a task that has none."""
    if not dataset.spec.split:
        return dataset.split
    try:
        return dataset.task.training_split(dataset.language)
    except TaskError:
        return ''


def left_out_warmup(config: Config, target: Task) -> Task | None:
    """The task that a target's recipe trains on first (XCOPA: Social IQa), where its files are not there."""
    if not target.warmup_task or target.kind == 'retrieval' or target.name in config.training:
        return None
    first = task_of(config, target.warmup_task)
    return None if Split(first, 'en', 'train', config.data_root).is_there() else first


def _warms_up(config: Config, arm: str) -> bool:
    return arm not in config.arms or not config.arms[arm].joint


def _trained(config: Config) -> Iterator[tuple[str, Dataset]]:
    """(who, what it trains on)"""
    for name in config.intermediate:
        if name != NONE and not arm_of(config, name).joint:
            for dataset in datasets(config, arm_of(config, name), f'arms.{name}'):
                yield f'arm {name}', dataset
    for name in config.targets:
        task = task_of(config, name)
        for arm in config.intermediate if task.kind != 'retrieval' else ():
            for dataset in datasets(config, target_arm(config, task, arm), f'training.{name}'):
                joint = arm in config.arms and dataset.member in config.arms[arm].tasks and config.arms[arm].joint
                yield f'arm {arm}' if joint else f'target {name}', dataset


def _gap(config: Config, name: str, split: str, language: str, instead: str, users: tuple[str, ...]) -> Gap:
    if not split:
        return Gap(name, 'train', language, users, instead, has_set=False)
    task = get_task(name)
    return Gap(
        name, split, language, users, instead, tuple(missing_files(Split(task, language, split, config.data_root)))
    )
