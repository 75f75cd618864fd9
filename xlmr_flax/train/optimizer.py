"""The registry of optimizers, the learning rate schedule, and clipping by global norm.

An optimizer is a function from `OptimizerSpec` to an optax transformation, and one line of `OPTIMIZERS`
(docs/adding_an_optimizer.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from xlmr_flax.config import ConfigError, OptimizerSpec
from xlmr_flax.parallel.mesh import path_name
from xlmr_flax.util.errors import closest, quote


def schedule(spec: OptimizerSpec, steps: int) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """Returns the learning rate schedule, a function of the 0-based step.

    Linear warm-up from 0, then linear decay to 0 at `steps`, as transformers' get_linear_schedule_with_warmup; or
    constant after the warm-up.
    """
    warmup = spec.warmup_steps if spec.warmup_steps >= 0 else round(spec.warmup * steps)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        up = step / max(1, warmup)
        down = (steps - step) / max(1, steps - warmup) if spec.schedule == 'linear' else jnp.float32(1)
        return spec.learning_rate * jnp.where(step < warmup, up, jnp.maximum(down, 0.0))

    return rate


def decays(params: Any) -> Any:
    """The weight decay mask: True for every leaf except biases and layer norms."""

    def one(path: Any, _: Any) -> bool:
        name = path_name(path)
        return not name.endswith(('bias', '/scale'))

    return jax.tree_util.tree_map_with_path(one, params)


def layer_factors(params: Any, decay: float) -> Any:
    """The factor of each parameter's learning rate under layer-wise decay, which broadcasts to the parameter.

    As in BEiT's fine-tuning (Bao et al. 2022): `decay` for the last of L layers, decay ** L for the first, decay **
    (L + 1) for what comes before the layers, 1 for everything after them (a final norm, the pooler, heads). A stack of
    layers [L, ...] gets an array [L, 1, ...].
    """
    named = [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
    first = any('encoder/first/' in name for name, _ in named)  # ModernBERT's first layer is not in the stack
    layers = next((leaf.shape[0] for name, leaf in named if 'encoder/layers/' in name), 0) + first

    def one(path: Any, leaf: Any) -> Any:
        name = path_name(path)
        if 'encoder/layers/' in name:
            above = np.arange(leaf.shape[0], 0, -1, dtype=np.float32)
            return np.float32(decay) ** above.reshape(-1, *(1,) * (leaf.ndim - 1))
        if 'encoder/first/' in name:
            return np.float32(decay) ** layers
        below = any(part in name for part in ('encoder/embeddings/', 'encoder/relative/'))
        return np.float32(decay) ** (layers + 1) if below else np.float32(1)

    return jax.tree_util.tree_map_with_path(one, params)


def adamw(spec: OptimizerSpec) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019), the optimizer of the authors and of transformers' examples."""
    return optax.chain(
        optax.scale_by_adam(spec.beta1, spec.beta2, spec.epsilon),
        optax.add_decayed_weights(spec.weight_decay, decays),
    )


def lion(spec: OptimizerSpec) -> optax.GradientTransformation:
    """Lion (Chen et al. 2023): the sign of a momentum, so that it stores one moment where AdamW stores two."""
    return optax.chain(
        optax.scale_by_lion(spec.beta1, spec.beta2),
        optax.add_decayed_weights(spec.weight_decay, decays),
    )


def decay_alone(spec: OptimizerSpec, rates: np.ndarray) -> float:
    """The factor of decoupled weight decay, prod(1 - rate * decay). For optimizers in which only the decay changes a
    weight whose gradient has always been zero."""
    return float(np.prod(1.0 - rates * spec.weight_decay))


@dataclass(frozen=True)
class Method:
    """An optimizer of the registry.

    direction: makes the transformation from clipped gradients to the direction of an update, without the learning rate;
    parameters with `decays` decay. Arrays of its state have the shape of a parameter and a path that ends with the
    parameter's, or are scalars named `count`, so that the sharding rules hold. untouched: (spec, float64 learning
    rates of some steps) -> the factor by which these steps multiply a decaying parameter if its gradient is always
    zero; None = there is no such factor, and runs train the whole word table (train/vocabulary.py).
    """

    direction: Callable[[OptimizerSpec], optax.GradientTransformation]
    untouched: Callable[[OptimizerSpec, np.ndarray], float] | None = None


OPTIMIZERS: dict[str, Method] = {
    'adamw': Method(adamw, decay_alone),
    'lion': Method(lion, decay_alone),
}


def method_of(spec: OptimizerSpec, where: str = 'recipe') -> Method:
    """Looks an optimizer up. where: the recipe, for the message. Raises ConfigError for an unknown name."""
    if spec.name not in OPTIMIZERS:
        raise ConfigError(f'{where}.optimizer.name: unknown {quote(spec.name)}{closest(spec.name, OPTIMIZERS)}')
    return OPTIMIZERS[spec.name]


@dataclass(frozen=True)
class Optimizer:
    """The update of a phase without clipping; train/step.py clips, because the authors clip per micro-batch.

    steps: number of optimizer steps of the phase. The learning rate depends on the phase's step. The bias correction of
    the moments depends on the number of updates of the parameters. The two differ for a head that is not in every step.
    """

    spec: OptimizerSpec
    steps: int

    def init(self, params: Any) -> Any:
        """Returns the initial state: moments 0 and their count 0."""
        return self._direction().init(params)

    def update(self, grads: Any, state: Any, params: Any, step: jax.typing.ArrayLike) -> tuple[Any, Any]:
        """Returns (updates to add to params, new state). step: 0-based step of the phase."""
        directions, state = self._direction().update(grads, state, params)
        rate = schedule(self.spec, self.steps)(step)
        if self.spec.layer_decay != 1:
            directions = jax.tree.map(jnp.multiply, directions, layer_factors(params, self.spec.layer_decay))
        return jax.tree.map(lambda d: d * -rate, directions), state

    def untouched_factor(self, done: int, layers: int) -> float | None:
        """The factor of the first `done` steps for a word row without gradient, below `layers` layers; None = no closed
        form."""
        untouched = method_of(self.spec).untouched
        rates = np.asarray(schedule(self.spec, self.steps)(np.arange(done)), np.float64)
        rates = rates * self.spec.layer_decay ** (layers + 1)
        return untouched(self.spec, rates) if untouched else None

    def _direction(self) -> optax.GradientTransformation:
        return method_of(self.spec).direction(self.spec)


def global_norm(tree: Any) -> jax.Array:
    """The global norm: sqrt of the sum of squares over all leaves, float32."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))


def clip(tree: Any, limit: float) -> tuple[Any, jax.Array]:
    """Clips a tree by its global norm: (scaled tree, norm before). limit 0 = no clipping.

    As torch's clip_grad_norm_, including the 1e-6 in the denominator.
    """
    norm = global_norm(tree)
    if limit <= 0:
        return tree, norm
    factor = clip_factor(norm, limit)
    return jax.tree.map(lambda leaf: leaf * factor, tree), norm


def clip_factor(norm: jax.Array, limit: float) -> jax.Array:
    """The clipping factor for gradients of this norm. limit > 0."""
    return jnp.minimum(1.0, limit / (norm + 1e-6))
