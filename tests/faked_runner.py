"""A runner that trains and evaluates nothing but notes what it was asked to: the walk through a plan alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.runner import Runner

PLAN = [
    'none--world_pairs--seed1', 'none--world_retrieval--seed1', 'world_nli--intermediate--seed1',
    'world_nli--world_pairs--seed1', 'world_nli--world_retrieval--seed1',
]  # fmt: skip


class Faked(Runner):
    """did: the runs that were asked for, in order. fails: what a run raises. before: called with a run's name."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.did: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.before: Callable[[str], None] = lambda name: None
        self.train = lambda setting, run: self._fake(run)

    def done_path(self, run: Run) -> Path:
        return self.workdir.path / 'done' / run.name

    def is_trained(self, run: Run) -> bool:
        return not run.task or self.done_path(run).exists()

    def is_finished(self, run: Run) -> bool:
        return self.done_path(run).exists()

    def results(self) -> list[dict[str, Any]]:
        return [{'run': run.name} for run in self.plan if run.target and self.is_finished(run)]

    def evaluate(self, run: Run) -> None:
        if not self.done_path(run).exists():
            self._fake(run)

    def _fake(self, run: Run) -> None:
        short = run.name.rsplit('-', 1)[0]
        self.before(short)
        self.did.append(short)
        if short in self.fails:
            raise self.fails[short]
        self.done_path(run).parent.mkdir(exist_ok=True)
        self.done_path(run).touch()
