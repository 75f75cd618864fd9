"""Training rows that a config wants and does not get: other rows in their place, and first trainings that are left out.

A run says so in its result rows (`stand_in`, § in tables); this says it before there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from xlmr_flax.config import Config
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.data_check.inventory import missing_files
from xlmr_flax.experiment.plan.arms import Dataset
from xlmr_flax.experiment.plan.reads import own_training_rows
from xlmr_flax.experiment.plan.runs import Run, make_plan

MARK = '§'  # of results from such rows, in tables


@dataclass(frozen=True)
class Gap:
    """Training rows that are not used. users: the arms and targets that would train on them ('arm logic'). instead: the
    split that these train on, '' = they leave this training out. missing: the files that are not there; () where the
    task has no training set (`has_set` False) or the config names another split.
    """

    split: Split
    users: tuple[str, ...]
    instead: str = ''
    missing: tuple[Path, ...] = ()
    has_set: bool = True

    @property
    def name(self) -> str:
        """Task and split."""
        return f'{self.split.task.name} {self.split.name}'

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
            return f'{self.split.name}: missing: {who} {are} trained without it, though the recipe trains on it first'
        why = 'missing' if self.missing else 'there, and not used' if self.has_set else 'the task has none'
        return f'{self.split.name}: {why}: {who} {train} on {self.instead} rows ({MARK} in tables)'


def find_gaps(config: Config) -> list[Gap]:
    """What a config's runs do not train on, a line a task, language and split. Raises TaskError, ConfigError."""
    users: dict[tuple[Split | None, Split, str], dict[str, None]] = {}
    for run in make_plan(config):
        for dataset in run.datasets:
            own = own_training_rows(dataset)
            if own != dataset.rows or (run.warms and not dataset.rows.is_there()):
                key = own, replace(dataset.rows, name='train'), '' if run.warms else dataset.split
                users.setdefault(key, {})[_user(config, run, dataset)] = None
    return [
        Gap(own or train, tuple(who), instead, tuple(missing_files(own)) if own else (), has_set=own is not None)
        for (own, train, instead), who in users.items()
    ]


def _user(config: Config, run: Run, dataset: Dataset) -> str:
    """Who trains on a dataset: 'arm NAME' or 'target NAME'."""
    arm = config.arms.get(run.intermediate)
    is_joint = bool(arm and arm.joint and dataset.member in arm.tasks)
    target = run.target or run.warms
    return f'target {target}' if target and not is_joint else f'arm {run.intermediate}'
