"""One jitted training step per head kind: accumulate, clip, AdamW; state in, state out, donated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.models.model import HeadSpec, Model, Params
from xlmr_flax.parallel.mesh import BATCH_AXES, shardings
from xlmr_flax.train.losses import count, loss_sums
from xlmr_flax.train.optimizer import clip

State = dict[str, Any]  # {'params', 'opt', 'step'}: weights, AdamW's moments and counts, int32 scalar
Metrics = dict[str, jax.Array]
StepFunction = Callable[[State, Mapping[str, jax.Array], jax.Array], tuple[State, Metrics]]


def init_state(params: Params, optimizer: optax.GradientTransformation, mesh: Mesh) -> State:
    """A fresh state at step 0. params: sharded arrays (kept, not copied); the moments are sharded by the same rules."""
    rest = {'opt': jax.eval_shape(optimizer.init, params), 'step': jax.ShapeDtypeStruct((), jnp.int32)}
    make = jax.jit(
        lambda p: {'opt': optimizer.init(p), 'step': jnp.zeros((), jnp.int32)}, out_shardings=shardings(rest, mesh)
    )
    return {'params': params, **make(params)}


def _micro_batches(batch: Mapping[str, jax.Array], parts: int) -> dict[str, jax.Array]:
    """[B, ...] -> [parts, B / parts, ...]; consecutive rows stay together."""
    return {k: v.reshape(parts, v.shape[0] // parts, *v.shape[1:]) for k, v in batch.items()}


def make_train_step(
    model: Model,
    name: str,
    head: HeadSpec,
    optimizer: optax.GradientTransformation,
    spec: OptimizerSpec,
    *,
    mesh: Mesh,
    accumulation: int = 1,
) -> StepFunction:
    """(state, batch, seed key) -> (state, metrics). The dropout key of a step is fold_in(seed key, step).

    The loss is the sum over all micro-batches divided by the whole batch's count, so accumulation changes memory and
    nothing else. metrics: loss, accuracy (correct / count), grad_norm (before clipping), all float32 scalars.
    """

    def loss(
        params: Params, part: Mapping[str, jax.Array], key: jax.Array, total: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = model.logits(params, name, head, part['ids'], part['segments'], key)
        value, _, right = loss_sums(head.kind, logits, part)
        return value / total, right / total

    def gradients(
        params: Params, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[Params, jax.Array, jax.Array]:
        total = jnp.maximum(count(head.kind, batch), 1.0)
        grad = jax.value_and_grad(loss, has_aux=True)
        if accumulation == 1:
            (value, right), grads = grad(params, batch, jax.random.fold_in(key, 0), total)
            return grads, value, right
        parts = _micro_batches(batch, accumulation)
        sharded = NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))
        parts = {k: jax.lax.with_sharding_constraint(v, sharded) for k, v in parts.items()}

        def one(carry: Any, item: Any) -> tuple[Any, None]:
            grads, value, right = carry
            index, part = item
            (v, r), g = grad(params, part, jax.random.fold_in(key, index), total)
            grads = jax.tree.map(jnp.add, grads, g)
            if spec.clip_per == 'micro_batch':
                grads, _ = clip(grads, spec.clip_norm)
            return (grads, value + v, right + r), None

        zero = (jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros(()))
        (grads, value, right), _ = jax.lax.scan(one, zero, (jnp.arange(accumulation), parts))
        return grads, value, right

    def step(state: State, batch: Mapping[str, jax.Array], seed_key: jax.Array) -> tuple[State, Metrics]:
        params = state['params']
        grads, value, right = gradients(params, batch, jax.random.fold_in(seed_key, state['step']))
        grads, norm = clip(grads, spec.clip_norm)
        updates, opt = optimizer.update(grads, state['opt'], params)
        params = optax.apply_updates(params, updates)
        state = {'params': params, 'opt': opt, 'step': state['step'] + 1}
        state = jax.lax.with_sharding_constraint(state, shardings(state, mesh))
        return state, {'loss': value, 'accuracy': right, 'grad_norm': norm}

    return jax.jit(step, donate_argnums=0)
