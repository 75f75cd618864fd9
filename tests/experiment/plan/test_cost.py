"""Estimates against what is really computed: XLA's count of operations, real batches, real encoded rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_flax.config import Config
from xlmr_flax.data.batches import row_lengths
from xlmr_flax.data.packing import Packing
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import SIZES, EncoderConfig
from xlmr_flax.experiment.dry_run import _short
from xlmr_flax.experiment.plan import cost
from xlmr_flax.experiment.plan.cost import (
    Estimator,
    count_rows,
    forward_flops,
    layer_weights,
    machine_speed,
    reached_speed,
)
from xlmr_flax.experiment.plan.reads import TEST, Read
from xlmr_flax.experiment.plan.runs import Run, make_plan, resolve
from xlmr_flax.kinds import encode, encode_cached, head_spec
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import open_source
from xlmr_flax.tasks import get_task
from xlmr_flax.train.streams import Stream

Configs = Callable[..., Config]


def estimator(config: Config, shape: EncoderConfig = SIZES['tiny']) -> Estimator:
    source = open_source('random:tiny')
    return Estimator(resolve(make_plan(config), source), shape, Tokenizer(source.tokenizer, source.config.vocab_size))


def runs(config: Config) -> dict[str, Run]:
    return {run.name.rsplit('--', 1)[0]: run for run in resolve(make_plan(config), open_source('random:tiny'))}


def test_weights_of_known_encoders() -> None:
    """BERT-Base's and BERT-Large's layers (85 M and 302 M), which XLM-R's are."""
    assert layer_weights(SIZES['base']) == 84_934_656
    assert layer_weights(SIZES['large']) == 301_989_888


@pytest.mark.parametrize('length', [32, 256])
def test_operations_are_those_that_xla_counts(length: int) -> None:
    shape = EncoderConfig(vocab_size=64, hidden_size=256, num_layers=3, num_heads=4, ffn_size=1024)
    # XLA counts what a loop does once, and what is computed twice twice.
    model, ids = Model(shape, remat='none', unroll=0), jnp.ones((4, length), jnp.int32)
    params = jax.eval_shape(lambda key: model.init(key, {}), jax.random.key(0))

    def loss(params: Any) -> jax.Array:
        return jnp.sum(model.encode(params, ids, ids))

    counted = jax.jit(loss).lower(params).cost_analysis()['flops']
    estimated = forward_flops(shape, 4 * length, length)
    assert 1.0 < counted / estimated < 1.1, 'norms, gelu and softmax are a few per cent'
    backwards = jax.jit(jax.grad(loss)).lower(params).cost_analysis()['flops']
    assert 0.95 < backwards / (3 * estimated) < 1.1


@pytest.mark.parametrize('name', ['world_pairs', 'world_nli', 'world_spans', 'world_choices', 'world_ner'])
def test_rows_are_those_that_are_read(name: str, config_of: Configs) -> None:
    task, tokenizer = get_task(name), estimator(config_of()).tokenizer
    examples = read_split(task, 'en', 'dev')
    data = encode(task, examples, tokenizer, 64)
    found = estimator(config_of()).sizes(Read(Split(task, 'en', 'dev'), TEST, 64))
    assert (found.examples, found.group, found.basis) == (len(examples), data.group, 'first rows')
    assert found.units == pytest.approx(len(data), rel=0.1)
    assert found.lengths.mean() == pytest.approx(data.tokens.lengths.mean(), rel=0.1)
    assert estimator(config_of()).sizes(Read(Split(task, 'en', 'dev'), TEST, 64, 40)).examples == 40


def test_both_sides_of_a_retrieval_task_count(config_of: Configs, monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(get_task('world_retrieval'), 'de', 'test')
    sides, read = split.read_pairs(), Read(split, TEST, 64, 16)
    assert count_rows(split) == len(sides[0]) + len(sides[1])
    assert estimator(config_of()).sizes(read).examples == 32
    monkeypatch.setattr(cost, '_LARGE', 10)
    found = estimator(config_of()).sizes(read)
    assert (found.basis, len(found.lengths)) == ('max_length', 0)
    bound = estimator(config_of()).evaluation(runs(config_of())['none--world_retrieval'], 'de')
    assert bound.tokens == 32 * 64


def test_the_token_cache_is_used_where_it_is(
    config_of: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'data' / 'xtreme' / 'pawsx' / 'x-final' / 'en'
    folder.mkdir(parents=True)
    rows = [f'{i}\tthe cat {"sleeps " * (i % 9)}\ta dog {i}\t{i % 2}\n' for i in range(300)]
    (folder / 'train.tsv').write_text('id\tsentence1\tsentence2\tlabel\n' + ''.join(rows))
    monkeypatch.setenv('XLMR_CACHE', str(tmp_path / 'cache'))
    config = config_of(data_root=str(tmp_path / 'data'))
    mine, task = estimator(config), get_task('pawsx')
    rows_64, rows_32 = (Read(Split(task, 'en', 'train', config.data_root), TEST, length) for length in (64, 32))
    assert mine.sizes(rows_64).basis == 'first rows'
    data = encode_cached(task, read_split(task, 'en', 'train', config.data_root), mine.tokenizer, 64)
    found = estimator(config).sizes(rows_64)
    assert (found.basis, found.examples, found.units) == ('token cache', 300, 300)
    np.testing.assert_array_equal(found.lengths, data.tokens.lengths)
    assert estimator(config).sizes(rows_32).basis == 'first rows', 'of another length'
    (entry,) = (tmp_path / 'cache').iterdir()
    for name, contents in (('offsets.npy', [b'', b'x' * 99]), ('index.json', [b'[]', b'{}', b'\xff', b'[' * 9999])):
        before = (entry / name).read_bytes()
        for content in contents:
            (entry / name).write_bytes(content)
            assert estimator(config).sizes(rows_64).basis == 'first rows', (name, content[:9])
        (entry / name).write_bytes(before)


@pytest.mark.parametrize('packing', [False, True])
def test_a_training_costs_what_its_batches_have(packing: bool, config_of: Configs) -> None:
    config = config_of(
        recipe__steps=0,
        recipe__epochs=2.0,
        recipe__lengths=(16, 24),
        recipe__max_length=32,
        recipe__packing=packing,
    )
    run, mine = runs(config)['world_nli--intermediate'], estimator(config)
    assert run.recipe
    found, task = mine.training(run), get_task('world_nli')
    data = encode(task, read_split(task, 'en', 'train', limit=64), mine.tokenizer, 32)
    assert found.steps == 2 * 64 // 8
    lengths = row_lengths(32, (16, 24))
    layout = Packing.of(data.tokens.lengths[:, None], lengths) if packing else None
    stream = Stream('x', 'x', head_spec(task), data, lengths, 1, None, layout)
    real = [stream.plan(step, 8).batch(0)['ids'].shape for step in range(found.steps)]
    tokens = sum(rows * length for rows, length in real)
    assert found.work.tokens == pytest.approx(tokens, rel=0.1)
    flops = 3 * sum(forward_flops(mine.shape, rows * length, length) for rows, length in real)
    assert found.work.flops == pytest.approx(flops, rel=0.1)
    assert mine.training(run) is found, 'seeds share it'


@pytest.fixture(scope='module')
def one_dev(config_of: Configs) -> float:
    """Tokens of the one dev evaluation that a training has by default."""
    one = config_of(recipe__steps=6)
    return estimator(one).training(runs(one)['none--world_pairs']).dev.tokens


@pytest.mark.parametrize(('every', 'times'), [(0, 1), (2, 3), (4, 2), (5, 2), (6, 1)])
def test_dev_evaluations_are_counted(every: int, times: int, config_of: Configs, one_dev: float) -> None:
    many = config_of(recipe__steps=6, recipe__eval_every=every)
    assert estimator(many).training(runs(many)['none--world_pairs']).dev.tokens == times * one_dev > 0


def test_recomputed_layers_cost_a_forward_pass_more(config_of: Configs) -> None:
    plain, remat = config_of(), config_of(encoder__remat='full')
    name = 'none--world_pairs'
    work = [estimator(each).training(runs(each)[name]).work.flops for each in (plain, remat)]
    assert work[1] == pytest.approx(work[0] * 4 / 3)


def test_a_language_models_head_counts(config_of: Configs, tmp_path: Path) -> None:
    """Its table has 250 002 rows: at a width of 64 it costs far more than the layers."""
    folder = tmp_path / 'raw_text' / 'mlm'
    folder.mkdir(parents=True)
    (folder / 'en.txt').write_text(''.join(f'line {i} of a text\n' for i in range(100)))
    config = config_of(
        intermediate=('lm',), targets=('world_pairs',), evaluation__languages={}, data_root=str(tmp_path),
        arms={'lm': {'tasks': {'mlm_text': {}}}},
    )  # fmt: skip
    run = runs(config)['lm--intermediate']
    small, large = (estimator(config, EncoderConfig(n, 64, 2, 4, 128, 130)).training(run).work for n in (2048, 250_002))
    assert small.tokens == large.tokens
    assert large.flops > 5 * small.flops


def test_the_speed_of_earlier_runs(config_of: Configs) -> None:
    def said(run: str, *speeds: float) -> list[dict[str, Any]]:
        return [{'run': run, 'step': i, 'examples_per_s': speed} for i, speed in enumerate(speeds)]

    records = [*said('a', 1, 100, 120, 110), *said('b', 30), {'run': 'a', 'dev_metric': 3.0}, *said('other', 9, 9)]
    flops = {'a': 1e6, 'b': 2e6}
    found = reached_speed(records, lambda run: flops.get(run, 0.0), '2 × CPU')
    assert found and found.flops == pytest.approx((110e6 + 60e6) / 2)
    assert found.basis == 'as in 2 trainings of this workdir (2 × CPU)'
    assert reached_speed(said('other', 9, 9), lambda run: 0.0, '') is None


def test_the_speed_of_this_machine() -> None:
    one = machine_speed('float32', jax.devices()[:1], seconds=0.05, size=128)
    assert 1e6 < one.flops < 1e15
    assert '40% of what float32 matrix products reached here just now' in one.basis


@pytest.mark.parametrize(
    ('number', 'text'),
    [(0, '0'), (7, '7'), (999, '999'), (1234, '1.2k'), (45_600, '46k'), (3.14e15, '3.1P'), (2e21, '2000E')],
)
def test_short_numbers(number: float, text: str) -> None:
    assert _short(number) == text
