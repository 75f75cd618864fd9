"""Compares two ways to make a plan's table on a slice: its runs one after the other on all chips, or one run a chip."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xlmr_flax.experiment.plan.runs import Plan
from xlmr_flax.experiment.workdir.scheduling import longest_first
from xlmr_flax.tools.estimate.chips import Topology
from xlmr_flax.tools.estimate.plan import PlanEstimate


def single_chip(topology: Topology) -> Topology:
    """A slice of one chip of the same kind."""
    return Topology(topology.chip, (1,) * len(topology.shape))


def makespan(seconds: Sequence[float], parents: Sequence[int], workers: int) -> float:
    """Seconds until `workers` processes have done all runs; a free one takes the first run that can begin.

    seconds: of each run. parents: index of the run that each starts from, -1 = none. NaN if a duration is.
    """
    if any(math.isnan(value) for value in seconds):
        return math.nan
    left, done = list(range(len(seconds))), {-1: 0.0}
    free = [0.0] * workers
    while left:
        now = heapq.heappop(free)
        ready = [i for i in left if parents[i] in done and done[parents[i]] <= now]
        if not ready:  # wait for the next end of a run that another one starts from
            later = min(done[parents[i]] for i in left if parents[i] in done)
            heapq.heappush(free, later)
            continue
        run = ready[0]
        left.remove(run)
        done[run] = now + seconds[run]
        heapq.heappush(free, done[run])
    return max(done.values())


@dataclass(frozen=True)
class Comparison:
    """Hours until a plan's table is complete. together: runs one after the other on all chips. apart: one run a chip,
    as `run --devices_a_run=1`. NaN if a program cannot run. Collectives are counted as if none overlapped."""

    topology: Topology
    together: float
    apart: float

    def text(self) -> str:
        """The comparison in one line."""
        if math.isnan(self.together) or math.isnan(self.apart):
            where = 'one chip' if math.isnan(self.apart) else 'all chips together'
            return f'{self.topology.name}: a program of the plan cannot run on {where}'
        first = 'one run a chip' if self.apart < self.together else 'one run on all chips'
        return (
            f'{self.topology.name}: the table is complete after {self.together:.3g} hours with one run on all '
            f'{self.topology.chips} chips, after {self.apart:.3g} with one run a chip (--devices_a_run=1); '
            f'first: {first}'
        )


def compare(plan: Plan, together: PlanEstimate, single: PlanEstimate) -> Comparison:
    """Compares a plan's estimate on a slice with that on one of its chips."""

    def hours(seconds: Mapping[str, float], workers: int) -> float:
        runs = longest_first(plan, seconds)
        place = {run.name: i for i, run in enumerate(runs)}
        parents = [place[run.start.name] if run.start else -1 for run in runs]
        return makespan([seconds.get(run.name, 0.0) for run in runs], parents, workers) / 3600

    return Comparison(together.topology, hours(together.runs, 1), hours(single.runs, together.topology.chips))
