"""The training loop: batches by step number, one jitted step, logs, dev selection, checkpoints, clean stops."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from xlmr_flax.config import Recipe
from xlmr_flax.data.batches import row_lengths, rows_at, train_batch
from xlmr_flax.data.encode import Encoded
from xlmr_flax.models.model import HeadSpec, Model, Params
from xlmr_flax.parallel.mesh import put_batch, put_tree
from xlmr_flax.train.checkpoint import Checkpoints
from xlmr_flax.train.optimizer import make_optimizer, schedule
from xlmr_flax.train.step import State, init_state, make_train_step


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite; the message names step, task and example ids."""


class Stopped(RuntimeError):
    """The run was asked to stop (SIGTERM, SIGINT) and saved its state first."""


class Progress(Protocol):
    """Told after every step; draws a line when it likes."""

    def __call__(self, done: int, total: int, examples: int, **values: float) -> None: ...


@dataclass(frozen=True)
class Phase:
    """What is trained: one head on the encoder with one task's data.

    task: for messages. evaluate: params -> dev metric (higher is better), or None. log: takes one record per log_every
    steps and per evaluation. directory: of its checkpoints. run_hash: refuses others' checkpoints. restarted: told the
    step that training starts from, 0 or a checkpoint's.
    """

    task: str
    model: Model
    head_name: str
    head: HeadSpec
    recipe: Recipe
    data: Encoded
    seed: int
    pad: int
    mesh: Mesh
    directory: Path
    run_hash: str
    evaluate: Callable[[Params], float] | None
    log: Callable[[dict[str, Any]], None]
    progress: Progress | None = None
    restarted: Callable[[int], None] | None = None

    def forget_checkpoints(self) -> None:
        """Deletes the state of a finished run: its model has been saved, and the state is three times as large."""
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(frozen=True)
class Trained:
    """params: the kept weights (best or last), on the mesh. step: how many updates they have seen. metric: their dev
    metric, NaN without one."""

    params: Params
    step: int
    metric: float


def total_steps(recipe: Recipe, examples: int) -> int:
    """Optimizer steps of a recipe on that many examples; a last partial batch counts as a step (jiant's ceil)."""
    return recipe.steps if recipe.steps > 0 else max(1, math.ceil(recipe.epochs * examples / recipe.batch_size))


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields `asked()`; while inside, SIGTERM and SIGINT only set it. A second signal acts at once."""
    asked: list[int] = []
    try:
        old: dict[int, Any] = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

        def handle(number: int, frame: Any) -> None:
            asked.append(number)
            signal.signal(number, old[number])

        for number in old:
            signal.signal(number, handle)
    except ValueError:  # not the main thread (notebooks, tests): signals stay as they are
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


class _Run:
    """The moving parts of one `train` call."""

    def __init__(self, phase: Phase, params: Params):
        recipe = phase.recipe
        self.phase, self.recipe = phase, recipe
        self.steps = total_steps(recipe, len(phase.data))
        self.lengths = row_lengths(recipe.max_length, recipe.lengths)
        self.rate = schedule(recipe.optimizer, self.steps)
        optimizer = make_optimizer(recipe.optimizer, self.steps)
        self.step_fn = make_train_step(
            phase.model,
            phase.head_name,
            phase.head,
            optimizer,
            recipe.optimizer,
            mesh=phase.mesh,
            accumulation=recipe.accumulation,
        )
        self.state: State = init_state(put_tree(params, phase.mesh), optimizer, phase.mesh)
        self.last = Checkpoints(phase.directory / 'last', phase.run_hash)
        self.best = Checkpoints(phase.directory / 'best', phase.run_hash)
        self.key = jax.random.key(phase.seed)
        self.pending: list[tuple[int, dict[str, Any]]] = []
        self.metric, self.best_metric, self.stale, self.start, self.done = math.nan, -math.inf, 0, 0, False
        self.since = time.monotonic()
        if self.last.latest() is not None:
            self.state, facts = self.last.restore(self.state)
            self.start, self.done = facts['step'], facts['done']
            self.metric, self.best_metric, self.stale = facts['metric'], facts['best_metric'], facts['stale']
            self.pending = [(s, {k: np.float32(v) for k, v in m.items()}) for s, m in facts['pending']]
        self.best.forget(self.start + 1)
        if phase.restarted:
            phase.restarted(self.start)

    def save_last(self, step: int, done: bool) -> None:
        """Saves the state and what is not yet logged, so that a run that stopped anywhere logs what it would have."""
        self.check()
        pending = [(s, {k: float(v) for k, v in m.items()}) for s, m in self.pending]
        self.last.save(
            step,
            self.state,
            step=step,
            done=done,
            metric=self.metric,
            best_metric=self.best_metric,
            stale=self.stale,
            pending=pending,
        )

    def check(self) -> None:
        """Reads the pending metrics and stops on a non-finite loss."""
        self.pending = [(s, jax.device_get(m)) for s, m in self.pending]
        for s, m in self.pending:
            if not (np.isfinite(m['loss']) and np.isfinite(m['grad_norm'])):
                rows = rows_at(s, len(self.phase.data), self.recipe.batch_size, self.phase.seed)
                ids = [self.phase.data.unit_id(int(r)) for r in rows]
                raise NonFiniteLoss(
                    f'loss {m["loss"]}, gradient norm {m["grad_norm"]} at step {s} of task {self.phase.task!r}; '
                    f'examples: {", ".join(ids[:8])}{", ..." if len(ids) > 8 else ""}. '
                    f'The last saved state is whole; try a lower learning rate or a longer warm-up'
                )

    def flush(self, step: int) -> None:
        """Checks the pending metrics and logs their mean."""
        self.check()
        records, self.pending = self.pending, []
        if records:
            now = time.monotonic()
            mean = {k: float(np.mean([m[k] for _, m in records])) for k in records[0][1]}
            speed = len(records) * self.recipe.batch_size / max(now - self.since, 1e-9)
            self.since = now
            rate = float(self.rate(records[-1][0]))
            self.phase.log({'step': step, **mean, 'learning_rate': rate, 'examples_per_s': speed})

    def select(self, step: int) -> None:
        """Evaluates on dev, keeps the best weights, counts evaluations without improvement."""
        assert self.phase.evaluate is not None
        self.metric = metric = float(self.phase.evaluate(self.state['params']))
        better = metric > self.best_metric
        self.phase.log({'step': step, 'dev_metric': metric, 'best': better})
        if better:
            self.best_metric, self.stale = metric, 0
            if self.recipe.keep == 'best' and step < self.steps:
                self.best.save(step, self.state['params'], step=step, metric=metric)
        else:
            self.stale += 1
        self.since = time.monotonic()

    def finish(self, step: int) -> Trained:
        """The kept weights: the best ones where an earlier step had them, else the last."""
        best = self.best.latest()
        if self.recipe.keep == 'best' and best is not None and self.stale > 0:
            params, facts = self.best.restore(self.state['params'])
            return Trained(params, facts['step'], facts['metric'])
        return Trained(self.state['params'], step, self.metric)

    def close(self) -> None:
        self.last.close()
        self.best.close()


def train(phase: Phase, params: Params) -> Trained:
    """Trains one phase from `params` (host or device tree), or goes on from its last checkpoint.

    Raises NonFiniteLoss, CheckpointError, and Stopped after a stop request (the state is saved first).
    """
    run = _Run(phase, params)
    recipe, step = phase.recipe, run.start
    try:
        with _stop_requests() as asked:
            while step < run.steps and not run.done:
                host = train_batch(phase.data, step, recipe.batch_size, phase.seed, run.lengths, phase.pad)
                run.state, metrics = run.step_fn(run.state, put_batch(host, phase.mesh), run.key)
                run.pending.append((step, metrics))
                step += 1
                at_end = run.done = step == run.steps
                if step % recipe.log_every == 0 or at_end:
                    run.flush(step)
                    if phase.progress:
                        phase.progress(step, run.steps, step * recipe.batch_size)
                if phase.evaluate and (at_end or (recipe.eval_every and step % recipe.eval_every == 0)):
                    run.flush(step)
                    run.select(step)
                    run.done |= 0 < recipe.patience <= run.stale
                stop = asked()
                if recipe.checkpoint_every and step % recipe.checkpoint_every == 0 and not run.done:
                    run.flush(step)
                    run.save_last(step, run.done)
                elif stop:
                    run.save_last(step, run.done)
                if stop:
                    raise Stopped(f'stopped at step {step} of {run.steps} of task {phase.task!r}; state saved')
        return run.finish(step)
    finally:
        run.close()
