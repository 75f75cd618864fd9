"""Perplexity: what it is computed from, what it does not depend on, and that training a head lowers it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xlmr_flax.data.batches import pad_rows, units_at
from xlmr_flax.data.corpus import hold_out, text_rows
from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.masking import Masking, mask_batch, mask_rows
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.eval import perplexity as module
from xlmr_flax.eval.perplexity import MLM, masked_loss, masked_perplexity
from xlmr_flax.eval.predict import Forward
from xlmr_flax.kinds import KINDS
from xlmr_flax.models import embedded
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import make_mesh, put_tree
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import SentenceExample

CONFIG = EncoderConfig(
    vocab_size=64, hidden_size=8, num_layers=2, num_heads=2, ffn_size=12, max_positions=42, initializer_range=0.5
)
MASKING = Masking(mask_id=59, special_ids=(0, 1, 2, 3, 59), vocab_size=60, rate=0.3)


def forward_of(model: Model, params: Params, **changes: Any) -> Forward:
    mesh = make_mesh()
    facts: dict[str, Any] = {'lengths': (8, 16, 40), 'batch_tokens': 128, 'pad': 1}
    return Forward(model, put_tree(params, mesh), mesh, **(facts | changes))


@pytest.fixture(scope='module')
def params() -> Params:
    return jax.device_get(Model(CONFIG).init(jax.random.key(0), {'mlm': MLM}))


@pytest.fixture(scope='module')
def tokens() -> Ragged:
    random = np.random.default_rng(0)
    return Ragged.from_rows([np.r_[0, random.integers(4, 59, n), 2] for n in random.integers(1, 38, 40)])


def test_it_is_the_mean_over_masked_tokens(params: Params, tokens: Ragged) -> None:
    forward = forward_of(Model(CONFIG), params)
    found, n = masked_loss(forward, 'mlm', tokens, MASKING, seed=3)
    ids, labels = mask_rows(tokens, 3, MASKING)
    losses: list[float] = []
    logits_of = jax.jit(lambda params, *inputs: Model(CONFIG).logits(params, 'mlm', MLM, *inputs))
    batch = pad_rows(ids, range(len(tokens)), 40, 1)
    logits = np.asarray(logits_of(params, batch['ids'], batch['segments']), np.float64)
    for row in range(len(tokens)):
        for at in np.flatnonzero(labels[row] != IGNORED):
            values = logits[row, at]
            losses.append(float(np.log(np.exp(values).sum()) - values[labels[row][at]]))
    assert n == len(losses) > 100
    assert found == pytest.approx(sum(losses), rel=1e-5)
    whole = masked_perplexity(forward, 'mlm', tokens, MASKING, seed=3)
    assert whole == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert abs(masked_perplexity(forward, 'mlm', tokens, MASKING, seed=4) - whole) > 1e-3 * whole


@pytest.mark.parametrize(
    ('changes', 'logits'), [({'batch_tokens': 1}, 1), ({'lengths': (40,)}, 4000), ({'packing': False}, 4000)]
)
def test_neither_batches_nor_padding_matter(
    changes: dict[str, Any], logits: int, params: Params, tokens: Ragged, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = masked_loss(forward_of(Model(CONFIG), params), 'mlm', tokens, MASKING)
    monkeypatch.setattr(module, '_LOGITS', logits)
    found, n = masked_loss(forward_of(Model(CONFIG), params, **changes), 'mlm', tokens, MASKING)
    assert (found, n) == (pytest.approx(plain[0], rel=1e-5), plain[1])


def test_a_model_that_knows_nothing_has_the_vocabularys(params: Params, tokens: Ragged) -> None:
    blank = jax.tree.map(np.zeros_like, params)
    found = masked_perplexity(forward_of(Model(CONFIG), blank), 'mlm', tokens, MASKING)
    assert found == pytest.approx(CONFIG.vocab_size, rel=1e-5)


def test_text_of_which_nothing_is_masked(params: Params) -> None:
    with pytest.raises(ValueError, match='none of 2 tokens is masked: no perplexity'):
        masked_perplexity(forward_of(Model(CONFIG), params), 'mlm', Ragged.from_rows([[0, 2]]), MASKING)


def test_a_model_that_is_sure_and_wrong(params: Params, tokens: Ragged) -> None:
    bias = np.zeros(CONFIG.vocab_size, np.float32)
    bias[63] = 1e4
    sure = {**params, 'heads': {'mlm': {**params['heads']['mlm'], 'bias': bias}}}
    assert masked_perplexity(forward_of(Model(CONFIG), sure), 'mlm', tokens, MASKING) == math.inf


LANGUAGES = ('en', 'de', 'sw')
LENGTH, BATCH, STEPS = 64, 16, 12


def _texts(tokenizer: Tokenizer, root: Path) -> tuple[Ragged, Ragged]:
    """(train, dev): every fifth line held out, so that some hundred tokens are predicted."""
    sides: tuple[list[SentenceExample], list[SentenceExample]] = ([], [])
    for language in LANGUAGES:
        for side, examples in zip(
            sides, hold_out(read_split(get_task('udhr'), language, 'train', root), 5), strict=True
        ):
            side += [e for e in examples if isinstance(e, SentenceExample)]
    train, dev = (text_rows(tokenizer, side, LENGTH)[0] for side in sides)
    return train, dev


def _head_step(model: Model, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """One update of the head alone: the word table, its decoder, stays as it is."""

    def step(head: Params, state: Any, params: Params, batch: dict[str, jax.Array]) -> tuple[Params, Any, jax.Array]:
        def loss(head: Params) -> jax.Array:
            whole = {**params, 'heads': {'mlm': head}}
            logits = model.logits(whole, 'mlm', MLM, batch['ids'], batch['segments'], positions=batch['positions'])
            total, count, _ = KINDS['mlm'].loss_sums(logits, {**batch, 'valid': jnp.ones(BATCH)})
            return total / count

        value, grads = jax.value_and_grad(loss)(head)
        updates, state = optimizer.update(grads, state, head)
        return optax.apply_updates(head, updates), state, value

    return jax.jit(step, donate_argnums=(0, 1))


@pytest.mark.slow
def test_training_the_head_of_the_embedded_encoder_lowers_it(
    data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On held-out lines of the Universal Declaration in three languages, with the encoder and the word table fixed."""
    try:
        config, encoder = embedded.load()
    except ModelError as e:
        pytest.skip(str(e))
    model = Model(dataclasses.replace(config, dropout=0.0, attention_dropout=0.0))
    tokenizer = Tokenizer(embedded.tokenizer_path(), config.vocab_size)
    masking = Masking.of(tokenizer)
    train, dev = _texts(tokenizer, data_root)
    head = jax.device_get(model.init_head(jax.random.key(0), MLM))
    mesh = make_mesh()
    params = put_tree({'encoder': encoder}, mesh)
    forward = Forward(model, {}, mesh, (LENGTH,), BATCH * LENGTH, tokenizer.pad)

    def measure(head: Params) -> tuple[float, int]:
        now = dataclasses.replace(forward, params={**params, 'heads': {'mlm': head}})
        loss, count = masked_loss(now, 'mlm', dev, masking)
        return math.exp(loss / count), count

    before, n = measure(head)
    optimizer = optax.adam(1e-2)
    state, step = optimizer.init(head), _head_step(model, optimizer)
    for i in range(STEPS):
        batch = pad_rows(train, units_at(i, len(train), BATCH, 0), LENGTH, tokenizer.pad)
        batch |= mask_batch(batch['ids'], batch['segments'], (0, i), masking)
        head, state, _ = step(head, state, params, {k: jnp.asarray(v) for k, v in batch.items()})
    after, again = measure(head)
    with capsys.disabled():
        print(f'\nperplexity of {n} held-out tokens: {before:.0f} before, {after:.0f} after {STEPS} steps')
    assert n == again > 100
    assert 1e4 < before < 1e7, 'a fresh head knows nothing'
    assert after < before / 10
