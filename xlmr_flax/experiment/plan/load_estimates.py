"""Estimates the `Load` of each dataset of a plan's trainings from token lengths, for defaults and cost estimates.

Lengths are those of the token cache or of a split's first rows (experiment/plan/cost.py). Nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xlmr_flax.config import Recipe
from xlmr_flax.data.packing import Packing
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.experiment.plan.arms import Dataset
from xlmr_flax.experiment.plan.cost import CACHED, Estimator, SplitSizes
from xlmr_flax.experiment.plan.defaults import Defaults, decide
from xlmr_flax.experiment.plan.load import Load
from xlmr_flax.experiment.plan.runs import Plan, Run
from xlmr_flax.parallel.distributed import on_leader
from xlmr_flax.parallel.machine import this_machine
from xlmr_flax.train.optimizer import method_of

_DRAWS = 16  # steps that are drawn to estimate rows and padding


def load_of(dataset: Dataset, rows: SplitSizes, recipe: Recipe, mix: str, steps: float) -> Load:
    """The Load of one dataset. rows: its sizes. mix: of the arm. steps: optimizer steps on it."""
    random, mixed = np.random.default_rng(0), mix == 'micro_batch'
    known = rows.lengths[: len(rows.lengths) // rows.group * rows.group]
    if not len(known):
        known = np.full(rows.group, dataset.max_length)
    units = np.minimum(known, dataset.max_length).reshape(-1, rows.group)
    draws = units[random.integers(0, len(units), (_DRAWS, recipe.batch_size))]
    packing, length = None, dataset.lengths[-1]
    if recipe.packing:
        # The longest example of many decides the length of rows; a few first rows do not have it.
        all_known = rows.basis == CACHED or len(units) >= rows.units
        packing = Packing.of(units, dataset.lengths if all_known else dataset.lengths[-1:])
        length = packing.length
    elif len(dataset.lengths) > 1:
        longest = draws.reshape(_DRAWS * recipe.accumulation, -1).max(axis=1) if mixed else draws.max(axis=(1, 2))
        length = int(np.median(np.asarray(dataset.lengths)[np.searchsorted(dataset.lengths, longest)]))
    apart = mixed or recipe.optimizer.clip_per == 'micro_batch'
    whole_table = dataset.task.is_text or method_of(recipe.optimizer).untouched is None
    return Load(dataset.name, steps, recipe.accumulation, apart, packing, draws, length, whole_table)


def loads_of(estimator: Estimator, run: Run) -> Iterator[Load]:
    """Yields the loads of a run's training, one for each dataset. Raises DataError and ConfigError."""
    if run.arm is None or run.recipe is None:
        return
    arm, recipe = run.arm, run.recipe
    rows, _, draws = estimator.draws(run, arm, recipe)
    micro = recipe.accumulation if arm.mix == 'micro_batch' else 1
    for drawn, each in zip(draws, rows, strict=True):
        if drawn.draws:
            yield load_of(drawn.dataset, each, recipe, arm.mix, drawn.draws / micro)


def plan_defaults(plan: Plan, shape: EncoderConfig, tokenizer: Tokenizer) -> Defaults:
    """The defaults of a resolved plan on the devices of this job, with the estimated seconds of its runs.

    Process 0 decides for all processes: it may have token caches that others lack.
    """
    by_run: dict[str, list[Load]] = {}

    def loads() -> list[Load]:
        estimator = Estimator(plan, shape, tokenizer)
        by_run.update({run.name: list(loads_of(estimator, run)) for run in plan})
        return [load for own in by_run.values() for load in own]

    def found() -> dict[str, Any]:
        made = decide(plan.config, shape, this_machine(), loads)  # calls loads only on accelerators
        return made.with_seconds(shape, by_run).as_json()

    return Defaults.from_json(on_leader('defaults', found))
