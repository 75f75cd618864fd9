"""What the compiled training step holds on a device: its own rows, and of others what a lookup exchanges; and kernels
that each device carries out on its part."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from simulated_devices import output_of

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.encoders.attention import cpu as attention_cpu
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.logical_axes import UNCONSTRAINED
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import AXES, MeshError, batch_sharding, make_mesh, put_batch, put_tree, shardings
from xlmr_flax.parallel.placement import Placement, placed
from xlmr_flax.train import step
from xlmr_flax.train.optimizer import Optimizer

MESHES = ('1x8x1', '2x4x1', '2x2x2')
KERNEL_MESHES = ('2x2x2',)  # rows, and heads, on several devices
ROWS, LENGTH, WIDTH = 40, 24, 32  # rows that no other dimension has, nor rows of 4 or 8 devices
CONFIG = EncoderConfig(
    vocab_size=512, hidden_size=WIDTH, num_layers=2, num_heads=4, ffn_size=64, max_positions=LENGTH + 2
)


def lowered_step(sizes: str, *, accumulation: int = 1) -> str:
    """The compiled text of the program that training runs, on a mesh of that many devices an axis."""
    mesh, head, optimizer = make_mesh(*map(int, sizes.split('x'))), HeadSpec('tag', 5), Optimizer(OptimizerSpec(), 10)
    state = step.state_shapes(Model(CONFIG).shapes({'x': head}), optimizer)
    state = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state, shardings(state, mesh)
    )
    shapes = dict.fromkeys(('ids', 'segments', 'labels'), ((ROWS, LENGTH), jnp.int32))
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))
        for name, (shape, dtype) in (shapes | {'valid': ((ROWS,), jnp.float32)}).items()
    }
    program = step.step_program(Model(CONFIG), head, optimizer, mesh, accumulation)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return program.lower(*step.split_state(state, 'x'), batch, key, None).compile().as_text()


def kernel_gradients(sizes: str, attention: str) -> list[float]:
    """The loss of a model with dropout and sums over its gradients, weighted by place, of rows on a mesh."""
    mesh, head, random = make_mesh(*map(int, sizes.split('x'))), HeadSpec('pair', 3), np.random.default_rng(0)
    config = dataclasses.replace(CONFIG, num_layers=1, initializer_range=0.3)
    model = placed(Model(config, attention=attention, remat='dots'), mesh)
    ids = random.integers(5, 512, (8, 16)).astype(np.int32)
    segments = (np.arange(16) < random.integers(3, 17, (8, 1))).astype(np.int32)
    batch = put_batch({'ids': ids, 'segments': segments}, mesh)

    def loss(params: Params) -> jax.Array:
        logits = model.logits(params, 'x', head, batch['ids'], batch['segments'], jax.random.key(3))
        return jnp.square(logits).sum()

    def summary(params: Params) -> list[jax.Array]:
        value, gradients = jax.value_and_grad(loss)(params)
        flat = [jnp.ravel(g) for g in jax.tree.leaves(gradients)]
        return [value, *(jnp.vdot(g, jnp.cos(jnp.arange(g.size))) for g in flat)]

    params = put_tree(jax.device_get(Model(config).init(jax.random.key(0), {'x': head})), mesh)
    return [float(x) for x in jax.jit(summary)(params)]


def whole_batch(text: str) -> list[str]:
    """Shapes of arrays of numbers in a device's program that begin with all rows, or all tokens, of the batch and are
    larger than a lookup's share: a device's columns for the tokens of all rows."""
    found = set()
    for kind, dims in re.findall(r'\b(f32|bf16|f64|pred|s32|u32)\[([\d,]+)\]', text):
        sizes = [int(n) for n in dims.split(',')]
        if sizes[0] in (ROWS, ROWS * LENGTH) and math.prod(sizes) > ROWS * LENGTH * WIDTH // 4:
            found.add(f'{kind}[{dims}]')
    return sorted(found)


@pytest.fixture(scope='module')
def eight() -> dict[str, list[Any]]:
    """The shapes by mesh, and without constraints, and the kernels' outcomes, from one process with eight devices."""
    return json.loads(output_of(__file__))


@pytest.mark.slow
@pytest.mark.parametrize('mesh', MESHES)
def test_no_device_holds_the_whole_batch(mesh: str, eight: dict[str, list[Any]]) -> None:
    assert eight[mesh] == []


@pytest.mark.slow
def test_without_constraints_the_compiler_gathers_the_batch(eight: dict[str, list[Any]]) -> None:
    """So the test above can fail."""
    assert eight['free']


@pytest.mark.slow
@pytest.mark.parametrize('formulation', ['kernels', 'blocks'])
@pytest.mark.parametrize('mesh', KERNEL_MESHES)
def test_kernels_on_parts_give_what_one_device_gives(mesh: str, formulation: str, eight: dict[str, list[Any]]) -> None:
    """Loss and gradients, dropout's masks included, of the interpreted kernels and of a CPU's blocks on eight devices
    and of plain products on one."""
    want = kernel_gradients('1x1x1', 'xla_cpu')
    assert np.median(np.abs(want)) > 0.1
    np.testing.assert_allclose(eight[f'{formulation} {mesh}'], want, rtol=1e-3, atol=1e-3)


def test_one_device_has_a_program_without_constraints() -> None:
    model, mesh = Model(CONFIG), make_mesh(devices=jax.devices()[:1])
    assert placed(model, mesh).place is UNCONSTRAINED


def test_heads_that_a_mesh_cannot_cut() -> None:
    place = Placement(AbstractMesh((1, 1, 2), AXES))  # type: ignore[arg-type]
    run = place.mapped(lambda a, b: a, (('heads',), ('heads',)), ('heads',))
    with pytest.raises(MeshError, match='heads has other shards in another operand'):
        run(np.zeros(6), np.zeros(3))


def test_names_of_dimensions() -> None:
    place = Placement(make_mesh(devices=jax.devices()[:1]))
    assert hash(place) == hash(Placement(place.mesh)) and place == Placement(place.mesh)
    assert tuple(place.spec((4, 6), ('rows', None))) == (None, None)  # one device: nothing to cut
    with pytest.raises(MeshError, match=r"dimensions \('row', None\) of an array of shape \(4, 6\): expected one of"):
        place.spec((4, 6), ('row', None))
    with pytest.raises(MeshError, match='expected one of'):
        place.spec((4, 6), ('rows',))


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[2]))
    outcome: dict[str, list[Any]] = {sizes: whole_batch(lowered_step(sizes)) for sizes in MESHES}
    outcome |= {f'kernels {sizes}': kernel_gradients(sizes, 'interpret') for sizes in KERNEL_MESHES}
    attention_cpu._NO_LOOP, attention_cpu.MOST_SCORES = 0, 16 * 16  # a head a block
    outcome |= {f'blocks {sizes}': kernel_gradients(sizes, 'xla_cpu') for sizes in KERNEL_MESHES}
    step.placed = lambda model, mesh: model  # type: ignore[assignment]
    step.step_program.cache_clear()
    print(json.dumps(outcome | {'free': whole_batch(lowered_step('1x8x1'))}))
