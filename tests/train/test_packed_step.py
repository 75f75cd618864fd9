"""Training on packed rows is training on padded ones: losses, gradients and parameters, for every kind of head."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_head import make_train_step, single
from simulated_devices import output_of

from xlmr_flax.config import OptimizerSpec, Recipe
from xlmr_flax.data.encode import NO_LABELS, Encoded
from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.masking import Masking
from xlmr_flax.data.mixture import Mixture, fixed_quotas
from xlmr_flax.data.packing import Packing
from xlmr_flax.data.spans import SpanRows
from xlmr_flax.data.tagging import TagRows
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.kinds import KINDS, HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import batch_devices, fetch, make_mesh, put_batch, put_tree
from xlmr_flax.train.compilations import compilations
from xlmr_flax.train.head_padding import ProgramHead
from xlmr_flax.train.loop import train
from xlmr_flax.train.mixed import gradient_program
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.phase import Phase
from xlmr_flax.train.step import init_state
from xlmr_flax.train.streams import Stream, TrainingData

LENGTH, SIZE, PAD = 32, 8, 1
SPEC = OptimizerSpec(learning_rate=1e-2, epsilon=1e-2, warmup=0.0, clip_norm=0.3, weight_decay=0.1)
HEADS = {
    'pair': HeadSpec('pair', 3),
    'choice': HeadSpec('choice'),
    'span': HeadSpec('span'),
    'tag': HeadSpec('tag', 5),
    'mlm': HeadSpec('mlm'),
}


def rows_of(kind: str, n: int = 30, vocab: int = 1300) -> Encoded:
    """Rows of 4 to 32 tokens, most of them short."""
    random = np.random.default_rng(3)
    group = 3 if kind == 'choice' else 1
    sizes = np.clip(random.lognormal(2.3, 0.5, n * group), 4, LENGTH).astype(int)
    tokens = Ragged.from_rows([random.integers(5, vocab, size) for size in sizes])
    label = random.integers(0, 3, n).astype(np.int32)
    label = label if kind in ('pair', 'choice') else NO_LABELS
    data = Encoded(kind, tokens, label, tuple(map(str, range(n))), group)
    if kind == 'tag':
        labels = np.where(random.random(len(tokens.flat)) < 0.4, IGNORED, random.integers(0, 5, len(tokens.flat)))
        slots = Ragged(np.ones_like(tokens.flat), tokens.offsets)
        tags = TagRows(tokens, slots, Ragged(labels.astype(np.int32), tokens.offsets), np.arange(n))
        data = dataclasses.replace(data, tags=tags)
    if kind == 'span':
        start, end = (random.integers(0, tokens.lengths).astype(np.int32) for _ in range(2))
        zeros = np.zeros(n, np.int32)
        data = dataclasses.replace(data, spans=SpanRows(tokens, np.arange(n), start, end, zeros, zeros, zeros, ()))
    return data


def stream_of(kind: str, packed: bool, **more: Any) -> Stream:
    data = rows_of(kind)
    masking = Masking(4, (0, 1, 2, 3, 4), 1300, 0.3) if kind == 'mlm' else None
    packing = Packing.of(data.tokens.lengths.reshape(-1, data.group), (LENGTH,), **more) if packed else None
    return Stream(kind, 'x', HEADS[kind], data, (16, LENGTH), 7, masking, packing)


def assert_close(a: Any, b: Any, rtol: float = 1e-5) -> None:
    """Within so much of the largest of each array; of one that is 0 but for rounding, of a hundredth of the largest."""
    least = 0.01 * max(float(np.abs(y).max()) for y in jax.tree.leaves(b))

    def one(x: Any, y: Any) -> None:
        # 1e-7: terms of size 1 that cancel (the choice head's bias moves nothing) leave what float32 rounds them by.
        np.testing.assert_allclose(x, y, rtol=0, atol=max(rtol * max(np.abs(y).max(), least), 1e-7))

    jax.tree.map(one, a, b)


PACKED = [
    *((kind, 'jiant') for kind in HEADS),
    *((kind, style) for kind in ('pair', 'choice') for style in ('hf', 'mean')),
]


@pytest.mark.parametrize(('kind', 'style'), PACKED)
def test_losses_and_gradients_are_those_of_padded_rows(kind: str, style: str, tiny_of: Callable[..., Any]) -> None:
    tiny = tiny_of(kind, HEADS[kind].outputs, style)
    params = {**tiny.params, 'heads': {'head': tiny.params['heads']['x']}}
    program, key = gradient_program(tiny.model, tiny.head), jax.random.key(0)
    found = []
    for packed in (True, False):
        drawn = stream_of(kind, packed).plan(1, SIZE)
        batch = {name: jnp.asarray(value) for name, value in drawn.batch(PAD).items()}
        assert (drawn.rows < SIZE) == packed
        # Without dropout the key decides nothing: the rates are 0.
        grads, loss, right = program(params, batch, key, None)
        found.append((jax.device_get(grads), float(loss), float(right), float(KINDS[tiny.head.kind].count(batch))))
    (grads, *values), (want, *wanted) = found
    assert values == pytest.approx(wanted, rel=1e-5) and wanted[0] > 0
    assert_close(grads, want)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(want)) > 1e-3


@pytest.mark.parametrize('clip_per', ['step', 'micro_batch'])
def test_five_steps_lead_to_the_same_parameters(clip_per: str, tiny: Any) -> None:
    """With accumulation; where clipping looks at each micro-batch, each keeps its examples."""
    spec = dataclasses.replace(SPEC, clip_per=clip_per)
    more = {'parts': 2} if clip_per == 'micro_batch' else {'multiple': 2}
    found = []
    for stream in (stream_of('pair', True, **more), stream_of('pair', False)):
        found.append(tiny.steps([stream.plan(draw, SIZE).batch(PAD) for draw in range(5)], spec, accumulation=2))
    (params, metrics), (want, wanted) = found
    assert_close(params, want)
    for a, b in zip(metrics, wanted, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def phase_of(tiny: Any, folder: Path, streams: list[Stream], steps: int, log: Any) -> Phase:
    recipe = Recipe(steps=steps, batch_size=SIZE, max_length=LENGTH, log_every=1, optimizer=SPEC)
    data = single('toy', 'x', tiny.head, streams[0].data, (LENGTH,), 7)
    if len(streams) > 1:
        mixture = Mixture(tuple(s.name for s in streams), fixed_quotas(np.ones(len(streams)), 12), 5)
        data = TrainingData(tuple(streams), mixture)
    else:
        data = dataclasses.replace(data, streams=tuple(streams))
    return Phase(
        task='toy', model=tiny.model, recipe=recipe, data=data, steps=steps, seed=7, pad=PAD, mesh=make_mesh(),
        directory=folder, run_hash='h', evaluate=None, log=log,
    )  # fmt: skip


def test_few_programs_are_compiled_and_the_padding_is_logged(tiny_of: Callable[..., Any], tmp_path: Path) -> None:
    tiny, steps, records = tiny_of(hidden_size=8), 16, []
    stream = stream_of('pair', True)
    assert stream.packing
    before = compilations.count
    trained = train(phase_of(tiny, tmp_path, [stream], steps, records.append), tiny.params)
    shapes = {stream.plan(step, SIZE).rows for step in range(steps)}
    assert shapes <= set(stream.packing.counts(SIZE)) and len(shapes) > 1
    assert trained.programs == compilations.count - before == len(shapes) <= len(stream.packing.counts(SIZE))
    logged = [record['packing_efficiency'] for record in records]
    assert logged == pytest.approx([stream.plan(step, SIZE).efficiency for step in range(steps)])
    padded = [stream_of('pair', False).plan(step, SIZE).efficiency for step in range(steps)]
    assert np.mean(logged) > 1.3 * np.mean(padded)


# Run by this file as a program.
def losses(sizes: tuple[int, int, int]) -> list[list[float]]:
    """Three steps with dropout on packed rows: what they report, and a checksum of the parameters."""
    config = EncoderConfig(
        vocab_size=1300, hidden_size=16, num_layers=1, num_heads=2, ffn_size=24, max_positions=34, initializer_range=0.2
    )
    model, head, mesh = Model(config), HEADS['pair'], make_mesh(*sizes)
    optimizer = Optimizer(SPEC, 3)
    params = jax.device_get(model.init(jax.random.key(0), {'x': head}))
    state = init_state(put_tree(params, mesh), optimizer, mesh)
    step = make_train_step(model, 'x', ProgramHead(head), optimizer, mesh=mesh)
    stream, found = stream_of('pair', True, multiple=batch_devices(mesh)), []
    for draw in range(3):
        state, metrics = step(state, put_batch(stream.plan(draw, 32).batch(PAD), mesh), jax.random.key(1))
        found.append([float(metrics[k]) for k in ('loss', 'grad_norm', 'accuracy')])
    leaves = jax.tree.leaves(fetch(state['params'], mesh))
    return [*found, [float(sum(np.abs(leaf).sum() for leaf in leaves))]]


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one() -> None:
    """With dropout: more devices add empty rows at the end and move no example."""
    eight, one = json.loads(output_of(__file__)), losses((1, 1, 1))
    for found in eight:
        np.testing.assert_allclose(np.concatenate(found), np.concatenate(one), rtol=1e-5)
    assert abs(one[2][0] - one[0][0]) > 1e-3


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[2]))
    print(json.dumps([losses(sizes) for sizes in ((8, 1, 1), (2, 2, 2))]))
