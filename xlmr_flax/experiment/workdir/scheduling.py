"""Schedules a plan over several processes: the order of the runs for each process, and waiting for others."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

import xlmr_flax
from xlmr_flax.config import Config, ConfigError, digest
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.workdir.claims import TIMEOUT, Holder
from xlmr_flax.parallel import distributed
from xlmr_flax.util.console import duration, say
from xlmr_flax.util.stopping import pause


class PlanFailed(RuntimeError):
    """Some runs of a plan failed; all others are finished, and their results are written. failures: a line for each."""

    def __init__(self, message: str, failures: list[str]):
        super().__init__(message)
        self.failures = failures


@dataclass(frozen=True)
class Share:
    """The share of one process in a plan. number: its number among `count` processes, from 1. claim_timeout: seconds
    without a heartbeat after which a process on another machine counts as gone. retry_failed: try failed runs again.
    """

    number: int = 1
    count: int = 1
    claim_timeout: float = TIMEOUT
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.claim_timeout <= 0:
            raise ConfigError(f'--claim_timeout={self.claim_timeout:g}: expected a number of seconds above 0')

    @property
    def label(self) -> str:
        """'1/2', or '' for a process that does the whole plan."""
        return f'{self.number}/{self.count}' if self.count > 1 else ''


def parse_shard(text: str) -> tuple[int, int]:
    """Parses --shard: '2/4' -> (2, 4); '' -> (1, 1). Raises ConfigError."""
    match = re.fullmatch(r'(\d+)/(\d+)', text or '1/1')
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(
            f'--shard={text}: expected NUMBER/COUNT, counted from 1: 1/4, 2/4, 3/4 and 4/4 are four processes'
        )
    return int(match[1]), int(match[2])


def order(plan: Sequence[Run], share: Share, seconds: Mapping[str, float] | None = None) -> list[Run]:
    """Orders the plan for one process. A parent comes before the runs that start from it.

    seconds: of each run by its name, if known. Then several processes take what lasts longest first (`longest_first`).
    Else a process takes its own part first, then those of the next processes. A part consists of families (a run
    without a parent and all its descendants), so that few processes wait for a training of another process.
    """
    if seconds and share.count > 1:
        return longest_first(plan, seconds)
    number = {name: i for i, name in enumerate(dict.fromkeys(run.lineage[0].name for run in plan))}
    return sorted(plan, key=lambda run: (number[run.lineage[0].name] - (share.number - 1)) % share.count)


def longest_first(plan: Sequence[Run], seconds: Mapping[str, float]) -> list[Run]:
    """Orders a plan so that no long training begins last: by the seconds of each run plus those of the longest chain of
    runs that start from it, largest first. seconds: run name -> seconds; 0 for a run that is missing.
    """
    lasts: dict[str, float] = {}
    after: dict[str, float] = {}
    for run in reversed(plan):
        lasts[run.name] = seconds.get(run.name, 0.0) + after.get(run.name, 0.0)
        if run.start:
            after[run.start.name] = max(after.get(run.start.name, 0.0), lasts[run.name])
    return sorted(plan, key=lambda run: -lasts[run.name])


def require_one_job(config: Config, plan: Sequence[Run], workdir: Path) -> None:
    """Checks a multi-process job: raises DistributedError unless all processes have the same config, package version,
    devices, plan, training data and workdir.
    """
    facts = {'config': digest(config), 'package': xlmr_flax.__version__, 'jax': jax.__version__}
    facts['devices'] = str(jax.device_count())
    runs = {f'run {run.name}': run.id for run in plan}  # an id includes the digests of the training data
    distributed.require_equal(facts | runs)
    distributed.require_shared(workdir)


@dataclass
class Waiting:
    """Waits for other processes with increasing pauses, and prints for which ones. Raises Stopped.

    shortest, longest: limits of a pause in seconds. again: seconds after which the message is repeated.
    """

    shortest: float = 0.5
    longest: float = 10.0
    again: float = 600.0
    _pause: float = 0.0
    _said: tuple[str, ...] = ()
    _when: float = 0.0

    def __call__(self, held: Mapping[str, Holder], left: int) -> None:
        """Pauses once. held: run -> the process that holds it. left: number of unfinished runs of the plan."""
        names, now = tuple(sorted(held)), time.monotonic()
        if names and (names != self._said or now - self._when > self.again):
            self._said, self._when = names, now
            for name in names:
                since = duration(max(0.0, time.time() - held[name].since))
                say(f'waiting for {name}  {held[name]}, for {since}  ({left} runs left)')
        self._pause = min(self.longest, self._pause * 1.5 or self.shortest)
        pause(self._pause)

    def reset(self) -> None:
        """Starts again with the shortest pause; call it after some work was done."""
        self._pause = 0.0
