"""Twenty steps with a preset's batches: eight devices on the mesh that is chosen for them give the losses and the
parameters of one, also where they merge micro-batches."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from one_head import single
from simulated_devices import output_of

from xlmr_flax.config import parse
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.packing import Packing
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.encoders.config import SIZES, EncoderConfig
from xlmr_flax.experiment.plan.load import Load
from xlmr_flax.experiment.plan.mesh_cost import choose
from xlmr_flax.experiment.studies.preset_values import PRESETS
from xlmr_flax.experiment.studies.presets import preset
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.machine import TPU, Machine
from xlmr_flax.parallel.mesh import fetch, make_mesh, path_name
from xlmr_flax.train.loop import train
from xlmr_flax.train.phase import Phase
from xlmr_flax.train.streams import Stream, TrainingData

STEPS, LENGTH, WORDS, HEAD = 20, 32, 128, HeadSpec('pair', 3)
CONFIG = EncoderConfig(
    vocab_size=WORDS, hidden_size=32, num_layers=2, num_heads=8, ffn_size=64, max_positions=LENGTH + 2,
    initializer_range=0.1, dropout=0.1, attention_dropout=0.1,
)  # fmt: skip
# As in test_mesh_steps.py: parameters move a thousand times further than they may differ.
RATE: dict[str, Any] = {'learning_rate': 2e-3, 'epsilon': 1e-5, 'warmup': 0.1, 'warmup_steps': -1}


def chosen(name: str) -> tuple[int, int, int]:
    """The mesh of eight TPUs for XLM-R Large with the batches of a preset, whose pairs have an eighth of max_length."""
    recipe = parse(preset(name, ('xnli',))).recipe_for('xnli')
    draws = np.full((4, recipe.batch_size, 1), recipe.max_length // 8)
    packing = Packing(recipe.max_length, recipe.max_length / 8)
    apart = recipe.optimizer.clip_per == 'micro_batch'
    load = Load('xnli', 1.0, recipe.accumulation, apart, packing, draws, recipe.max_length)
    sizes = choose(SIZES['large'], [load], Machine(TPU, 'TPU v5e', 8))
    return sizes.data, sizes.fsdp, sizes.model


def outcome(name: str, sizes: tuple[int, int, int], parts: int) -> dict[str, Any]:
    """{'losses', 'moved', 'rows', 'params': {path: values}} of a training with a preset's recipe on a mesh.

    parts: micro-batches. rows: of the steps' batches.
    """
    recipe = parse(preset(name, ('xnli',))).recipe_for('xnli')
    spec = dataclasses.replace(recipe.optimizer, **RATE)
    recipe = dataclasses.replace(
        recipe, steps=STEPS, max_length=LENGTH, lengths=(LENGTH,), log_every=1, eval_every=0, optimizer=spec,
        accumulation=parts,
    )  # fmt: skip
    mesh, random = make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)]), np.random.default_rng(0)
    tokens = Ragged.from_rows([random.integers(5, WORDS, random.integers(3, 7)) for _ in range(200)])
    label = random.integers(0, 3, 200).astype(np.int32)
    data = Encoded('pair', tokens, label, tuple(map(str, range(200))))
    apart, shards = spec.clip_per == 'micro_batch', sizes[0] * sizes[1]
    packing = Packing(LENGTH, 5.0, shards * (1 if apart else parts), parts if apart else 1)
    made = single('nli', 'nli', HEAD, data, (LENGTH,), 0)
    streams: tuple[Stream, ...] = tuple(dataclasses.replace(each, packing=packing) for each in made.streams)
    params = jax.device_get(jax.jit(lambda: Model(CONFIG).init(jax.random.key(0), {'nli': HEAD}))())
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        phase = Phase(
            task='nli', model=Model(CONFIG), recipe=recipe, data=TrainingData(streams, made.mixture), steps=STEPS,
            seed=7, pad=1, mesh=mesh, directory=Path(folder) / 'x', run_hash='h', evaluate=None, log=records.append,
        )  # fmt: skip
        host = fetch(train(phase, params).params, mesh)
    moved = max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (host, params)), strict=True))
    leaves = {path_name(p): leaf.tolist() for p, leaf in jax.tree_util.tree_leaves_with_path(host)}
    rows = sorted({streams[0].plan(step, recipe.batch_size).rows for step in range(STEPS)})
    losses = [r['loss'] for r in records if 'loss' in r]
    return {'losses': losses, 'moved': float(moved), 'rows': rows, 'params': leaves}


def in_a_child(name: str, *runs: tuple[tuple[int, int, int], int]) -> list[dict[str, Any]]:
    """Outcomes for these meshes and numbers of micro-batches, of one process with eight devices."""
    return json.loads(output_of(__file__, name, json.dumps(runs)).splitlines()[-1])


def check(found: dict[str, Any], one: dict[str, Any]) -> None:
    assert len(one['losses']) == STEPS and one['moved'] > 1e-2
    np.testing.assert_allclose(found['losses'], one['losses'], rtol=1e-5, atol=0)
    assert found['params'].keys() == one['params'].keys()
    for path, values in one['params'].items():
        np.testing.assert_allclose(found['params'][path], values, rtol=0, atol=1e-5, err_msg=path)


@pytest.mark.parametrize(
    'name', [name if name == 'jiant' else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS]
)
def test_eight_devices_equal_one(name: str) -> None:
    sizes = chosen(name)
    assert math.prod(sizes) == 8
    parts = parse(preset(name, ('xnli',))).recipe_for('xnli').accumulation
    one, eight = in_a_child(name, ((1, 1, 1), parts), (sizes, parts))
    check(eight, one)


@pytest.mark.slow
def test_merged_micro_batches_equal_those_of_one_device() -> None:
    """Four micro-batches on one device, one and two on eight; the numbers of empty rows differ."""
    one, *others = in_a_child('xtreme', ((1, 1, 1), 4), ((2, 2, 2), 1), ((8, 1, 1), 2))
    for found in others:
        check(found, one)
    assert one['rows'] != others[-1]['rows']


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[2]))
    print(json.dumps([outcome(sys.argv[1], tuple(sizes), parts) for sizes, parts in json.loads(sys.argv[2])]))
