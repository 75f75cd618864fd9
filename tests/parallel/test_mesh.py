"""The mesh and its rules on one device, and eight: the same losses wherever the numbers lie."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from simulated_devices import output_of

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.encoders import named_sizes
from xlmr_flax.encoders.config import SIZES, EncoderConfig
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import RULES, MeshError, make_mesh, path_name, put_batch, put_tree, shardings, spec_for
from xlmr_flax.train import step
from xlmr_flax.train.optimizer import Optimizer

HEADS = {kind: HeadSpec(kind, 3) for kind in ('pair', 'choice', 'span', 'tag', 'mlm')}


def state_shapes(config: EncoderConfig, style: str) -> Any:
    params = Model(config, style).shapes(HEADS)
    return step.state_shapes(params, Optimizer(OptimizerSpec(), 10))


def rules_of(config: EncoderConfig, style: str) -> set[int]:
    """Indices of the rules that place a leaf of this encoder's state; each leaf matches exactly one."""
    used = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state_shapes(config, style)):
        name = path_name(path)
        found = [i for i, (pattern, _) in enumerate(RULES) if re.search(pattern, name)]
        assert len(found) == 1, name
        assert len(RULES[found[0]][1]) <= len(leaf.shape), name
        used.add(found[0])
    return used


@pytest.mark.parametrize('style', ['jiant', 'hf'])
@pytest.mark.parametrize('size', SIZES)
def test_every_leaf_of_a_state_matches_exactly_one_rule(size: str, style: str) -> None:
    assert rules_of(SIZES[size], style)


def test_every_rule_places_a_leaf_of_some_family() -> None:
    used = [rules_of(config, style) for config in named_sizes().values() for style in ('jiant', 'hf')]
    assert set().union(*used) == set(range(len(RULES))), 'a rule that places nothing'


def test_moments_lie_where_their_parameters_do() -> None:
    mesh = make_mesh()
    shapes = state_shapes(SIZES['tiny'], 'jiant')
    placed = shardings(shapes, mesh)
    params = {path_name(p): s.spec for p, s in jax.tree_util.tree_leaves_with_path(placed['params'])}
    moments = [(path_name(p), s.spec) for p, s in jax.tree_util.tree_leaves_with_path(placed['opt'])]
    matched = 0
    for name, spec in moments:
        # A head's moments are kept under its name, and inside under the one that every program knows: 'head'.
        head = re.match(r'heads/(\w+)/', name)
        own = [n for n in params if name.replace('heads/head/', f'heads/{head[1]}/' if head else '').endswith('/' + n)]
        if own:
            assert spec == params[own[0]]
            matched += 1
    assert matched == 2 * len(params)


def test_a_parameter_without_a_rule_or_with_two_is_an_error() -> None:
    mesh = make_mesh()
    with pytest.raises(MeshError, match=r"parameter 'encoder/adapter/kernel' matches 0 sharding rules"):
        shardings({'encoder': {'adapter': {'kernel': np.zeros(3)}}}, mesh)
    twice = (*RULES, (r'pooler/', RULES[0][1]))
    with pytest.raises(MeshError, match=r"parameter 'pooler/dense/bias' matches 2 sharding rules"):
        spec_for('pooler/dense/bias', (8,), mesh, twice)


@pytest.mark.parametrize(
    ('sizes', 'said'),
    [
        ((2, 1, 1), r'mesh data=2 fsdp=1 model=1 does not fit \d+ device'),
        ((-1, 1, 3), 'does not fit'),
        ((-1, -1, 1), 'sizes are positive, and one may be -1'),
        ((0, 1, 1), 'sizes are positive'),
        ((1, -2, 1), 'sizes are positive'),
    ],
)
def test_meshes_that_cannot_be(sizes: tuple[int, int, int], said: str) -> None:
    assert jax.device_count() == 1
    with pytest.raises(MeshError, match=said):
        make_mesh(*sizes)


def test_the_axis_that_is_left_takes_all_devices() -> None:
    for sizes in ((-1, 1, 1), (1, -1, 1), (1, 1, -1), (1, 1, 1)):
        assert dict(make_mesh(*sizes).shape) == {'data': 1, 'fsdp': 1, 'model': 1}


@dataclasses.dataclass(frozen=True)
class Device:
    """A description of a chip, of which a mesh asks no more."""

    id: int
    slice_index: int | None
    platform: str = 'fake'
    device_kind: str = 'fake'
    process_index: int = 0


def chips(*slices: int | None) -> list[Device]:
    return [Device(i, s) for i, s in enumerate(slices)]


@pytest.mark.parametrize('slices', [2, -1])
def test_data_spans_slices_and_the_other_axes_lie_inside(slices: int) -> None:
    devices = chips(1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0)  # in no order
    mesh = make_mesh(-1, 2, 2, slices, devices=devices)
    assert dict(mesh.shape) == {'data': 4, 'fsdp': 2, 'model': 2}
    found = np.vectorize(lambda d: d.slice_index)(mesh.devices)
    assert (found[:2] == 0).all() and (found[2:] == 1).all()
    assert sorted(d.id for d in mesh.devices.flat) == list(range(16))


@pytest.mark.parametrize(
    ('sizes', 'devices', 'said'),
    [
        ((4, 1, 1, 2), chips(0, 0, 1, None), r'device Device\(id=3.* has no slice_index'),
        ((-1, 1, 1, -1), chips(0, None), 'has no slice_index'),
        ((4, 1, 1, 4), chips(0, 0, 1, 1), r'data=4 fsdp=1 model=1 slices=4: the devices are in 2 slice'),
        ((1, 4, 1, 2), chips(0, 0, 1, 1), 'data spans the slices, so it is a multiple of their number'),
        ((4, 1, 1, 2), chips(0, 0, 0, 1), r'slices of different sizes, \{0: 3, 1: 1\}'),
        ((4, 2, 1, 2), chips(0, 0, 1, 1), r'does not fit 4 device'),
        ((4, 1, 1, 0), chips(0, 0, 1, 1), r'slices=0: the devices are in 2 slice'),
    ],
)
def test_slices_that_cannot_be(sizes: tuple[int, int, int, int], devices: list[Device], said: str) -> None:
    with pytest.raises(MeshError, match=said):
        make_mesh(*sizes, devices=devices)


def test_arrays_go_over_whole() -> None:
    mesh = make_mesh()
    rows = {'ids': np.arange(12, dtype=np.int32).reshape(4, 3), 'valid': np.ones(4, np.float32)}
    for name, value in put_batch(rows, mesh).items():
        np.testing.assert_array_equal(value, rows[name])
        assert value.dtype == rows[name].dtype
    tree = {'pooler': {'dense': {'bias': np.arange(5, dtype=np.float32)}}}
    np.testing.assert_array_equal(put_tree(tree, mesh)['pooler']['dense']['bias'], tree['pooler']['dense']['bias'])


# Run by this file as a program, with the sizes of each mesh as arguments.
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2)]


def losses(sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Three steps with accumulation, dropout, decay and clipping; where the state lies; and the logits after them."""
    from one_head import make_train_step

    from xlmr_flax.data.tokenize import Ragged
    from xlmr_flax.eval.predict import Forward, predict_logits
    from xlmr_flax.train.head_padding import ProgramHead
    from xlmr_flax.train.step import init_state

    config = EncoderConfig(
        vocab_size=512, hidden_size=32, num_layers=1, num_heads=4, ffn_size=64, max_positions=18, initializer_range=0.2
    )
    model, head, mesh = Model(config), HeadSpec('pair', 3), make_mesh(*sizes)
    spec = OptimizerSpec(learning_rate=1e-2, epsilon=1e-4, warmup=0.0, clip_norm=0.5)
    params = jax.device_get(model.init(jax.random.key(0), {'x': head}))
    optimizer = Optimizer(spec, 3)
    state = init_state(put_tree(params, mesh), optimizer, mesh)
    step = make_train_step(model, 'x', ProgramHead(head), optimizer, mesh=mesh, accumulation=2)
    random, found = np.random.default_rng(0), []
    for _ in range(3):
        batch = {
            'ids': random.integers(5, 512, (16, 12)).astype(np.int32),
            'segments': (np.arange(12) < random.integers(3, 13, (16, 1))).astype(np.int32),
            'label': random.integers(0, 3, 16).astype(np.int32),
            'valid': (np.arange(16) % 5 > 0).astype(np.float32),
        }
        state, metrics = step(state, put_batch(batch, mesh), jax.random.key(1))
        found.append([float(metrics[k]) for k in ('loss', 'grad_norm', 'accuracy')])
    tokens = Ragged.from_rows([random.integers(5, 512, n) for n in (3, 12, 7, 5, 9)])
    logits = predict_logits(Forward(model, state['params'], mesh, (8, 12), 24, pad=1), 'x', head, tokens)
    word = state['params']['encoder']['embeddings']['word']
    return {'metrics': found, 'logits': logits.tolist(), 'shard': list(word.sharding.shard_shape(word.shape))}


@pytest.fixture(scope='module')
def eight() -> dict[str, dict[str, Any]]:
    """Outcomes by mesh, from one process with eight devices."""
    return json.loads(output_of(__file__))


@pytest.fixture(scope='module')
def one() -> dict[str, Any]:
    return losses((1, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(('sizes', 'shard'), list(zip(MESHES, [[512, 32], [512, 4], [256, 16]], strict=True)))
def test_eight_devices_give_the_losses_of_one(
    sizes: tuple[int, int, int], shard: list[int], eight: dict[str, dict[str, Any]], one: dict[str, Any]
) -> None:
    found = eight[str(sizes)]
    assert found['shard'] == shard, 'the word table must be cut as the rules say'
    np.testing.assert_allclose(found['metrics'], one['metrics'], atol=1e-5)
    np.testing.assert_allclose(found['logits'], one['logits'], atol=1e-4)
    assert abs(one['metrics'][2][0] - one['metrics'][0][0]) > 1e-3


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[2]))
    print(json.dumps({str(sizes): losses(sizes) for sizes in MESHES}))
