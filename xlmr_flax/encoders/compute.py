"""How a forward pass is computed: dtype, formulation of attention, rematerialisation, unrolling, sharding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from xlmr_flax.encoders.attention.choose import CPU
from xlmr_flax.encoders.logical_axes import ANYWHERE, Place

# What a layer keeps for its backward pass: everything; what matrix products and attention gave (for the first product
# of the feed-forward, gelu and its slope where that pays), from which the rest is computed again; its input alone.
NONE, DOTS, FULL = 'none', 'dots', 'full'
REMAT = (NONE, DOTS, FULL)
SUMS = ('attention_sum', 'layer_sum')  # of a layer's two blocks
_DOTS = ('qkv', 'mixed', 'attention_sums', 'attention_mask', 'inner', 'active', 'slope', 'normed', *SUMS)


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """How a forward pass is computed; this changes numbers by rounding alone. dtype: of activations. attention: a
    formulation of encoders/attention/choose.py. remat: of each layer, one of REMAT. unroll: layers a step of the scan,
    0 = all. place: adds sharding constraints by logical axes.
    """

    dtype: str = 'float32'
    attention: str = CPU
    remat: str = NONE
    unroll: int = 1
    place: Place = ANYWHERE


def rematerialised(function: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """`function`, of which the backward pass computes again what `remat` does not keep."""
    if remat == NONE:
        return function
    policy = jax.checkpoint_policies.save_only_these_names(*_DOTS) if remat == DOTS else None
    return jax.checkpoint(function, policy=policy)
