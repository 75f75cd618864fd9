"""Options of the forward pass: dtype, attention implementation, rematerialisation, unrolling, sharding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from xlmr_flax.encoders.attention.choose import CPU
from xlmr_flax.encoders.logical_axes import UNCONSTRAINED, Constrain

# What a layer keeps for its backward pass. none: all residuals. dots: the results of matrix products and attention (for
# the first feed-forward product, gelu and its derivative where this is faster); the rest is recomputed. full: only the
# layer's input.
NONE, DOTS, FULL = 'none', 'dots', 'full'
REMAT = (NONE, DOTS, FULL)
SUMS = ('attention_sum', 'layer_sum')  # checkpoint names of the residual sums of a layer's two blocks
_DOTS = ('qkv', 'mixed', 'attention_sums', 'attention_mask', 'inner', 'active', 'slope', 'normed', *SUMS)
_CUDNN_FORWARD = 'dot_product_attention_fwd'  # jax's primitive


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """Options of the forward pass. They change the numbers only by rounding.

    dtype: dtype of activations. attention: an implementation of encoders/attention/choose.py. remat: rematerialisation
    of a layer, one of REMAT. unroll: layers per scan step, 0 = all. place: adds sharding constraints by logical axes.
    """

    dtype: str = 'float32'
    attention: str = CPU
    remat: str = NONE
    unroll: int = 1
    place: Constrain = UNCONSTRAINED


def rematerialised(function: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """Wraps `function` with jax.checkpoint: its backward pass recomputes what `remat` does not keep."""
    if remat == NONE:
        return function
    return jax.checkpoint(function, policy=_keeps_dots() if remat == DOTS else None)


def _keeps_dots() -> Callable[..., Any]:
    """The policy of DOTS. cuDNN's forward pass has no checkpoint names: its primitive's results are kept."""
    names = jax.checkpoint_policies.save_only_these_names(*_DOTS)

    def keeps(primitive: Any, *args: Any, **params: Any) -> Any:
        return primitive.name.startswith(_CUDNN_FORWARD) or names(primitive, *args, **params)

    return keeps
