"""Programs: their operations, their batches, and (with libtpu) what the compiler for TPUs makes of them."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import pytest

from xlmr_flax.config import MeshSpec
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.chips import GIB
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.tools.estimate import EstimateError
from xlmr_flax.tools.estimate.chips import has_libtpu, parse_topology
from xlmr_flax.tools.estimate.programs import (
    EMBED,
    EVALUATE,
    TRAIN,
    Program,
    batch_shapes,
    compile_program,
    mesh_on,
    too_large,
)
from xlmr_flax.tools.estimate.report import columns, compiled_dict, number, program_text
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.step import split_state, state_shapes, step_program

TINY = Model(SIZES['tiny'], dtype='bfloat16')
KINDS = {'pair': 3, 'choice': 1, 'span': 1, 'tag': 5, 'mlm': 1}
needs_libtpu = pytest.mark.skipif(not has_libtpu(), reason="libtpu is not installed (pip install -e '.[tpu]')")


def train_program(kind: str, **changes: object) -> Program:
    choices, predicted = (2, 0) if kind == 'choice' else (1, 8 if kind == 'mlm' else 0)
    program = Program(TRAIN, TINY, HeadSpec(kind, KINDS[kind]), 8, 32, choices=choices, predicted=predicted)
    return dataclasses.replace(program, **changes)  # type: ignore[arg-type]


def test_operations_of_a_model() -> None:
    """XLM-R Large, rows of 128: 236.8 GFLOP an example in training (24 D^2 L + 4 T D L a token, three passes)."""
    large = Model(SIZES['large'])
    train = Program(TRAIN, large, HeadSpec('pair', 3), 1, 128)
    assert train.flops == pytest.approx(3 * 128 * 24 * (24 * 1024**2 + 4 * 128 * 1024))
    assert Program(EVALUATE, large, HeadSpec('pair', 3), 1, 128).flops == train.flops / 3
    assert Program(EMBED, large, HeadSpec('pair'), 1, 128, layer=12).flops == pytest.approx(train.flops / 6)
    mlm = Program(TRAIN, large, HeadSpec('mlm'), 1, 128, predicted=20)
    assert mlm.flops - train.flops == 3 * 2 * 20 * 1024 * (1024 + 250002)
    assert dataclasses.replace(train, choices=4).flops == 4 * train.flops


@pytest.mark.parametrize('slots', [0, 4])
@pytest.mark.parametrize('kind', KINDS)
def test_batches_are_those_that_the_step_takes(kind: str, slots: int) -> None:
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    program = train_program(kind, slots=slots)
    optimizer = Optimizer(program.optimizer, 10)
    state = state_shapes(TINY.shapes({'x': program.head}), optimizer)
    shared, mine = split_state(state, 'x')
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = step_program(TINY, program.head, optimizer, mesh, 1)
    after, _, metrics = jax.eval_shape(step, shared, mine, batch_shapes(program, mesh), key, None)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, shared)
    assert {name: x.shape for name, x in metrics.items()} == {'loss': (), 'accuracy': (), 'grad_norm': ()}


def test_numbers_and_columns() -> None:
    assert [number(x) for x in (0.0, 0.012345, 1.2345, 12.345, 123.45, 12345.6, math.nan)] == [
        '0.00',
        '0.0123',
        '1.23',
        '12.3',
        '123',
        '12,346',
        '-',
    ]
    assert columns([['a', 'n'], ['bcd', '12']], [1]) == 'a     n\n---  --\nbcd  12'


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize('kind', KINDS)
def test_tiny_steps_compile(kind: str) -> None:
    topology = parse_topology('v5e:2x2')
    mesh = mesh_on(topology, MeshSpec(1, -1, 1))
    found = compile_program(train_program(kind, accumulation=2), topology, mesh)
    assert found.cost is not None and found.memory.fits and not found.error
    assert found.cost.loops_unknown == 0
    assert {o.times for o in found.cost.operations} >= {1, 2, 4}  # once, a micro-batch, a layer of a micro-batch
    assert 0 < found.ideal < found.seconds < found.slowest
    ideal, seconds = found.unmarked
    assert 0 < ideal < found.ideal and ideal < seconds < found.seconds
    assert found.cost.marked_cycles < 0.1 * found.cost.cycles + sum(
        o.cycles for o in found.cost.operations if o.kind == 'kernels'
    )
    with pytest.raises(EstimateError, match='batch_size must be a multiple of 8'):
        compile_program(train_program(kind, accumulation=2, rows=12), topology, mesh)


@pytest.mark.slow
@needs_libtpu
def test_forward_passes_compile() -> None:
    topology = parse_topology('v5p:2x2x1')
    mesh = mesh_on(topology, MeshSpec(-1, 1, 1))
    pair = compile_program(Program(EVALUATE, TINY, HeadSpec('pair', 3), 8, 32), topology, mesh)
    half = compile_program(Program(EMBED, TINY, HeadSpec('pair'), 8, 32, layer=1), topology, mesh)
    assert pair.cost and half.cost and half.cost.cycles < pair.cost.cycles
    assert pair.memory.optimizer == 0 and pair.mesh['data'] == 4


@pytest.mark.slow
@needs_libtpu
def test_large_on_eight_chips() -> None:
    """XLM-R Large: memory, operations, source lines, and a step that is too large for the chip."""
    topology = parse_topology('v5e:2x4')
    mesh = mesh_on(topology, MeshSpec(1, -1, 1))
    model = Model(SIZES['large'], dtype='bfloat16')
    program = Program(TRAIN, model, HeadSpec('pair', 3), 8 * 8, 128)
    found = compile_program(program, topology, mesh)
    assert found.cost is not None and found.memory.fits and found.cost.loops_unknown == 0
    cut, whole = 24 * (12 * 1024**2) + 250002 * 1024, 2 * 1024**2  # by eight; pooler and head, on every chip
    assert found.memory.parameters == pytest.approx(4 * (cut / 8 + whole), rel=0.01)
    assert found.memory.optimizer == pytest.approx(2 * found.memory.parameters, rel=0.01)
    assert 0.3 < found.ideal / found.seconds < 1  # the optimizer of the whole word table is a third of so small a step
    kernels = {o.name.split('.')[0]: o.times for o in found.cost.operations if o.kind == 'kernels'}
    assert kernels == dict.fromkeys(
        ('attention', 'attention_gradients', 'sum_and_norm', 'sum_and_norm_gradients'), 24
    ), 'a kernel is not carried out again in the backward pass'
    assert any(o.times == 24 for o in found.cost.operations)
    assert any(o.source.startswith('encoders/') for o in found.cost.largest(5))
    assert found.cost.collectives and found.cost.sent > 0
    text = program_text(found)
    assert 'train pair 64 × 128 on v5e:2x4: 8 chips' in text and 'matrix products' in text
    json.dumps(compiled_dict(found))

    larger = compile_program(dataclasses.replace(program, rows=8 * 256, length=512), topology, mesh)
    assert larger.cost is None and not larger.memory.fits and math.isnan(larger.seconds)
    assert larger.memory.peak > 16 * GIB and 'memory' in larger.error
    assert 'Does not fit.' in program_text(larger)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    ('slice', 'rows', 'length', 'unroll'),
    [('v5e:2x4', 8, 512, 1), ('v5e:2x4', 32, 128, 1), ('v4:2x2x2', 8, 512, 0), ('v6e:2x4', 8, 512, 0)],
)
def test_large_is_at_least_45_percent_of_ideal(slice: str, rows: int, length: int, unroll: int) -> None:
    """With the word rows that a run's data use, cut over eight chips (docs/estimate.md)."""
    topology = parse_topology(slice)
    model = Model(dataclasses.replace(SIZES['large'], vocab_size=16384), dtype='bfloat16', unroll=unroll)
    program = Program(TRAIN, model, HeadSpec('pair', 3), 8 * rows, length)
    found = compile_program(program, topology, mesh_on(topology, MeshSpec(1, -1, 1)))
    assert found.memory.fits and 0.45 <= found.ideal / found.seconds < 1


@pytest.mark.parametrize(
    ('message', 'gib'),
    [
        ('the total memory required for HLO temporaries (30.38G) exceeds available HBM (15.75G).', 30.38),
        ('the total memory required for HLO temporaries (1.04T) exceeds available HBM (15.75G).', 1.04 * 1024),
        ('Ran out of memory in memory space hbm. Used 512.0M of 15.75G hbm. Exceeded hbm capacity by 1M.', 0.5),
        ('Ran out of memory.', math.nan),
    ],
)
def test_what_the_compiler_says_of_a_program_that_is_too_large(message: str, gib: float) -> None:
    memory = too_large(f'RESOURCE_EXHAUSTED: {message}', (1.0 * GIB, 2.0 * GIB), parse_topology('v5e:2x2'))
    assert memory.temporary / GIB == pytest.approx(gib, nan_ok=True)
    assert memory.peak / GIB == pytest.approx(3 + gib, nan_ok=True) and memory.hbm == 16 * GIB
