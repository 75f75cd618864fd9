"""The cut word table: training with it is training with the whole one."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from one_head import make_train_step, single
from simulated_devices import output_of

from xlmr_flax.config import OptimizerSpec, Recipe
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import fetch, make_mesh, put_batch, put_tree
from xlmr_flax.train import streams
from xlmr_flax.train.head_padding import ProgramHead
from xlmr_flax.train.loop import train
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.phase import Phase
from xlmr_flax.train.step import init_state
from xlmr_flax.train.vocabulary import ActiveRows

STEPS = 20
SPEC = OptimizerSpec(learning_rate=1e-2, epsilon=1e-6, weight_decay=0.2, warmup=0.2, clip_norm=0.3)
# The norm that gradients are clipped by is summed in another order where the table is smaller; dividing by the root of
# a tiny second moment would make that large.
CALM = dataclasses.replace(SPEC, epsilon=1e-3, layer_decay=0.8)
LAYERS = 1  # of the models here


def factor_of(spec: OptimizerSpec, steps: int, done: int) -> float:
    factor = Optimizer(spec, steps).untouched_factor(done, LAYERS)
    assert factor is not None
    return factor


def test_twenty_steps_are_the_same(tiny_of: Callable[..., Any], batch_of: Callable[..., Any]) -> None:
    """Decay, clipping, accumulation and dropout on; losses at every step, then the whole tree, unused rows too."""
    tiny = tiny_of(dropout=0.1, attention_dropout=0.1)
    batches = [batch_of(8, seed=s, vocab=400) for s in range(STEPS)]
    tokens = Ragged.from_rows([row[row != 1] for batch in batches for row in batch['ids']])
    active = ActiveRows.of([tokens], 1300)
    assert len(active.rows) == 512 < 1300
    want, want_metrics = tiny.steps(batches, SPEC, 2)
    assert max(m['grad_norm'] for m in want_metrics) > SPEC.clip_norm

    def cut(ids: np.ndarray) -> np.ndarray:
        rows = active.remap(Ragged.from_rows(list(ids)))
        return rows.flat.reshape(ids.shape)

    model = dataclasses.replace(tiny.model, config=dataclasses.replace(tiny.model.config, vocab_size=len(active.rows)))
    small = dataclasses.replace(tiny, model=model, params=active.cut(tiny.params))
    found, metrics = small.steps([{**b, 'ids': cut(b['ids'])} for b in batches], SPEC, 2)
    np.testing.assert_allclose([m['loss'] for m in metrics], [m['loss'] for m in want_metrics], rtol=0, atol=1e-6)
    full = tiny.params['encoder']['embeddings']['word']
    restored = active.restore(found, full, factor_of(SPEC, STEPS, STEPS))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), restored, want)
    unused = np.setdiff1d(np.arange(1300), active.rows)
    word = want['encoder']['embeddings']['word']
    assert np.abs(word[unused] / full[unused] - 1).min() > 0.01, 'decay must have moved what is compared'
    np.testing.assert_allclose(restored['encoder']['embeddings']['word'][unused], word[unused], rtol=3e-6)


def cut_model(model: Model, active: ActiveRows) -> Model:
    return dataclasses.replace(model, config=dataclasses.replace(model.config, vocab_size=len(active.rows)))


def pairs(low: int, high: int, seed: int) -> Encoded:
    """40 rows of 4 to 12 tokens from a part of the vocabulary."""
    random = np.random.default_rng(seed)
    tokens = Ragged.from_rows([random.integers(low, high, random.integers(4, 13)) for _ in range(40)])
    return Encoded('pair', tokens, random.integers(0, 3, 40).astype(np.int32), tuple(map(str, range(40))))


class Crash(Exception):
    """Stands for a process that is killed."""


def trained(model: Model, data: Encoded, params: Params, folder: Path, crash: int = 0) -> Params:
    """Six steps; with `crash` in two goes, the first of which ends while that step's batch is made."""
    recipe = Recipe(steps=6, batch_size=8, max_length=12, checkpoint_every=2, optimizer=CALM)
    phase = Phase(
        task='toy', model=model, recipe=recipe, data=single('toy', 'x', HeadSpec('pair', 3), data, (12,), 7),
        steps=6, seed=7, pad=1, mesh=make_mesh(), directory=folder, run_hash='h', evaluate=None, log=lambda _: None,
    )  # fmt: skip
    if crash:
        real = streams.train_batch

        def train_batch(data: Encoded, step: int, *rest: Any) -> Any:
            if step == crash:
                raise Crash
            return real(data, step, *rest)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
            patch.setattr(streams, 'train_batch', train_batch)
            train(phase, params)
    return jax.device_get(train(phase, params).params)


def test_through_checkpoints_and_two_phases_it_is_the_same(tiny: Any, tmp_path: Path) -> None:
    """The second phase uses other rows, some of which only weight decay has moved in the first."""
    phases = [pairs(5, 400, 1), pairs(300, 700, 2)]
    dense, small = tiny.params, tiny.params
    for number, data in enumerate(phases):
        dense = trained(tiny.model, data, dense, tmp_path / f'dense{number}')
        active = ActiveRows.of([data.tokens], 1300)
        assert len(active.rows) == 512
        full = small['encoder']['embeddings']['word']
        model, own = cut_model(tiny.model, active), data.with_tokens(active.remap(data.tokens))
        kept = trained(model, own, active.cut(small), tmp_path / f'cut{number}', crash=3)
        small = active.restore(kept, full, factor_of(CALM, 6, 6))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), small, dense)
    word, start = dense['encoder']['embeddings']['word'], tiny.params['encoder']['embeddings']['word']
    assert np.abs(word[800:] / start[800:] - 1).min() > 0.005, 'decay of both phases must have moved what is compared'


# Run by this file as a program, with eight devices.
def on_a_mesh() -> float:
    """The largest difference after three steps between the whole table and the cut one, both cut over the mesh."""
    config = EncoderConfig(
        vocab_size=1300, hidden_size=16, num_layers=1, num_heads=2, ffn_size=24, max_positions=34, initializer_range=0.2
    )
    model, head, mesh, data = Model(config), HeadSpec('pair', 3), make_mesh(2, 2, 2), pairs(5, 400, 1)
    params, active = jax.device_get(model.init(jax.random.key(0), {'x': head})), ActiveRows.of([data.tokens], 1300)
    found = []
    for own, cut, used in (
        (model, params, data),
        (cut_model(model, active), active.cut(params), data.with_tokens(active.remap(data.tokens))),
    ):
        optimizer = Optimizer(CALM, 3)
        state = init_state(put_tree(cut, mesh), optimizer, mesh)
        word = state['params']['encoder']['embeddings']['word']
        assert word.sharding.shard_shape(word.shape) == (word.shape[0] // 2, 8)
        step, stream = (
            make_train_step(own, 'x', ProgramHead(head), optimizer, mesh=mesh),
            streams.Stream('x', 'x', head, used, (12,), 7),
        )
        for draw in range(3):
            state, _ = step(state, put_batch(stream.plan(draw, 8).batch(1), mesh), jax.random.key(1))
        found.append(fetch(state['params'], mesh))
    full = params['encoder']['embeddings']['word']
    small = active.restore(found[1], full, factor_of(CALM, 3, 3))
    moved = np.abs(found[0]['encoder']['embeddings']['word'] - full).max()
    assert moved > 1e-3
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), small, found[0])))


@pytest.mark.slow
def test_on_a_mesh_it_is_the_same() -> None:
    """With dropout on: its mask follows the place, not the token number."""
    assert json.loads(output_of(__file__)) < 2e-6


def test_the_factor_of_a_part_of_the_steps() -> None:
    rates = [0.0, 0.0025, 0.005, 0.0075, 0.01]  # warm-up of 4 steps, then the first of the decay
    for done in range(6):
        want = np.prod([1 - rate * 0.2 for rate in rates[:done]])
        assert factor_of(SPEC, STEPS, done) == pytest.approx(want, rel=1e-6)


def test_rows_are_what_occurs_and_a_round_number() -> None:
    tokens = [Ragged.from_rows([[0, 700, 2]]), Ragged.from_rows([[0, 1299, 800, 2]])]
    active = ActiveRows.of(tokens, 1300)
    assert len(active.rows) == 512
    assert {0, 1, 2, 3, 4, 700, 800, 1299} <= set(active.rows.tolist())
    assert active.rows[:5].tolist() == [0, 1, 2, 3, 4], 'padding, <s> and </s> keep their numbers'
    assert (np.diff(active.rows) > 0).all()
    back = active.remap(tokens[1])
    np.testing.assert_array_equal(active.rows[back.flat], tokens[1].flat)
    np.testing.assert_array_equal(back.offsets, tokens[1].offsets)


def test_the_lowest_ids_stay_where_the_used_rows_fill_the_table() -> None:
    active = ActiveRows.of([Ragged.from_rows([np.arange(100, 612)])], 1300)
    assert active.rows[:5].tolist() == [0, 1, 2, 3, 4]
    assert len(active.rows) == 1024


def test_a_small_table_stays_whole() -> None:
    assert ActiveRows.of([Ragged.from_rows([[0, 2]])], 300).rows.tolist() == list(range(300))


@pytest.mark.parametrize('token', [600, 1299])
def test_a_token_outside_is_refused(token: int) -> None:
    active = ActiveRows.of([Ragged.from_rows([[0, 2]])], 1300)
    with pytest.raises(ValueError, match='outside the active rows'):
        active.remap(Ragged.from_rows([[0, token, 2]]))


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[2]))
    print(json.dumps(on_a_mesh()))
