"""Retrieval by layer: each layer's accuracies are those of an evaluation with that layer, and those of all pairs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from simulated_devices import output_of

from xlmr_flax.config import Evaluation
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.eval import layer_retrieval as module
from xlmr_flax.eval.layer_retrieval import (
    LayerRetrieval,
    check_task,
    is_parallel,
    many_to_many,
    pair_accuracies,
)
from xlmr_flax.eval.predict import Forward, embed_layers
from xlmr_flax.eval.retrieval import nearest
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import make_mesh, put_tree
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import TaskError

CONFIG = EncoderConfig(
    vocab_size=2048, hidden_size=16, num_layers=2, num_heads=2, ffn_size=16, max_positions=66, initializer_range=0.5
)
WORLD = get_task('world_retrieval')


@pytest.fixture(scope='module')
def evaluator(tiny_tokenizer: Path) -> Evaluator:
    model, mesh = Model(CONFIG, 'hf'), make_mesh()
    params = put_tree(jax.device_get(model.init(jax.random.key(0), {})), mesh)
    wanted = Evaluation(max_examples=30, max_length=64)
    return Evaluator(model, params, Tokenizer(tiny_tokenizer, 2048), mesh, wanted, '', 64)


@pytest.mark.parametrize(('pooling', 'packing'), [('mean', True), ('mean', False), ('cls', True), ('e5', False)])
def test_a_layer_scores_what_an_evaluation_with_it_scores(
    evaluator: Evaluator, tmp_path: Path, pooling: str, packing: bool
) -> None:
    wanted = dataclasses.replace(evaluator.evaluation, pooling=pooling, packing=packing)
    mine = dataclasses.replace(evaluator, evaluation=wanted)
    ticks: list[tuple[int, int]] = []
    layers = LayerRetrieval(mine, WORLD, 'test')
    found = {code: layers.language(code, lambda *at: ticks.append(at)) for code in ('de', 'sw')}
    assert ticks[-1] == (30, 30), 'the English side is embedded once'
    assert (60, 60) in ticks
    for layer in range(CONFIG.num_layers + 1):
        one = dataclasses.replace(mine, evaluation=dataclasses.replace(wanted, retrieval_layer=layer), _english={})
        for code, each in found.items():
            scores, n = one.run(WORLD, code, 'test', tmp_path)
            assert scores == {'accuracy': each.accuracy[layer], 'accuracy_to_en': each.to_english[layer]}
            assert each.vectors.shape == (CONFIG.num_layers + 1, n, CONFIG.hidden_size)
    assert len({tuple(each.accuracy) for each in found.values()}) > 1
    assert len(set(found['de'].accuracy)) > 1, 'layers differ'


@pytest.mark.parametrize('similarities', [1, 4 * 7 * 7, 1 << 24])
def test_all_pairs_score_as_each_pair_alone(similarities: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many languages share a block."""
    monkeypatch.setattr(module, '_SIMILARITIES', similarities)
    random, rows = np.random.default_rng(0), 7
    common = random.normal(size=(rows, 5))
    sets = [(common + random.normal(size=(rows, 5)) * scale).astype(np.float32) for scale in (0.1, 0.5, 0.9, 2, 4)]
    ticks: list[int] = []
    found = pair_accuracies(sets.__getitem__, 5, rows, ticks.append)
    assert sum(ticks) == 5 * 4
    want = np.asarray([[100 * np.mean(nearest(a, b) == np.arange(rows)) for b in sets] for a in sets])
    np.fill_diagonal(want, np.nan)
    np.testing.assert_allclose(found, want)
    assert len(np.unique(found[~np.isnan(found)])) > 3


def test_the_mean_of_a_language_has_both_directions_and_not_itself() -> None:
    table = np.asarray([[np.nan, 10, 20], [30, np.nan, 40], [50, 60, np.nan]])
    assert many_to_many(table) == [27.5, 35.0, 42.5]
    assert np.mean(many_to_many(table)) == pytest.approx(np.nanmean(table)), 'the mean over ordered pairs'


def test_equal_vectors_are_found_in_the_first_row_alone() -> None:
    same = np.ones((3, 2), np.float32)
    assert pair_accuracies([same, same].__getitem__, 2, 3, lambda _: None)[0, 1] == pytest.approx(100 / 3)


def test_parallel_sets_share_their_english_side() -> None:
    shared = ['world_retrieval', 'sib200_retrieval', 'flores200', 'ntrex']
    assert [name for name in (*shared, 'tatoeba') if is_parallel(get_task(name), 'test')] == shared


@pytest.mark.parametrize(
    ('name', 'split', 'said'),
    [
        ('xnli', 'test', "is of kind 'pair'"),
        ('bucc2018', 'test', 'gold pairs by id'),
        ('tatoeba', 'tset', "no split 'tset'"),
    ],
)
def test_other_tasks_are_refused(name: str, split: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        check_task(get_task(name), split)


def test_files_that_do_not_pair_their_rows_are_refused(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpaired(*args: object) -> tuple[list, list]:
        sides = read(*args)  # type: ignore[arg-type]
        return tuple([dataclasses.replace(each, paired=False) for each in side] for side in sides)  # type: ignore[return-value]

    read = module.read_pairs
    monkeypatch.setattr(module, 'read_pairs', unpaired)
    with pytest.raises(DataError, match='do not say which lines'):
        LayerRetrieval(evaluator, WORLD, 'test').language('de')


def _vectors(devices: int) -> np.ndarray:
    """The vectors of 23 rows on a number of devices; half of them share the parameters."""
    assert jax.device_count() == devices
    random, model = np.random.default_rng(0), Model(CONFIG, 'hf')
    mesh = make_mesh(-1, max(1, devices // 2))
    params = put_tree(jax.device_get(model.init(jax.random.key(0), {})), mesh)
    tokens = Ragged.from_rows([random.integers(5, 2000, n) for n in random.integers(2, 17, 23)])
    return embed_layers(Forward(model, params, mesh, (8, 16), 64, 1), tokens, pooling='mean')


def test_four_devices_embed_what_one_does() -> None:
    np.testing.assert_allclose(json.loads(output_of(__file__, devices=4)), _vectors(1), rtol=0, atol=1e-5)


if __name__ == '__main__':
    print(json.dumps(_vectors(4).tolist()))
