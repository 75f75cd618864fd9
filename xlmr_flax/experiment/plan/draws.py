"""Computes how many batches a training samples from each dataset; a run's log and the dry run share these numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xlmr_flax.config import Arm, Recipe
from xlmr_flax.data.mixture import Mixture
from xlmr_flax.experiment.plan.arms import Dataset, member_sizes


@dataclass(frozen=True)
class Draws:
    """The draws from one dataset. rows: its number of examples. cap: the arm's cap if it limits the member, else 0.
    draws: number of batches (or micro-batches) drawn from it in a training. rate: their share of all batches.
    passes: how often an example is seen on average."""

    dataset: Dataset
    rows: int
    cap: int
    draws: int
    rate: float
    passes: float


def expected_draws(
    arm: Arm, recipe: Recipe, datasets: Sequence[Dataset], sizes: Sequence[int], mixture: Mixture, steps: int
) -> list[Draws]:
    """Computes the draws of a training of `steps` steps, in the order of its datasets. sizes: their examples."""
    parts = recipe.accumulation if arm.mix == 'micro_batch' else 1
    total, size = steps * parts, recipe.batch_size // parts
    members, drawn = member_sizes(arm, datasets, sizes), []
    for dataset, rows, n in zip(datasets, sizes, mixture.counts(total).tolist(), strict=True):
        examples, capped = members[dataset.member]
        drawn.append(Draws(dataset, rows, arm.cap if capped < examples else 0, n, n / total, n * size / rows))
    return drawn
