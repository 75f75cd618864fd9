"""An optimizer step whose micro-batches come from different tasks: gradients by head kind, then one update.

The loss is the mean over the micro-batches of each one's own mean, so that every micro-batch has the same weight (as in
jiant, where the loss is divided by the number of accumulated batches). Only the heads of these tasks are updated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.kinds.base import Batch
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.placement import placed
from xlmr_flax.train.compilations import compilations
from xlmr_flax.train.head_padding import ProgramHead
from xlmr_flax.train.optimizer import Optimizer, clip_factor, global_norm
from xlmr_flax.train.step import Metrics, State, StepFunction, head_loss, join_state, split_state, updated


@lru_cache(maxsize=64)
def gradient_program(model: Model, head: HeadSpec) -> Any:
    """The jitted gradient program: (params, batch, dropout key, outputs) -> (gradients, loss, accuracy).

    The loss is the mean over one micro-batch. Cached, so that all runs of a process share it.
    """
    grad = jax.value_and_grad(head_loss(model, head), has_aux=True)

    def gradients(
        params: Params, batch: Batch, key: jax.Array, outputs: jax.Array | None
    ) -> tuple[Params, jax.Array, jax.Array]:
        (loss, accuracy), grads = grad(params, batch, key, jnp.maximum(kind_of(head).count(batch), 1.0), outputs)
        return grads, loss, accuracy

    return jax.jit(gradients)


@lru_cache(maxsize=16)
def _update_program(optimizer: Optimizer, mesh: Mesh) -> Any:
    """The jitted update program: (substate, its gradients, factor, step) -> updated substate.

    It compiles once for the shared part and once per kind of head. Cached, as `gradient_program` is.
    """

    def update(substate: State, grads: Params, factor: jax.Array, now: jax.Array) -> State:
        return updated(substate, jax.tree.map(lambda g: g * factor, grads), optimizer, now, mesh)

    return jax.jit(update, donate_argnums=0)


_add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b), donate_argnums=0)
_norm = jax.jit(global_norm)


def make_mixed_step(
    model: Model, heads: Mapping[str, ProgramHead], optimizer: Optimizer, *, mesh: Mesh
) -> StepFunction:
    """Makes the mixed step: (state, [(head name, micro-batch), ...], seed key) -> (state, metrics).

    It is one optimizer step over all micro-batches. metrics: means over the micro-batches, with the names of
    `step.make_train_step`. The state's arrays are donated.
    """
    on_mesh, update = placed(model, mesh), _update_program(optimizer, mesh)
    programs = {name: gradient_program(on_mesh, head.spec) for name, head in heads.items()}
    real = {name: head.real_outputs for name, head in heads.items()}
    limit = optimizer.spec.clip_norm

    def step(state: State, micro_batches: Sequence[tuple[str, Batch]], seed_key: jax.Array) -> tuple[State, Metrics]:
        key, now = jax.random.fold_in(seed_key, state['step']), state['step']
        total: Params | None = None
        own: dict[str, Any] = {}
        values = []
        for index, (name, batch) in enumerate(micro_batches):
            shared, head = split_state(state, name)
            params = {**shared['params'], **head['params']}
            dropout_key = jax.random.fold_in(key, index)
            with compilations.counted():
                grads, loss, accuracy = programs[name](params, batch, dropout_key, real[name])
            head_grads = {'heads': grads.pop('heads')}
            total = grads if total is None else _add(total, grads)
            own[name] = _add(own[name], head_grads) if name in own else head_grads
            values.append((loss, accuracy))
        norm = jnp.sqrt(sum(_norm(tree) ** 2 for tree in (total, *own.values()))) / len(micro_batches)
        factor = 1.0 / len(micro_batches) * (clip_factor(norm, limit) if limit > 0 else 1.0)
        updated_heads = {name: update(split_state(state, name)[1], own[name], factor, now) for name in own}
        shared = split_state(state, micro_batches[0][0])[0]
        shared = {**update({k: shared[k] for k in ('params', 'opt')}, total, factor, now), 'step': now + 1}
        for name, head in updated_heads.items():
            state = join_state(state, name, shared, head)
        loss, accuracy = (jnp.stack(v).mean() for v in zip(*values, strict=True))
        return state, {'loss': loss, 'accuracy': accuracy, 'grad_norm': norm}

    return step
