"""Weights for forward passes alone: converted once to the compute dtype, and placed on the mesh of the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import path_name, shardings

_LAYERS = 'encoder/layers/'
_KEPT = ('bias', '/scale')  # vectors; kernels read some of them in float32


def evaluation_weights(params: Params, model: Model, mesh: Mesh) -> Params:
    """The parameters for forward passes: the matrices of the stacked layers in the compute dtype, all on `mesh`.

    Without this, every forward pass would convert the matrices again, with the same results. The word table stays
    float32, as few of its rows are read; so does ModernBERT's first layer, which is not in the stack. params: arrays on
    a mesh of the same devices. Parameters that need no change are returned as they are.
    """
    if model.dtype == 'float32' and all(_lies_on(leaf, mesh) for leaf in jax.tree.leaves(params)):
        return params
    convert = converted(model.dtype)
    return jax.jit(convert, out_shardings=shardings(jax.eval_shape(convert, params), mesh))(params)


def _lies_on(leaf: jax.Array, mesh: Mesh) -> bool:
    return getattr(leaf.sharding, 'mesh', None) == mesh


@lru_cache(maxsize=4)  # one function for each dtype, so that jax finds its compiled programs again
def converted(dtype: str) -> Callable[[Params], Params]:
    """The function that converts the matrices of the stacked layers to a compute dtype."""

    def one(path: Any, leaf: jax.Array) -> jax.Array:
        name = path_name(path)
        return leaf.astype(jnp.dtype(dtype)) if name.startswith(_LAYERS) and not name.endswith(_KEPT) else leaf

    def convert(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(one, params)

    return convert
