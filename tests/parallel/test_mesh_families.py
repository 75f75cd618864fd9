"""Ten steps on padded and on packed rows of each encoder family: eight devices give the losses of one."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from one_head import make_train_step
from simulated_devices import output_of

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.encoders import FAMILIES, attention
from xlmr_flax.encoders.attention import blocked, disentangled
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import fetch, make_mesh, path_name, put_batch, put_tree
from xlmr_flax.train.head_padding import ProgramHead
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.step import init_state

# XLM-R itself: test_mesh_steps.py. These have types, layers or attention of their own.
NAMES = ('bert', 'modernbert', 'deberta-v2', 'xlm-roberta-xl')
MESHES = {'one': (1, 1, 1), 'eight': (2, 2, 2)}
STEPS, ROWS, LENGTH, WORDS, SLOTS = 10, 8, 24, 512, 3
# As in test_mesh_steps.py: epsilon lies above the rounding of gradients that are 0 in exact arithmetic.
SPEC = OptimizerSpec(learning_rate=2e-3, epsilon=1e-5, warmup=0.1, clip_norm=1.0)
SMALL: dict[str, dict[str, Any]] = {
    'bert': {'eos_id': 7},  # a separator among the words, so that there are both token types
    'modernbert': {'window': 8, 'embedding_dropout': 0.1, 'ffn_dropout': 0.1},  # rows longer than a window
    'deberta-v2': {'buckets': 8, 'furthest': 20, 'head_dropout': 0.1},
}


def batch(random: np.random.Generator, is_packed: bool) -> dict[str, np.ndarray]:
    """A batch of pairs of the shape that training has: one text in a row, or SLOTS."""
    ids = random.integers(5, WORDS, (ROWS, LENGTH)).astype(np.int32)
    if not is_packed:
        sizes = random.integers(3, LENGTH + 1, (ROWS, 1))
        labels = {'label': random.integers(0, 3, ROWS), 'valid': np.arange(ROWS) % 5 > 0}
        segments = (np.arange(LENGTH) < sizes).astype(np.int32)
    else:
        ends = np.cumsum(random.integers(3, LENGTH // SLOTS + 1, (ROWS, SLOTS)), axis=1)
        segments = 1 + (np.arange(LENGTH)[:, None] >= ends[:, None]).sum(-1)
        segments = np.where(segments > SLOTS, 0, segments).astype(np.int32)
        starts = np.concatenate([np.zeros((ROWS, 1)), ends[:, :-1]], axis=1).astype(np.int32)
        labels = {'label': random.integers(0, 3, (ROWS, SLOTS)), 'valid': np.ones((ROWS, SLOTS)), 'starts': starts}
    kinds = {'label': np.int32, 'valid': np.float32, 'starts': np.int32}
    return {'ids': ids, 'segments': segments} | {name: x.astype(kinds[name]) for name, x in labels.items()}


def steps(name: str, mesh_name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """({'losses', 'norms', 'moved': at most, 'cut': parameters of which a device has a part}, {path: parameter})."""
    family = FAMILIES[name]
    shape: dict[str, Any] = {
        'vocab_size': WORDS,
        'hidden_size': 32,
        'num_heads': 4,
        'ffn_size': 64,
        'max_positions': 64,
    }
    other: dict[str, Any] = {'initializer_range': 0.1, 'dropout': 0.1, 'attention_dropout': 0.1} | SMALL.get(name, {})
    fields: dict[str, Any] = dataclasses.asdict(family.sizes['tiny']) | shape | other
    config = family.config_class(**fields)
    sizes = MESHES[mesh_name]
    model, mesh = Model(config, 'hf'), make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    head = HeadSpec('pair', 3)
    params = jax.device_get(jax.jit(lambda: model.init(jax.random.key(0), {'x': head}))())
    optimizer = Optimizer(SPEC, STEPS)
    state = init_state(put_tree(params, mesh), optimizer, mesh)
    step = make_train_step(model, 'x', ProgramHead(head), optimizer, mesh=mesh)
    random, found = np.random.default_rng(0), []
    for number in range(STEPS):
        state, metrics = step(state, put_batch(batch(random, number % 2 > 0), mesh), jax.random.key(1))
        found.append([float(metrics[k]) for k in ('loss', 'grad_norm')])
    leaves = jax.tree.leaves(state['params'])
    host = fetch(state['params'], mesh)
    facts = {
        'losses': [loss for loss, _ in found],
        'norms': [norm for _, norm in found],
        'moved': max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (host, params)), strict=True)).item(),
        'cut': sum(leaf.sharding.shard_shape(leaf.shape) != leaf.shape for leaf in leaves),
    }
    return facts, {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(host)}


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Outcomes by family and mesh, from one process with eight devices."""
    folder = tmp_path_factory.mktemp('families')
    found = json.loads(output_of(__file__, str(folder)))
    return {key: (facts, dict(np.load(folder / f'{key}.npz'))) for key, facts in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_eight_devices_give_the_losses_of_one(name: str, outcomes: dict[str, Any]) -> None:
    (want, want_params), (facts, params) = (outcomes[f'{name}-{mesh}'] for mesh in MESHES)
    assert facts['cut'] > 5 and want['cut'] == 0
    assert want['moved'] > 5e-3, 'else nothing could differ'
    np.testing.assert_allclose(facts['losses'], want['losses'], rtol=1e-5, atol=0)
    np.testing.assert_allclose(facts['norms'], want['norms'], rtol=1e-4, atol=0)
    assert params.keys() == want_params.keys()
    for path, value in want_params.items():
        np.testing.assert_allclose(params[path], value, rtol=0, atol=1e-5, err_msg=path)


if __name__ == '__main__':
    disentangled.BLOCK = blocked.BLOCK = 8  # a loop over three blocks
    found = {}
    for family in NAMES:
        # Its global layers compute as for rows of more than 512 tokens.
        attention.MOST_TOKENS = LENGTH - 1 if family == 'modernbert' else 512
        for which in MESHES:
            found[f'{family}-{which}'], arrays = steps(family, which)
            np.savez(Path(sys.argv[1]) / f'{family}-{which}.npz', **arrays)  # type: ignore[arg-type]
    print(json.dumps(found))
