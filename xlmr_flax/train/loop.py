"""The training loop: batches by step number, one jitted step, logs, dev selection, checkpoints, clean stops."""

from __future__ import annotations

import math
import time
from typing import Any

import jax
import numpy as np

from xlmr_flax.kinds.base import Batch
from xlmr_flax.models.model import Params
from xlmr_flax.parallel.distributed import process_count
from xlmr_flax.parallel.mesh import own_rows, put_batch, put_tree
from xlmr_flax.train.checkpoint import CheckpointError
from xlmr_flax.train.compilations import compilations
from xlmr_flax.train.diagnostics.instrumentation import Instrumentation, placing
from xlmr_flax.train.diagnostics.profile import DATA, EVALUATE, SAVE
from xlmr_flax.train.head_padding import program_heads
from xlmr_flax.train.mixed import make_mixed_step
from xlmr_flax.train.optimizer import Optimizer, schedule
from xlmr_flax.train.phase import NonFiniteLoss, Phase, Trained
from xlmr_flax.train.step import State, init_state, make_train_step
from xlmr_flax.train.streams import BatchPlan
from xlmr_flax.train.training_checkpoints import TrainingCheckpoints
from xlmr_flax.train.vote import StopVote
from xlmr_flax.util.stopping import Stopped, asked, deferred, requests


class _Loop:
    """The state of one `train` call: parameters and moments, metrics not yet logged, dev selection, checkpoints.

    pending: (step, metrics) of the steps that are not logged yet. since: time of the last log. stale: evaluations since
    the best one. unevaluated: a stop request interrupted the evaluation at the current step. watch: profiler and
    diagnostics around steps and batches.
    """

    def __init__(self, phase: Phase, params: Params):
        recipe = phase.recipe
        self.phase, self.recipe, self.steps = phase, recipe, phase.steps
        self.rate = schedule(recipe.optimizer, self.steps)
        self.optimizer = Optimizer(recipe.optimizer, self.steps)
        self.heads = program_heads(phase.data.heads)
        params = {**params, 'heads': {name: head.pad(params['heads'][name]) for name, head in self.heads.items()}}
        self.state: State = init_state(put_tree(params, phase.mesh), self.optimizer, phase.mesh)
        if phase.data.mix == 'micro_batch':
            self.step_function = make_mixed_step(phase.model, self.heads, self.optimizer, mesh=phase.mesh)
        else:
            self.step_function = make_train_step(
                phase.model, self.heads, self.optimizer, mesh=phase.mesh, accumulation=recipe.accumulation
            )
        self.compiled_before = compilations.count
        self.watch = Instrumentation(phase, self.heads)
        self.key = jax.random.key(phase.seed)
        self.pending: list[tuple[int, dict[str, Any]]] = []
        self.metric, self.best_metric, self.best_step, self.stale = math.nan, -math.inf, 0, 0
        self.start, self.done, self.unevaluated = 0, False, False
        self.since = time.monotonic()
        self.saved = TrainingCheckpoints(
            phase.directory, phase.run_hash, phase.decides, recipe.keep_checkpoints, phase.say
        )
        if facts := self.saved.start():
            self.start, self.done = facts['step'], facts['done']
            self.metric, self.best_metric, self.stale = facts['metric'], facts['best_metric'], facts['stale']
            self.best_step = facts['best_step']
            self.unevaluated = facts.get('unevaluated', False)
            self.pending = [(s, {k: np.float32(v) for k, v in m.items()}) for s, m in facts['pending']]
            self.state = self.saved.restore(self.start, self.state)
        if phase.on_start:
            phase.on_start(self.start, not self.unevaluated)

    def batches(self, step: int) -> tuple[list[tuple[str, Batch]], np.floating[Any]]:
        """The batches of an optimizer step as (head name, arrays on the mesh), and the packing efficiency float32: the
        share of their tokens that are not padding."""
        draws = self.phase.data.draws(step, self.recipe.accumulation)
        plans = [stream.plan(draw, self.recipe.batch_size // len(draws)) for stream, draw in draws]
        efficiency = np.float32(np.mean([plan.efficiency for plan in plans]))
        return [(plan.stream.head_name, self._batch(plan)) for plan in plans], efficiency

    def _batch(self, plan: BatchPlan) -> dict[str, jax.Array]:
        """A batch on the mesh; this process makes the rows of its own devices."""
        rows = own_rows(plan.rows, self.phase.mesh)
        with self.watch.annotation(DATA):
            batch = put_batch(plan.batch(self.phase.pad, rows), self.phase.mesh, plan.rows)
        return self.watch.batch(plan, batch)

    def cut(self, params: Params) -> Params:
        """Parameters with heads of their own sizes."""
        return {**params, 'heads': {name: self.heads[name].cut(head) for name, head in params['heads'].items()}}

    def save_last(self, step: int) -> None:
        """Starts to save the state and the metrics that are not logged yet. So a resumed run logs what an
        uninterrupted run logs.
        """
        self.check()
        pending = [(s, {k: float(v) for k, v in m.items()}) for s, m in self.pending]
        facts: dict[str, Any] = {'metric': self.metric, 'best_metric': self.best_metric, 'best_step': self.best_step}
        if self.unevaluated:
            facts['unevaluated'] = True
        with self.watch.annotation(SAVE):
            self.phase.write_log()  # a run that goes on from the state does not log these steps again
            self.saved.save_last(step, self.state, done=self.done, stale=self.stale, pending=pending, **facts)

    def check(self) -> None:
        """Reads the pending metrics and stops on a non-finite loss."""
        self.pending = [(s, jax.device_get(m)) for s, m in self.pending]
        for s, m in self.pending:
            if not (np.isfinite(m['loss']) and np.isfinite(m['grad_norm'])):
                draws = self.phase.data.draws(s, self.recipe.accumulation)
                size = self.recipe.batch_size // (len(draws) if self.phase.data.mix == 'micro_batch' else 1)
                tasks = dict.fromkeys(stream.name for stream, _ in draws)
                ids = [i for stream, draw in draws for i in stream.example_ids(draw, size)]
                states = self.saved.last.steps()
                left = f'The checkpoint of step {states[-1]} is intact' if states else 'No checkpoint had been saved'
                raise NonFiniteLoss(
                    f'loss {m["loss"]}, gradient norm {m["grad_norm"]} at step {s} of task {", ".join(tasks)!r}; '
                    f'examples: {", ".join(ids[:8])}{", ..." if len(ids) > 8 else ""}. '
                    f'{left}; try a lower learning rate or a longer warm-up'
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
        """For a mixture: draws of each stream so far and, if a step has one stream, the mean loss of each."""
        data, micro_batches = self.phase.data, self.recipe.accumulation
        if len(data.streams) == 1:
            return {}
        record: dict[str, float] = {f'draws/{k}': v for k, v in data.counts(step, micro_batches).items()}
        if data.mix == 'step':
            losses: dict[str, list[float]] = {}
            for s, m in records:
                losses.setdefault(data.draws(s, micro_batches)[0][0].name, []).append(float(m['loss']))
            record |= {f'loss/{k}': float(np.mean(v)) for k, v in losses.items()}
        return record

    def select(self, step: int) -> None:
        """Evaluates on dev rows, keeps the best weights and applies early stopping. A stop request interrupts the
        evaluation (except in a job of several processes); the resumed training repeats it.
        """
        assert self.phase.evaluate is not None
        self.unevaluated = True
        try:
            with self.watch.annotation(EVALUATE), deferred(process_count() > 1):
                scores = dict(self.phase.evaluate(self.cut(self.state['params'])))
        except Stopped:
            return
        self.unevaluated = False
        self.metric = metric = float(scores['dev_metric'])
        better = metric > self.best_metric
        self.phase.log({'step': step, **scores, 'best': better})
        if better:
            self.best_metric, self.stale = metric, 0
            if self.recipe.keep == 'best' and step < self.steps:
                self.saved.save_best(step, self.state['params'], metric)
                self.best_step = step
        else:
            self.stale += 1
        self.done |= 0 < self.recipe.patience <= self.stale
        self.since = time.monotonic()

    def finish(self, step: int) -> Trained:
        """The kept weights: the best ones where an earlier step had them, else the last."""
        if self.keeps_earlier:
            step = self.best_step
            params, metric = self.saved.restore_best(step, self.state['params'])
        else:
            params, metric = self.state['params'], self.metric
        programs = compilations.count - self.compiled_before
        return Trained(self.cut(params), step, metric, self.keeps_earlier, programs)

    def stop(self, step: int) -> None:
        """Ends the training after a stop request: raises Stopped when the state of the step is on disk, and
        CheckpointError if it cannot be saved.
        """
        where = f'stopped at step {step} of {self.steps} of task {self.phase.task!r}'
        try:
            if step > self.start:  # else the checkpoint that it started from is on disk
                self.save_last(step)
            self.saved.wait()
        except CheckpointError as e:
            raise CheckpointError(f'{where}, but the state is not saved: {e}') from None
        raise Stopped(f'{where}; state saved')

    @property
    def keeps_earlier(self) -> bool:
        """Whether the weights of an earlier step are the best ones."""
        return self.recipe.keep == 'best' and self.best_step > 0 and self.stale > 0

    def end(self) -> None:
        """Waits for the last save. As the training is finished, a failed save is only reported, unless it was that of
        the weights to keep; then CheckpointError is raised. The log is written first, so that no later start repeats a
        finished training.
        """
        self.phase.write_log()
        try:
            self.saved.wait()
        except CheckpointError as e:
            if self.keeps_earlier and self.best_step not in self.saved.best.steps():
                raise
            self.phase.say(f'{e}; the training is finished without it')


def train(phase: Phase, params: Params) -> Trained:
    """Trains one phase from `params` (host or device tree), or resumes from its last checkpoint. Raises NonFiniteLoss,
    CheckpointError, and Stopped after SIGTERM or SIGINT, when the state has been saved.
    """
    with placing(phase, params):
        loop = _Loop(phase, params)
    recipe, step = phase.recipe, loop.start
    try:
        with loop.watch, requests(), deferred():
            loop.watch.begin(step)
            if loop.unevaluated:
                loop.select(step)
                if loop.unevaluated:
                    loop.stop(step)
            vote = StopVote(phase.mesh, asked)
            while step < loop.steps and not loop.done:
                with loop.watch.step(step, lambda: loop.state):
                    batches, efficiency = loop.batches(step)
                    loop.state, metrics = loop.step_function(loop.state, batches, loop.key)
                loop.pending.append((step, metrics | {'packing_efficiency': efficiency}))
                loop.saved.check()
                step += 1
                at_end = loop.done = step == loop.steps
                if step % recipe.log_every == 0 or at_end:
                    loop.flush(step)
                    if phase.progress:
                        phase.progress(step, loop.steps, step * recipe.batch_size)
                if phase.evaluate and (at_end or (recipe.eval_every and step % recipe.eval_every == 0)):
                    loop.flush(step)
                    loop.select(step)
                stop = vote(metrics['loss'], loop.done)
                if saves := recipe.checkpoint_every and step % recipe.checkpoint_every == 0 and not loop.done:
                    loop.flush(step)
                if stop:
                    loop.stop(step)
                if saves:
                    loop.save_last(step)
            loop.end()
            return loop.finish(step)
    finally:
        loop.saved.close()
