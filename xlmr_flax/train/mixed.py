"""An optimizer step whose micro-batches come from different tasks: gradients by head kind, then one update.

The loss is the mean over the micro-batches of each one's own mean, so that every micro-batch counts alike (as in
jiant, where the loss is divided by the number of accumulated batches). Only the heads that were drawn move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.placement import placed
from xlmr_flax.train.optimizer import AdamW, global_norm
from xlmr_flax.train.step import Batch, Metrics, State, head_loss, join, note_trace, split, updated


@dataclass(frozen=True)
class Part:
    """One micro-batch: the head's name, its shape in the state, and its own number of outputs where the state's heads
    of this kind were padded to one (0 where not)."""

    name: str
    head: HeadSpec
    outputs: int
    batch: Batch


@lru_cache(maxsize=64)
def gradient_program(model: Model, head: HeadSpec) -> Any:
    """Jitted (params, batch, dropout key, outputs) -> (gradients, loss, accuracy) of one micro-batch's mean loss."""
    grad = jax.value_and_grad(head_loss(model, head), has_aux=True)

    def gradients(
        params: Params, batch: Batch, key: jax.Array, outputs: jax.Array | None
    ) -> tuple[Params, jax.Array, jax.Array]:
        note_trace()
        (value, right), grads = grad(params, batch, key, jnp.maximum(kind_of(head).count(batch), 1.0), outputs)
        return grads, value, right

    return jax.jit(gradients)


@lru_cache(maxsize=16)
def _update_program(optimizer: AdamW, mesh: Mesh) -> Any:
    """Jitted (part of a state, its gradients, factor, step) -> part; one program for the shared part and one a kind."""

    def update(part: State, grads: Params, factor: jax.Array, now: jax.Array) -> State:
        return updated(part, jax.tree.map(lambda g: g * factor, grads), optimizer, now, mesh)

    return jax.jit(update, donate_argnums=0)


_add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b), donate_argnums=0)
_norm = jax.jit(global_norm)


def mixed_step(
    model: Model, optimizer: AdamW, mesh: Mesh, state: State, parts: Sequence[Part], seed_key: jax.Array
) -> tuple[State, Metrics]:
    """(state, metrics) after one optimizer step over all parts. metrics: means over the parts; the state is donated."""
    key = jax.random.fold_in(seed_key, state['step'])
    total: Params | None = None
    own: dict[str, Any] = {}
    values = []
    for index, part in enumerate(parts):
        shared, head = split(state, part.name)
        real = jnp.int32(part.outputs) if part.outputs else None
        params = {**shared['params'], **head['params']}
        grads, loss, right = gradient_program(placed(model, mesh), part.head)(
            params, part.batch, jax.random.fold_in(key, index), real
        )
        mine = {'heads': grads.pop('heads')}
        total = grads if total is None else _add(total, grads)
        own[part.name] = _add(own[part.name], mine) if part.name in own else mine
        values.append((loss, right))
    norm = jnp.sqrt(sum(_norm(tree) ** 2 for tree in (total, *own.values()))) / len(parts)
    limit, factor = optimizer.spec.clip_norm, 1.0 / len(parts)
    if limit > 0:
        factor = factor * jnp.minimum(1.0, limit / (norm + 1e-6))
    update, now = _update_program(optimizer, mesh), state['step']
    heads = {name: update(split(state, name)[1], own[name], factor, now) for name in own}
    shared = split(state, parts[0].name)[0]
    shared = {**update({k: shared[k] for k in ('params', 'opt')}, total, factor, now), 'step': now + 1}
    for name, head in heads.items():
        state = join(state, name, shared, head)
    loss, right = (jnp.stack(v).mean() for v in zip(*values, strict=True))
    return state, {'loss': loss, 'accuracy': right, 'grad_norm': norm}
