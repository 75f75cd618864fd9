"""Finds gaps in a config's training data: substituted rows, and warm-up phases that are skipped for lack of data.

A run records this in its result rows (`stand_in`, § in tables); these functions report it before the run.
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

MARK = '§'  # marks results from such rows in tables


@dataclass(frozen=True)
class Gap:
    """Training rows that are not used. users: the arms and targets that would train on them ('arm logic'). instead: the
    split that they train on, '' = they skip this phase. missing: the missing files; () if the task has no training set
    (`has_set` is False) or the config names another split.
    """

    split: Split
    users: tuple[str, ...]
    instead: str = ''
    missing: tuple[Path, ...] = ()
    has_set: bool = True

    @property
    def name(self) -> str:
        """The task and the split, as 'TASK SPLIT'."""
        return f'{self.split.task.name} {self.split.name}'

    @property
    def is_chosen(self) -> bool:
        """Whether the rows exist, but the config selects others."""
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
    """Returns the gaps of a config's runs, one per task, language and split. Raises TaskError and ConfigError."""
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
    """Returns who trains on a dataset: 'arm NAME' or 'target NAME'."""
    arm = config.arms.get(run.intermediate)
    is_joint = bool(arm and arm.joint and dataset.member in arm.tasks)
    target = run.target or run.warms
    return f'target {target}' if target and not is_joint else f'arm {run.intermediate}'
