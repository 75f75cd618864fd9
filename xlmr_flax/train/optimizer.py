"""AdamW as the reference trains with it: decay mask, warm-up and linear decay, clipping by global norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.parallel.mesh import path_name


def schedule(spec: OptimizerSpec, steps: int) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """Learning rate at a step (0-based): linear warm-up from 0, then linear decay to 0 at `steps`, as transformers'
    get_linear_schedule_with_warmup; or constant after the warm-up."""
    warmup = spec.warmup_steps if spec.warmup_steps >= 0 else round(spec.warmup * steps)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        up = step / max(1, warmup)
        down = (steps - step) / max(1, steps - warmup) if spec.schedule == 'linear' else jnp.float32(1)
        return spec.learning_rate * jnp.where(step < warmup, up, jnp.maximum(down, 0.0))

    return rate


def decays(params: Any) -> Any:
    """True for every leaf that weight decay touches: all but biases and layer norms."""

    def one(path: Any, _: Any) -> bool:
        name = path_name(path)
        return not name.endswith(('bias', '/scale'))

    return jax.tree_util.tree_map_with_path(one, params)


def make_optimizer(spec: OptimizerSpec, steps: int) -> optax.GradientTransformation:
    """The update without clipping (train/step.py clips, since the authors clip per micro-batch)."""
    return optax.adamw(
        schedule(spec, steps),
        b1=spec.beta1,
        b2=spec.beta2,
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        mask=decays,
    )


def global_norm(tree: Any) -> jax.Array:
    """sqrt of the sum of squares over every leaf, float32."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))


def clip(tree: Any, limit: float) -> tuple[Any, jax.Array]:
    """(scaled tree, norm before): as torch's clip_grad_norm_, 1e-6 in the denominator included. limit 0 = no
    clipping.
    """
    norm = global_norm(tree)
    if limit <= 0:
        return tree, norm
    factor = jnp.minimum(1.0, limit / (norm + 1e-6))
    return jax.tree.map(lambda leaf: leaf * factor, tree), norm
