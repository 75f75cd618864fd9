"""The training step: one jitted program for each kind of head and batch shape; the state's arrays are donated.

state = {'params': {'encoder', 'pooler', 'heads': {name: ...}}, 'opt': {'shared': ..., 'heads': {name: ...}}, 'step'}.
A step takes the shared part and one head. So the other heads do not change, neither by momentum nor by decay, and heads
of one kind share a program (train/head_padding.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_flax.encoders.dropout import Key, PartKey
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.kinds.base import HEAD, Batch
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import BATCH_AXES, shardings
from xlmr_flax.parallel.placement import placed
from xlmr_flax.train.compilations import compilations
from xlmr_flax.train.head_padding import ProgramHead
from xlmr_flax.train.optimizer import Optimizer, clip

State = dict[str, Any]
Metrics = dict[str, jax.Array]
StepFunction = Callable[[State, Sequence[tuple[str, Batch]], jax.Array], tuple[State, Metrics]]
_MASKED = -1e30  # the logit of an output that only pads a head


def init_state(params: Params, optimizer: Optimizer, mesh: Mesh) -> State:
    """A fresh state at step 0. params: sharded arrays (kept, not copied); the moments are sharded by the same rules."""
    leaves, tree = jax.tree.flatten(params)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    return {'params': params, **_opt_state_program(optimizer, mesh, shapes, tree)(params)}


def state_shapes(params: Params, optimizer: Optimizer) -> State:
    """ShapeDtypeStructs of `init_state`, without allocating. params: arrays or ShapeDtypeStructs."""
    return {'params': params, **jax.eval_shape(_opt_state_maker(optimizer), params)}


@lru_cache(maxsize=64)
def _opt_state_program(
    optimizer: Optimizer, mesh: Mesh, leaves: tuple[jax.ShapeDtypeStruct, ...], tree: Any
) -> Callable[[Params], dict[str, Any]]:
    """The jitted function of `_opt_state_maker`. Cached, so that all runs of a process with the same shapes share it.
    leaves, tree: of the parameters."""
    make = _opt_state_maker(optimizer)
    return jax.jit(make, out_shardings=shardings(jax.eval_shape(make, jax.tree.unflatten(tree, leaves)), mesh))


def _opt_state_maker(optimizer: Optimizer) -> Callable[[Params], dict[str, Any]]:
    """The function params -> the rest of a state at step 0: {'opt', 'step'}."""

    def make(params: Params) -> dict[str, Any]:
        heads = {name: optimizer.init({'heads': {HEAD: head}}) for name, head in params['heads'].items()}
        shared = optimizer.init({k: v for k, v in params.items() if k != 'heads'})
        return {'opt': {'shared': shared, 'heads': heads}, 'step': jnp.zeros((), jnp.int32)}

    return make


def make_train_step(
    model: Model, heads: Mapping[str, ProgramHead], optimizer: Optimizer, *, mesh: Mesh, accumulation: int = 1
) -> StepFunction:
    """Makes the train step: (state, [(head name, batch)], seed key) -> (state, metrics).

    It is one optimizer step on one batch. The dropout key is fold_in(seed key, step). If gradients are clipped once per
    step, micro-batches have the dropout masks of the step as one batch (`PartKey` of encoders/dropout.py). If they are
    clipped after each micro-batch, each has a key of its own.

    The loss is the sum over all micro-batches divided by the whole batch's count. So if gradients are clipped once per
    step, accumulation changes memory and nothing else, up to rounding. metrics: loss, accuracy (correct / count),
    grad_norm, all float32 scalars. grad_norm is the norm before clipping; if gradients are clipped after each
    micro-batch, it is the norm of their running sum after the last clipping. The state's arrays are donated.
    """
    programs = {name: step_program(model, head.spec, optimizer, mesh, accumulation) for name, head in heads.items()}
    real = {name: head.real_outputs for name, head in heads.items()}

    def step(state: State, batches: Sequence[tuple[str, Batch]], seed_key: jax.Array) -> tuple[State, Metrics]:
        ((name, batch),) = batches
        shared, head_state = split_state(state, name)
        with compilations.counted():
            shared, head_state, metrics = programs[name](shared, head_state, batch, seed_key, real[name])
        return join_state(state, name, shared, head_state), metrics

    return step


def split_state(state: State, name: str) -> tuple[State, State]:
    """Splits a state into two substates: (the shared part, one head's part)."""
    shared = {k: v for k, v in state['params'].items() if k != 'heads'}
    head = {'params': {'heads': {HEAD: state['params']['heads'][name]}}, 'opt': state['opt']['heads'][name]}
    return {'params': shared, 'opt': state['opt']['shared'], 'step': state['step']}, head


def join_state(state: State, name: str, shared: State, head: State) -> State:
    """The state with both parts put back; the other heads' arrays are the same ones."""
    heads = {**state['params']['heads'], name: head['params']['heads'][HEAD]}
    opt = {'shared': shared['opt'], 'heads': {**state['opt']['heads'], name: head['opt']}}
    return {'params': {**shared['params'], 'heads': heads}, 'opt': opt, 'step': shared['step']}


def head_loss(model: Model, head: HeadSpec) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The loss of a head as a function: (params, micro-batch, dropout key, total, outputs) -> (loss, accuracy).

    Both are sums over the micro-batch, divided by `total`, the count (`Kind.count`) of the whole batch. outputs: the
    real number of outputs of a padded head (`ProgramHead.real_outputs`)."""
    kind = kind_of(head)

    def loss(
        params: Params, micro_batch: Batch, key: Key, total: jax.Array, outputs: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        ids, segments = micro_batch['ids'], micro_batch['segments']
        positions, starts = micro_batch.get('positions'), micro_batch.get('starts')
        logits = model.logits(params, HEAD, head, ids, segments, key, positions, starts)
        if outputs is not None:
            logits = jnp.where(jnp.arange(head.outputs) < outputs, logits, _MASKED)
        loss_sum, _, correct = kind.loss_sums(logits, micro_batch)
        return loss_sum / total, correct / total

    return loss


@lru_cache(maxsize=64)
def step_program(model: Model, head: HeadSpec, optimizer: Optimizer, mesh: Mesh, accumulation: int) -> Any:
    """The jitted program of a train step: (shared state, head state, batch, seed key, outputs) -> (shared state, head
    state, metrics). outputs: as in `head_loss`.

    It is cached, so that later runs of a plan with the same arguments compile nothing. It compiles once for each batch
    shape.
    """
    grad = jax.value_and_grad(head_loss(placed(model, mesh), head), has_aux=True)
    spec = optimizer.spec

    def accumulated(
        params: Params, batch: Batch, key: jax.Array, total: jax.Array, outputs: jax.Array | None
    ) -> tuple[tuple[jax.Array, jax.Array], Params]:
        """((loss, accuracy), gradients) summed over the micro-batches of a batch."""
        sharded = NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))
        cut = {k: v.reshape(accumulation, v.shape[0] // accumulation, *v.shape[1:]) for k, v in batch.items()}
        micro_batches = {k: jax.lax.with_sharding_constraint(v, sharded) for k, v in cut.items()}
        whole = jax.random.fold_in(key, 0)

        def one(carry: Any, item: Any) -> tuple[Any, None]:
            grads, loss, accuracy = carry
            index, micro_batch = item
            own_key = jax.random.fold_in(key, index) if spec.clip_per == 'micro_batch' else PartKey(whole, index)
            (l, a), g = grad(params, micro_batch, own_key, total, outputs)
            grads = jax.tree.map(jnp.add, grads, g)
            if spec.clip_per == 'micro_batch':
                grads, _ = clip(grads, spec.clip_norm)
            return (grads, loss + l, accuracy + a), None

        zero = (jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros(()))
        (grads, loss, accuracy), _ = jax.lax.scan(one, zero, (jnp.arange(accumulation), micro_batches))
        return (loss, accuracy), grads

    def step(
        shared: State, head_state: State, batch: Batch, seed_key: jax.Array, outputs: jax.Array | None
    ) -> tuple[State, State, Metrics]:
        now = shared['step']
        params, key = {**shared['params'], **head_state['params']}, jax.random.fold_in(seed_key, now)
        total = jnp.maximum(kind_of(head).count(batch), 1.0)
        if accumulation == 1:
            (loss, accuracy), grads = grad(params, batch, jax.random.fold_in(key, 0), total, outputs)
        else:
            (loss, accuracy), grads = accumulated(params, batch, key, total, outputs)
        grads, norm = clip(grads, spec.clip_norm)
        shared, head_state = (updated(substate, grads, optimizer, now, mesh) for substate in (shared, head_state))
        return {**shared, 'step': now + 1}, head_state, {'loss': loss, 'accuracy': accuracy, 'grad_norm': norm}

    return jax.jit(step, donate_argnums=(0, 1))


def updated(substate: State, grads: Params, optimizer: Optimizer, now: jax.Array, mesh: Mesh) -> State:
    """One optimizer update of a substate of `split_state`, with the shardings of the rules."""
    own = {k: grads[k] for k in substate['params']}
    updates, opt = optimizer.update(own, substate['opt'], substate['params'], now)
    new = {'params': optax.apply_updates(substate['params'], updates), 'opt': opt}
    return jax.lax.with_sharding_constraint(new, shardings(new, mesh))
