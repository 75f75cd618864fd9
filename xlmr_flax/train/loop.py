"""The training loop: batches by step number, one jitted step, logs, dev selection, checkpoints, clean stops."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from xlmr_flax.config import Recipe
from xlmr_flax.models.model import HeadSpec, Model, Params
from xlmr_flax.parallel.distributed import gather, is_leader
from xlmr_flax.parallel.mesh import own_rows, put_batch, put_tree
from xlmr_flax.train.checkpoint import CheckpointError, Checkpoints
from xlmr_flax.train.mixed import Part, mixed_step
from xlmr_flax.train.optimizer import AdamW, schedule
from xlmr_flax.train.step import (
    Metrics,
    State,
    common_outputs,
    cut_head,
    init_state,
    make_train_step,
    pad_head,
    programs_traced,
)
from xlmr_flax.train.stopping import StopVote, stop_requests
from xlmr_flax.train.streams import Blend, Stream


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite; the message names step, task and example ids."""


class Stopped(RuntimeError):
    """The run was asked to stop (SIGTERM, SIGINT) and saved its state first."""


class Progress(Protocol):
    """Told after every step; draws a line when it likes."""

    def __call__(self, done: int, total: int, examples: int, **values: float) -> None: ...


@dataclass(frozen=True)
class Phase:
    """What is trained: an encoder with the heads of a blend of datasets.

    task: for messages. steps: of the optimizer. evaluate: params -> dev metrics by name (higher is better), of which
    'dev_metric' decides what is kept; or None. log: takes one record per log_every steps and per evaluation.
    directory: of its checkpoints. run_hash: refuses others' checkpoints. restarted: told the step that training starts
    from, 0 or a checkpoint's.
    """

    task: str
    model: Model
    recipe: Recipe
    blend: Blend
    steps: int
    seed: int
    pad: int
    mesh: Mesh
    directory: Path
    run_hash: str
    evaluate: Callable[[Params], Mapping[str, float]] | None
    log: Callable[[dict[str, Any]], None]
    progress: Progress | None = None
    restarted: Callable[[int], None] | None = None

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


class _Run:
    """The moving parts of one `train` call."""

    def __init__(self, phase: Phase, params: Params):
        recipe = phase.recipe
        self.phase, self.recipe, self.steps = phase, recipe, phase.steps
        self.rate = schedule(recipe.optimizer, self.steps)
        self.optimizer = AdamW(recipe.optimizer, self.steps)
        self.outputs = common_outputs(phase.blend.heads.values())
        heads = phase.blend.heads
        wide = {name: pad_head(params['heads'][name], self.padded(head)) for name, head in heads.items()}
        params = {**params, 'heads': wide}
        self.state: State = init_state(put_tree(params, phase.mesh), self.optimizer, phase.mesh)
        self.traced = programs_traced()
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
        if len(steps := set(gather('step to start from', self.start))) > 1:
            raise CheckpointError(f'{phase.directory}: processes found checkpoints of different steps: {sorted(steps)}')
        self.best.forget(self.start + 1)
        if phase.restarted:
            phase.restarted(self.start)

    def wide(self, head: HeadSpec) -> HeadSpec:
        """A head's shape in the state."""
        return HeadSpec(head.kind, self.outputs[head.kind])

    def padded(self, head: HeadSpec) -> int:
        """The outputs that heads of a kind are padded to, 0 where they all have the same."""
        several = {other.outputs for other in self.phase.blend.heads.values() if other.kind == head.kind}
        return self.outputs[head.kind] if len(several) > 1 else 0

    def advance(self, step: int) -> Metrics:
        """One optimizer step: the state moves on; returns its metrics on the device."""
        phase, recipe = self.phase, self.recipe
        draws = phase.blend.draws(step, recipe.accumulation)
        if phase.blend.mix == 'micro_batch':
            parts = [self._part(stream, draw) for stream, draw in draws]
            self.state, metrics = mixed_step(phase.model, self.optimizer, phase.mesh, self.state, parts, self.key)
            return metrics
        ((stream, draw),) = draws
        step_fn = make_train_step(
            phase.model,
            stream.head_name,
            stream.head,
            self.optimizer,
            mesh=phase.mesh,
            accumulation=recipe.accumulation,
            outputs=self.padded(stream.head),
        )
        self.state, metrics = step_fn(self.state, self._batch(stream, draw, recipe.batch_size), self.key)
        return metrics

    def _batch(self, stream: Stream, draw: int, size: int) -> dict[str, jax.Array]:
        """A draw on the mesh; this process makes the rows of its own devices."""
        rows = own_rows(size, self.phase.mesh)
        return put_batch(stream.batch(draw, size, self.phase.pad, rows), self.phase.mesh, size)

    def _part(self, stream: Stream, draw: int) -> Part:
        batch = self._batch(stream, draw, self.recipe.batch_size // self.recipe.accumulation)
        own = stream.head.outputs if self.padded(stream.head) else 0
        return Part(stream.head_name, self.wide(stream.head), own, batch)

    def cut(self, params: Params) -> Params:
        """Parameters with heads of their own sizes."""
        heads = self.phase.blend.heads
        own = {k: cut_head(v, heads[k].outputs) if self.padded(heads[k]) else v for k, v in params['heads'].items()}
        return {**params, 'heads': own}

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
                draws = self.phase.blend.draws(s, self.recipe.accumulation)
                size = self.recipe.batch_size // (len(draws) if self.phase.blend.mix == 'micro_batch' else 1)
                tasks = dict.fromkeys(stream.name for stream, _ in draws)
                ids = [i for stream, draw in draws for i in stream.example_ids(draw, size)]
                raise NonFiniteLoss(
                    f'loss {m["loss"]}, gradient norm {m["grad_norm"]} at step {s} of task {", ".join(tasks)!r}; '
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
            self.phase.log(
                {'step': step, **mean, **self.by_stream(step, records), 'learning_rate': rate, 'examples_per_s': speed}
            )

    def by_stream(self, step: int, records: list[tuple[int, dict[str, Any]]]) -> dict[str, float]:
        """Of a mixture: draws of each stream so far, and where a step has one stream the mean loss of each."""
        blend, parts = self.phase.blend, self.recipe.accumulation
        if len(blend.streams) == 1:
            return {}
        found: dict[str, float] = {f'draws/{k}': v for k, v in blend.counts(step, parts).items()}
        if blend.mix == 'step':
            losses: dict[str, list[float]] = {}
            for s, m in records:
                losses.setdefault(blend.draws(s, parts)[0][0].name, []).append(float(m['loss']))
            found |= {f'loss/{k}': float(np.mean(v)) for k, v in losses.items()}
        return found

    def select(self, step: int) -> None:
        """Evaluates on dev, keeps the best weights, counts evaluations without improvement."""
        assert self.phase.evaluate is not None
        found = dict(self.phase.evaluate(self.cut(self.state['params'])))
        self.metric = metric = float(found['dev_metric'])
        better = metric > self.best_metric
        self.phase.log({'step': step, **found, 'best': better})
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
            step, metric = facts['step'], facts['metric']
        else:
            params, metric = self.state['params'], self.metric
        return Trained(self.cut(params), step, metric, programs_traced() - self.traced)

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
        with stop_requests() as asked:
            vote = StopVote(phase.mesh, asked)
            while step < run.steps and not run.done:
                metrics = run.advance(step)
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
                stop = vote(metrics['loss'], run.done)
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
