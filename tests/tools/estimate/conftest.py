"""Estimates without a compiler: programs whose cycles are known."""

from __future__ import annotations

from collections.abc import Callable

import jax
import pytest
from jax.sharding import Mesh

from xlmr_flax.config import MeshSpec
from xlmr_flax.parallel.chips import GIB
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.tools.estimate import EstimateError, plan, programs
from xlmr_flax.tools.estimate.chips import Topology
from xlmr_flax.tools.estimate.cost import Collective, Operation, ProgramCost
from xlmr_flax.tools.estimate.programs import Compiled, Memory, Program

CYCLES = 1000.0  # a token and chip
SENT = 2000.0  # bytes a step


def known_compile(program: Program, topology: Topology, mesh: Mesh) -> Compiled:
    """CYCLES a token; heads of tags cannot be cut; rows of more than 64 tokens do not fit."""
    if program.head.kind == 'tag':
        raise EstimateError(f'{program.name}: cannot be cut')
    memory = Memory(1.0 * GIB, 2.0 * GIB, 0.0, 3.0 * GIB, 0.5 * GIB, 6.5 * GIB, topology.chip.hbm)
    cycles = CYCLES * program.tokens
    where = ('Dense.__call__', 'encoders/encoder.py:29', 'a/dot', 'f32[2]{0}')
    operations = (
        Operation('fusion.1', 'matrix products', 'forward', *where, 0.75 * cycles, 24, False),
        Operation('kernel.2', 'kernels', 'forward', 'compiler', '', '', '(f32[2]{0})', 0.25 * cycles, 1, True),
    )
    cost = ProgramCost(operations, (Collective('all-reduce', 4, 3, SENT, SENT),), 0)
    error = 'Ran out of memory on HBM' if program.length > 64 else ''
    return Compiled(program, topology, dict(mesh.shape), memory, None if error else cost, error, 1.0, 'HloModule x')


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Program, Topology, Mesh], Compiled]:
    """`known_compile` in place of libtpu, on a mesh of one device."""

    def mesh_on(topology: Topology, spec: MeshSpec) -> Mesh:
        return make_mesh(1, 1, 1, devices=jax.devices()[:1])

    for module in (plan, programs):
        monkeypatch.setattr(module, 'mesh_on', mesh_on)
        monkeypatch.setattr(module, 'compile_program', known_compile)
    return known_compile
