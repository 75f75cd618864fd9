"""Weights of an evaluation: converted once, to the numbers that each pass would make of them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.eval.weights import converted, evaluation_weights
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import make_mesh, path_name, put_tree

MODEL = Model(
    EncoderConfig(vocab_size=64, hidden_size=16, num_layers=2, num_heads=2, ffn_size=32, max_positions=18),
    dtype='bfloat16',
)
HEAD = HeadSpec('pair', 3)


@pytest.fixture(scope='module')
def params() -> Params:
    return jax.device_get(jax.jit(lambda: MODEL.init(jax.random.key(0), {'x': HEAD}))())


def test_matrices_of_the_layers_alone_are_converted(params: Params) -> None:
    shapes = jax.eval_shape(converted('bfloat16'), params)
    narrow = {
        path_name(path) for path, leaf in jax.tree_util.tree_leaves_with_path(shapes) if leaf.dtype == jnp.bfloat16
    }
    layers = ('attention/qkv', 'attention/out', 'ffn_in/kernel', 'ffn_out/kernel')
    assert narrow == {f'encoder/layers/{name}' for name in layers}


def test_the_numbers_are_the_same(params: Params) -> None:
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    placed = put_tree(params, mesh)
    ready = evaluation_weights(placed, MODEL, mesh)
    ids = jnp.asarray(np.random.default_rng(0).integers(5, 64, (4, 16)), jnp.int32)
    run = jax.jit(lambda p: MODEL.logits(p, 'x', HEAD, ids, jnp.ones_like(ids)))
    np.testing.assert_array_equal(run(ready), run(placed))


def test_float32_needs_nothing(params: Params) -> None:
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    placed = put_tree(params, mesh)
    assert evaluation_weights(placed, dataclasses.replace(MODEL, dtype='float32'), mesh) is placed
