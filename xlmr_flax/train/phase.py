"""The types of a training: what a phase trains, and its result."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jax.sharding import Mesh

from xlmr_flax.config import Recipe
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.distributed import is_leader
from xlmr_flax.train.diagnostics.profile import Trace
from xlmr_flax.train.streams import TrainingData
from xlmr_flax.util.errors import UserError


class NonFiniteLoss(UserError, FloatingPointError):
    """The loss became NaN or infinite; the message names step, task and example ids."""


class Progress(Protocol):
    """Called after every step, to show how far the training is."""

    def __call__(self, done: int, total: int, examples: int, **values: float) -> None: ...


@dataclass(frozen=True)
class Phase:
    """What is trained: an encoder with the heads of its data.

    task: for messages. steps: of the optimizer. evaluate: params -> dev metrics by name (higher is better), of which
    'dev_metric' decides what is kept; or None. log: takes one record per log_every steps and per evaluation.
    directory: of its checkpoints. run_hash: refuses others' checkpoints; decides: what it was made of, to show the
    difference. restarted: told the step that training starts from, 0 or a checkpoint's, and whether an evaluation there
    has been made. say: told what people should know. trace: of some of its steps, for a profiler's viewer.
    """

    task: str
    model: Model
    recipe: Recipe
    data: TrainingData
    steps: int
    seed: int
    pad: int
    mesh: Mesh
    directory: Path
    run_hash: str
    evaluate: Callable[[Params], Mapping[str, float]] | None
    log: Callable[[dict[str, Any]], None]
    progress: Progress | None = None
    restarted: Callable[[int, bool], None] | None = None
    decides: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = lambda text: None
    trace: Trace | None = None

    def forget_checkpoints(self) -> None:
        """Deletes the state of a finished run: its model has been saved, and the state is three times as large."""
        if is_leader():
            shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True)
class Trained:
    """params: the kept weights (best or last), on the mesh. step: how many updates they have seen. metric: their dev
    metric, NaN without one. programs: training programs that this phase compiled (none where an earlier phase of the
    process had them)."""

    params: Params
    step: int
    metric: float
    programs: int = 0


def total_steps(recipe: Recipe, *examples: int) -> int:
    """Optimizer steps of a recipe on datasets of so many examples; a last partial batch of each counts as a step, as
    in jiant (proj/main/scripts/configurator.py), which sums them over the datasets of a mixture.
    """
    if recipe.steps > 0:
        return recipe.steps
    return max(1, sum(math.ceil(recipe.epochs * n / recipe.batch_size) for n in examples))
