"""Twenty steps of a mixture of pair, choice, span and tag tasks: eight devices, however they are arranged, give the
losses and the parameters of one."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from simulated_devices import output_of

from xlmr_flax.config import OptimizerSpec, Recipe
from xlmr_flax.data.encode import NO_LABELS, Encoded
from xlmr_flax.data.mixture import Mixture, fixed_quotas, stream_seed
from xlmr_flax.data.spans import SpanRows
from xlmr_flax.data.tagging import TagRows
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.kinds import KINDS, HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import fetch, make_mesh, path_name, shardings
from xlmr_flax.train.loop import train
from xlmr_flax.train.phase import Phase
from xlmr_flax.train.streams import Stream, TrainingData

ONE, DEFAULT, OTHERS = '1x1x1', '2x2x2', ('8x1x1', '1x8x1', '4x1x2')  # each compiles a program for each kind
HEADS = {
    'nli': HeadSpec('pair', 3),
    'copa': HeadSpec('choice'),
    'squad': HeadSpec('span', 2),
    'pos': HeadSpec('tag', 5),
}
STEPS, ROWS, LENGTH, WORDS = 20, 8, 16, 512
# A rate at which 20 steps move parameters a thousand times further than they may differ. Adam divides by the size of
# a gradient: epsilon lies above the rounding of those that are 0 in exact arithmetic, such as the keys' bias.
SPEC = OptimizerSpec(learning_rate=2e-3, epsilon=1e-5, warmup=0.1, clip_norm=1.0)
CONFIG = EncoderConfig(
    vocab_size=WORDS, hidden_size=32, num_layers=2, num_heads=4, ffn_size=64, max_positions=LENGTH + 2,
    initializer_range=0.1, dropout=0.1, attention_dropout=0.1,
)  # fmt: skip

Outcome = tuple[dict[str, Any], dict[str, np.ndarray]]  # of `steps`


def stream(name: str, examples: int = 60) -> Stream:
    """Random rows of 4 to LENGTH tokens; of a choice task two an example."""
    head, random = HEADS[name], np.random.default_rng(len(name))
    group, number = 2 if head.kind == 'choice' else 1, np.arange(examples)
    tokens = Ragged.from_rows(
        [random.integers(5, WORDS, random.integers(4, LENGTH + 1)) for _ in range(examples * group)]
    )
    label = random.integers(0, max(2, head.outputs), examples).astype(np.int32)
    labelled = head.kind in ('pair', 'choice')
    data = Encoded(head.kind, tokens, label if labelled else NO_LABELS, tuple(map(str, number)), group)
    if head.kind == 'tag':
        tags = Ragged(random.integers(-1, head.outputs, len(tokens.flat)).astype(np.int32), tokens.offsets)
        data = dataclasses.replace(data, tags=TagRows(tokens, tags, tags, number))
    elif head.kind == 'span':
        data = dataclasses.replace(data, spans=SpanRows(tokens, number, label, label + 1, label, label, label, ()))
    return Stream(name, name, head, data, (LENGTH,), stream_seed(0, name, len(HEADS)))


@lru_cache
def start() -> Any:
    return jax.device_get(jax.jit(lambda: Model(CONFIG).init(jax.random.key(0), HEADS))())


def steps(sizes: str, folder: Path) -> Outcome:
    """({'losses', 'norms', 'moved': at most, 'cut': parameters of which a device has a part}, {path: parameter})
    of a training."""
    shape = tuple(map(int, sizes.split('x')))
    model, mesh = Model(CONFIG), make_mesh(*shape, devices=jax.devices()[: math.prod(shape)])
    streams = tuple(map(stream, HEADS))
    mixture = Mixture(tuple(HEADS), fixed_quotas(np.full(len(HEADS), 1 / len(HEADS)), len(HEADS)), 3)
    recipe = Recipe(
        steps=STEPS, batch_size=ROWS, max_length=LENGTH, lengths=(LENGTH,), log_every=1, optimizer=SPEC
    )  # fmt: skip
    records: list[dict[str, Any]] = []
    params = start()
    phase = Phase(
        task='mix', model=model, recipe=recipe, data=TrainingData(streams, mixture), steps=STEPS, seed=7, pad=1,
        mesh=mesh, directory=folder / sizes, run_hash='h', evaluate=None, log=records.append,
    )  # fmt: skip
    trained = train(phase, params).params
    assert not [r for r in records if 'recompiled' in r], 'one program a kind, and no other'
    leaves = [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(trained)]
    for (name, leaf), placed in zip(leaves, jax.tree.leaves(shardings(trained, mesh)), strict=True):
        assert leaf.sharding.is_equivalent_to(placed, leaf.ndim), f'{name} lies as {leaf.sharding}, not as the rule'
    host = fetch(trained, mesh)
    facts = {
        'losses': [r['loss'] for r in records],
        'norms': [r['grad_norm'] for r in records],
        'moved': max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (host, params)), strict=True)).item(),
        'cut': sum(leaf.sharding.shard_shape(leaf.shape) != leaf.shape for _, leaf in leaves),
    }
    return facts, {path_name(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(host)}


def in_a_child(meshes: tuple[str, ...], folder: Path) -> dict[str, Outcome]:
    """Outcomes by mesh, of one process with eight devices."""
    found = json.loads(output_of(__file__, str(folder), *meshes))
    return {m: (found[m], dict(np.load(folder / f'{m}.npz'))) for m in meshes}


@pytest.fixture(scope='module')
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return in_a_child((ONE, DEFAULT), tmp_path_factory.mktemp('first'))


@pytest.fixture(scope='module')
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return in_a_child(OTHERS, tmp_path_factory.mktemp('others'))


def check(found: Outcome, one: Outcome) -> None:
    (facts, params), (want, want_params) = found, one
    assert len(want['losses']) == STEPS
    np.testing.assert_allclose(facts['losses'], want['losses'], rtol=1e-5, atol=0)
    np.testing.assert_allclose(facts['norms'], want['norms'], rtol=1e-4, atol=0)
    assert params.keys() == want_params.keys()
    for name, value in want_params.items():
        np.testing.assert_allclose(params[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_a_mesh_of_two_by_two_by_two(first: dict[str, Outcome]) -> None:
    check(first[DEFAULT], first[ONE])
    assert first[DEFAULT][0]['cut'] > 5
    assert first[ONE][0]['moved'] > 1e-2, 'else nothing could differ'


@pytest.mark.slow
@pytest.mark.parametrize('mesh', OTHERS)
def test_every_other_mesh(mesh: str, first: dict[str, Outcome], others: dict[str, Outcome]) -> None:
    check(others[mesh], first[ONE])
    assert (others[mesh][0]['cut'] > 0) == (mesh != '8x1x1')


def test_the_kinds_here_and_in_the_rules_test_are_all_there_are() -> None:
    """tests/parallel/test_mesh.py counts the rules of every leaf of every size and head style, for these kinds."""
    assert {head.kind for head in HEADS.values()} | {'mlm'} == {
        name for name, kind in KINDS.items() if kind.architecture
    }


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[2]))
    out, outcome = Path(sys.argv[1]), {}
    for name in sys.argv[2:]:
        with tempfile.TemporaryDirectory() as work:
            outcome[name], arrays = steps(name, Path(work))
        np.savez(out / f'{name}.npz', **arrays)
    print(json.dumps(outcome))
