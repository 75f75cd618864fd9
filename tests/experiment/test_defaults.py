"""What a config leaves open, by platform: pure functions, and the cost model of meshes against compiled programs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from xlmr_flax.config import Config, EncoderSpec, MeshSpec, OptimizerSpec, Recipe, parse
from xlmr_flax.data.packing import Packing
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.experiment.plan.defaults import Defaults, decide, dtype_of, remedy
from xlmr_flax.experiment.plan.load import Load
from xlmr_flax.experiment.plan.mesh_cost import MeshSizes, choose, merged_parts, meshes, step_bytes, step_seconds
from xlmr_flax.experiment.studies.preset_values import PRESETS
from xlmr_flax.experiment.studies.presets import preset
from xlmr_flax.parallel.machine import CPU, GPU, TPU, Machine

LARGE, TINY = SIZES['large'], SIZES['tiny']
V5E = Machine(TPU, 'TPU v5 lite', 8)
ONE = dataclasses.replace(V5E, devices=1)
HOST = Machine(CPU, 'cpu', 8)


def load(recipe: Recipe, mean: int = 43, steps: float = 10_000.0) -> Load:
    """Sentence pairs of some 43 tokens, as MNLI's, with a row in 16 that is as long as it may be."""
    random = np.random.default_rng(0)
    draws = np.clip(random.gamma(4.0, mean / 4, (16, recipe.batch_size, 1)).astype(int), 8, recipe.max_length)
    apart = recipe.optimizer.clip_per == 'micro_batch'
    packing = Packing(recipe.max_length, float(draws.mean()))
    return Load('xnli', steps, recipe.accumulation, apart, packing, draws, recipe.max_length)


def recipe_of(name: str) -> Recipe:
    return parse(preset(name, ('xnli',))).recipe_for('xnli')


JIANT, XTREME = load(recipe_of('jiant')), load(recipe_of('xtreme'))


def test_a_cpu_decides_nothing_and_reads_nothing() -> None:
    def loads() -> list[Load]:
        raise AssertionError('the data is read')

    for machine in (HOST, dataclasses.replace(HOST, devices=1)):
        found = decide(Config(targets=('xnli',)), TINY, machine, loads)
        assert (found.dtype, found.mesh, found.rows_only, found.tokens) == ('float32', MeshSpec(-1, 1, 1), False, 1024)
        assert found.unroll_of(10**9) == 1
        assert found.parts(TINY, Recipe(accumulation=4), [JIANT]) == 4


@pytest.mark.parametrize(
    ('machine', 'dtype'),
    [
        (HOST, 'float32'),
        (V5E, 'bfloat16'),
        (Machine(GPU, 'x', 1), 'bfloat16'),
        (Machine(GPU, 'x', 1, False), 'float32'),
    ],
)
def test_dtype(machine: Machine, dtype: str) -> None:
    assert dtype_of(EncoderSpec(), machine) == dtype
    assert dtype_of(EncoderSpec(dtype='float32'), machine) == 'float32'


@pytest.mark.parametrize(
    ('given', 'filled'),
    [
        ({'data': 1, 'fsdp': -1}, (1, -1, 1)),
        ({'fsdp': -1}, (1, -1, 1)),
        ({'model': 4}, (-1, 1, 4)),
        ({'data': -1}, (-1, 1, 1)),
        ({'fsdp': 2}, (-1, 2, 1)),
    ],
)
def test_a_given_mesh_is_taken(given: dict[str, int], filled: tuple[int, int, int]) -> None:
    found = decide(Config(mesh=MeshSpec(**given)), LARGE, V5E, lambda: [JIANT])
    assert found.mesh == MeshSpec(*filled) and not found.rows_only
    assert 8 % found.shards == 0


def test_the_decisions_in_one_line_and_for_other_processes() -> None:
    found = decide(Config(), LARGE, V5E, lambda: [JIANT])
    assert found.line().startswith('8 × TPU v5e: bfloat16, mesh data=1 fsdp=1 model=8, ') and '\n' not in found.line()
    assert found.rows_only and found.tokens == 8 * 8192
    assert Defaults.from_json(json.loads(json.dumps(found.as_json()))) == found
    timed = found.with_seconds(LARGE, {'a': [JIANT, XTREME], 'b': [XTREME], 'none': []})
    assert timed.seconds['a'] > timed.seconds['b'] > timed.seconds['none'] == 0.0 and not found.seconds
    assert Defaults.from_json(json.loads(json.dumps(timed.as_json()))) == timed
    assert found.unroll_of(found.unrolled_from) == 0 and found.unroll_of(found.unrolled_from - 1) == 1
    assert dataclasses.replace(found, unroll=2).unroll_of(10**9) == 2


def test_small_batches_are_not_cut_into_empty_rows() -> None:
    """jiant: micro-batches of four pairs fill a row, so that eight devices that share rows would compute padding."""
    assert JIANT.rows(1) == 8 and JIANT.rows(8) == 64
    assert JIANT.useful(1) > 0.5 and JIANT.useful(8) < 0.1
    assert choose(LARGE, [JIANT], V5E).shards == 1
    assert choose(LARGE, [XTREME], V5E).data == 1, 'the update of all parameters is not repeated on every device'
    big = load(Recipe(batch_size=2048))
    assert choose(TINY, [big], V5E).shards == 8


def test_a_state_that_fits_no_device_is_cut() -> None:
    huge = dataclasses.replace(LARGE, num_layers=96)
    assert step_bytes(huge, XTREME, MeshSizes(8, 1, 1)) > V5E.chip.hbm
    found = choose(huge, [XTREME], V5E)
    assert found.fsdp * found.model == 8


def test_meshes_divide_heads_and_fill_lanes() -> None:
    assert {s.model for s in meshes(LARGE, V5E)} == {1, 2, 4, 8}
    assert {s.model for s in meshes(SIZES['base'], V5E)} == {1, 2}, '12 heads of 64: three of them fill no lanes'
    assert {s.data for s in meshes(LARGE, dataclasses.replace(V5E, slices=2))} == {2, 4, 8}
    assert all(s.data * s.fsdp * s.model == 8 for s in meshes(LARGE, V5E))


# XLM-R Large, scanned, on v5e: rows of a step, estimated ms and ms of collectives (docs/estimate.md).
COMPILED = {
    'jiant': [((1, 1, 1), 255.9, 0.0), ((1, 8, 1), 94.2, 78.4), ((1, 1, 8), 54.4, 3.6)],
    'xtreme': [
        ((1, 1, 1), 63.7, 0.0),
        ((8, 1, 1), 44.9, 5.9),
        ((1, 8, 1), 12.3, 9.8),
        ((1, 4, 2), 11.2, 4.2),
        ((1, 1, 8), 14.5, 2.5),
    ],
}


@pytest.mark.parametrize('name', COMPILED)
def test_the_cost_model_follows_the_compiler(name: str) -> None:
    each = {'jiant': JIANT, 'xtreme': XTREME}[name]
    found, want = [], []
    for sizes, milliseconds, collectives in COMPILED[name]:
        machine = ONE if sizes == (1, 1, 1) else V5E
        found.append(1e3 * step_seconds(LARGE, each, MeshSizes(*sizes), machine))
        want.append(milliseconds + collectives)
    np.testing.assert_allclose(found, want, rtol=0.2)
    assert np.argmin(found) == np.argmin(want)


def test_micro_batches_that_exist_for_memory_alone_are_merged() -> None:
    recipe = Recipe(batch_size=64, accumulation=8, optimizer=OptimizerSpec(clip_per='step'))
    together = load(recipe)
    assert merged_parts(LARGE, together, MeshSizes(1, 1, 8), V5E) == 1
    small = dataclasses.replace(together, draws=np.full((2, 4096, 1), 100))
    parts = merged_parts(LARGE, small, MeshSizes(1, 8, 1), V5E)
    assert 1 < parts <= 8 and 8 % parts == 0
    assert step_bytes(LARGE, small, MeshSizes(1, 8, 1), parts) < V5E.chip.hbm
    assert merged_parts(LARGE, JIANT, MeshSizes(1, 1, 8), V5E) == 8, 'clipped after each'


def test_padding_is_said_with_what_mends_it() -> None:
    over_rows = decide(Config(mesh=MeshSpec(data=-1)), LARGE, V5E, lambda: [JIANT])
    assert 'mesh.model=8' in remedy(JIANT, over_rows)
    assert remedy(JIANT, decide(Config(), LARGE, V5E, lambda: [JIANT])) == ''
    padded = dataclasses.replace(JIANT, packing=None)
    assert 'recipe.packing=True' in remedy(padded, over_rows)


@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_is_better_than_rows_alone(name: str) -> None:
    each = load(recipe_of(name))
    best = choose(LARGE, [each], V5E)
    assert step_seconds(LARGE, each, best, V5E) < 0.5 * step_seconds(LARGE, each, MeshSizes(8, 1, 1), V5E)
