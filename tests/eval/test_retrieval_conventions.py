"""The layer by depth and the conventions of sentence encoders: prefixes, pooling, length."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_flax.config import CLS, E5, LABSE, MEAN, POOLINGS, Config, Evaluation
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders import FAMILIES
from xlmr_flax.encoders.config import SIZES, ModelError
from xlmr_flax.eval import zero_shot
from xlmr_flax.eval.retrieval import layer_note, retrieval_layer, with_prefixes
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.experiment.result_rows import retrieval_note
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import open_source
from xlmr_flax.parallel.mesh import make_mesh, put_tree
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import SentenceExample, Task


def _depth(layers: int) -> Any:
    return dataclasses.replace(SIZES['tiny'], num_layers=layers)


@pytest.mark.parametrize(
    ('layers', 'layer'), [(24, 14), (12, 12), (22, 13), (36, 21), (48, 28), (6, 4), (2, 1), (1, 1)]
)
def test_the_layer_by_depth(layers: int, layer: int) -> None:
    for pooling in (MEAN, CLS):
        assert retrieval_layer(_depth(layers), -1, pooling) == layer
    for pooling in (E5, LABSE):
        assert retrieval_layer(_depth(layers), -1, pooling) == layers
    assert [retrieval_layer(_depth(layers), n, pooling) for n in (0, layers) for pooling in POOLINGS] == [
        *[0] * 4, *[layers] * 4
    ]  # fmt: skip
    with pytest.raises(ModelError, match=f'retrieval layer {layers + 1}: the encoder has {layers} layers'):
        retrieval_layer(_depth(layers), layers + 1, MEAN)


def test_a_row_says_that_the_layer_is_a_share() -> None:
    source = open_source('random:tiny')
    task = get_task('world_retrieval')
    deep = dataclasses.replace(source, config=FAMILIES['modernbert'].sizes['base'], note='')
    assert retrieval_note(Config(), deep, task) == 'Layer 13 of 22 (14/24 of the depth), mean pooling.'
    asked = Config(evaluation=Evaluation(retrieval_layer=13))
    assert retrieval_note(asked, deep, task) == 'Layer 13 of 22, mean pooling.'
    assert layer_note(SIZES['large'], -1, MEAN) == 'layer 14 of 24, mean pooling'
    assert layer_note(SIZES['base'], -1, CLS) == 'layer 12 of 12, cls pooling'
    assert layer_note(SIZES['large'], -1, E5) == 'layer 24 of 24, e5 pooling'


def test_prefixes() -> None:
    given = [SentenceExample('1', 'who?', 'a context'), SentenceExample('2', 'what?')]
    for pooling in (MEAN, CLS, LABSE):
        assert with_prefixes(given, pooling, answers=True) is given
    assert [each.text for each in with_prefixes(given, E5)] == ['query: who?', 'query: what?']
    answers = with_prefixes(given, E5, answers=True)
    assert [each.text for each in answers] == ['passage: who?', 'passage: what?']
    assert (answers[0].id, answers[0].context) == ('1', 'a context')


def test_vectors_by_convention() -> None:
    """Padded and packed, against the definition on the hidden states of each text alone."""
    model = Model(dataclasses.replace(SIZES['tiny'], vocab_size=101, hidden_size=24, num_layers=2))
    params = jax.device_get(model.init(jax.random.key(0), {}))
    random = np.random.default_rng(0)
    texts = [random.integers(5, 101, n).astype(np.int32) for n in (4, 7)]
    row, segments = np.concatenate(texts)[None], np.repeat([1, 2], [4, 7])[None].astype(np.int32)
    starts = jnp.asarray([[0, 4]])
    for pooling in (E5, LABSE):
        packed = model.embed(params, jnp.asarray(row), jnp.asarray(segments), starts, pooling=pooling)
        for i, text in enumerate(texts):
            ids = jnp.asarray(text[None])
            hidden = np.asarray(model.encode(params, ids, jnp.ones_like(ids)))[0]
            dense = params['pooler']['dense']
            want = hidden.mean(0) if pooling == E5 else np.tanh(hidden[0] @ dense['kernel'] + dense['bias'])
            want = want / np.linalg.norm(want)
            found = model.embed(params, ids, jnp.ones_like(ids), pooling=pooling)
            np.testing.assert_allclose(found[0], want, atol=1e-5)
            np.testing.assert_allclose(packed[0, i], want, atol=1e-5)
    with pytest.raises(ModelError, match='labse'):
        model.embed({'encoder': params['encoder']}, jnp.asarray(row), jnp.asarray(segments), pooling=LABSE)


@pytest.mark.parametrize(('pooling', 'expected'), [(E5, {'query: '}), (MEAN, {''})])
def test_both_sides_of_a_bitext_ask(
    pooling: str, expected: set[str], tiny_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = zero_shot.encode_cached

    def encode(task: Task, rows: Any, *rest: Any) -> Any:
        seen.extend(row.text for row in rows)
        return real(task, rows, *rest)

    monkeypatch.setattr(zero_shot, 'encode_cached', encode)
    source, mesh = open_source('random:tiny'), make_mesh()
    evaluation = Evaluation(max_examples=4, pooling=pooling)
    tokenizer = Tokenizer(tiny_tokenizer, source.config.vocab_size)
    evaluator = Evaluator(Model(source.config), put_tree(source.load(), mesh), tokenizer, mesh, evaluation, '', 64)
    evaluator.run(get_task('world_retrieval'), 'de', 'test', tmp_path)
    assert len(seen) == 8 and {text[: len('query: ')] if pooling == E5 else '' for text in seen} == expected
    assert not (pooling == MEAN and any(text.startswith('query: ') for text in seen))
