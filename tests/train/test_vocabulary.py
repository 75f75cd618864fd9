"""The cut word table: training with it is training with the whole one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.train.vocabulary import ActiveRows, decay_factor

STEPS = 20
SPEC = OptimizerSpec(learning_rate=1e-2, epsilon=1e-6, weight_decay=0.2, warmup=0.2, clip_norm=0.3)


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
    restored = active.restore(found, full, decay_factor(SPEC, STEPS, STEPS))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), restored, want)
    unused = np.setdiff1d(np.arange(1300), active.rows)
    word = want['encoder']['embeddings']['word']
    assert np.abs(word[unused] / full[unused] - 1).min() > 0.01, 'decay must have moved what is compared'
    np.testing.assert_allclose(restored['encoder']['embeddings']['word'][unused], word[unused], rtol=3e-6)


def test_the_factor_of_a_part_of_the_steps() -> None:
    rates = [0.0, 0.0025, 0.005, 0.0075, 0.01]  # warm-up of 4 steps, then the first of the decay
    for done in range(6):
        want = np.prod([1 - rate * 0.2 for rate in rates[:done]])
        assert decay_factor(SPEC, STEPS, done) == pytest.approx(want, rel=1e-6)


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
