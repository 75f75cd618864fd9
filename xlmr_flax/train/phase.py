"""The types of a training phase: its input (`Phase`) and its result (`Trained`)."""

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
    """Raised if the loss becomes NaN or infinite. The message names the step, the task and the example ids."""


class Progress(Protocol):
    """A progress callback, called every `log_every` steps and after the last one: steps done, all steps, examples."""

    def __call__(self, done: int, total: int, examples: int) -> None: ...


@dataclass(frozen=True)
class Phase:
    """The input of a training: model, data, recipe, mesh and callbacks.

    task: name for messages. steps: number of optimizer steps. pad: id of the padding token. evaluate: params -> dev
    metrics by name, of which 'dev_metric' (higher is better) selects the best weights; None = no evaluation. log:
    called with one record per log_every steps and per evaluation. directory: folder for checkpoints. run_hash: a
    checkpoint with another hash is an error. decides: the settings that the hash covers; the error shows which differ.
    on_start: called with the step at which training starts (0 or a checkpoint's), and whether an evaluation was made
    at that step. write_log: returns when all records are written; called before a state is saved. say: called with
    messages for the user. trace: records some of the steps for a profiler, None = none.
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
    on_start: Callable[[int, bool], None] | None = None
    decides: Mapping[str, Any] = field(default_factory=dict)
    write_log: Callable[[], None] = lambda: None
    say: Callable[[str], None] = lambda text: None
    trace: Trace | None = None

    def forget_checkpoints(self) -> None:
        """Deletes the checkpoints of a finished run: its model is saved, and the state is three times as large."""
        if is_leader():
            shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True)
class Trained:
    """The result of a training phase.

    params: the kept weights (best or last), on the mesh. step: the number of updates of these weights. metric: their
    dev metric, NaN without an evaluation. is_earlier: whether another evaluation came after theirs. programs: number of
    training programs that this phase compiled (0 if an earlier phase of the process had compiled them).
    """

    params: Params
    step: int
    metric: float
    is_earlier: bool = False
    programs: int = 0


def total_steps(recipe: Recipe, *examples: int) -> int:
    """The number of optimizer steps of a recipe. examples: the size of each dataset.

    The last partial batch of each dataset counts as a step, and the steps are summed over the datasets of a mixture, as
    in jiant (proj/main/scripts/configurator.py).
    """
    if recipe.steps > 0:
        return recipe.steps
    return max(1, sum(math.ceil(recipe.epochs * n / recipe.batch_size) for n in examples))
