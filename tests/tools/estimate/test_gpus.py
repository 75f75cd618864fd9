"""GPUs: their names and descriptions, and the roofline of a program that XLA compiled for one."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from xlmr_flax.config import MeshSpec
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.chips import GPUS
from xlmr_flax.tools.estimate import EstimateError, gpus
from xlmr_flax.tools.estimate.chips import CHIPS, Topology, parse_topology
from xlmr_flax.tools.estimate.gpu_cost import gpu_cost
from xlmr_flax.tools.estimate.gpus import gpu_devices, has_cuda, target
from xlmr_flax.tools.estimate.hlo import parse
from xlmr_flax.tools.estimate.programs import EVALUATE, TRAIN, Compiled, Memory, Program, compile_program, mesh_on
from xlmr_flax.tools.estimate.report import compiled_dict, method, program_text, programs_table

TEXT = (Path(__file__).parent / 'gpu.txt').read_text(encoding='utf-8')
H100 = GPUS['h100']
needs_cuda = pytest.mark.skipif(not has_cuda(), reason="no CUDA plugin (pip install -e '.[estimate-gpu]')")


def test_topologies() -> None:
    assert [parse_topology(f'{name}:{n}').chips for name, n in (('h100', 1), ('A100', 8))] == [1, 8]
    assert parse_topology('h100:8').name == 'h100:8'


@pytest.mark.parametrize('text', ['h100', 'h100:0', 'h100:9', 'h100:2x4', 'a100:x'])
def test_topologies_that_do_not_exist(text: str) -> None:
    with pytest.raises(EstimateError, match=r'a number of GPUs from 1 to 8, as in [ha]100:8'):
        parse_topology(text)
    with pytest.raises(EstimateError, match=r"unknown chip 'h10'.*did you mean 'h100'"):
        parse_topology('h10:1')


def test_published_peaks_agree() -> None:
    """Two operations a lane and cycle are the float32 peak of the data sheet, to a per cent."""
    for gpu in (chip for chip in CHIPS.values() if chip.is_gpu):
        assert 2 * gpu.vector * gpu.clock == pytest.approx(gpu.flops32, rel=0.01)
        assert f'core_count: {gpu.vector // (128 if gpu is H100 else 64)}\n' in target(gpu)


def test_without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, 'has_cuda', lambda: False)
    with pytest.raises(EstimateError, match=r"not installed.*pip install -e '\.\[estimate-gpu\]'"):
        gpu_devices(Topology(H100, (1,)))


def test_rooflines() -> None:
    """A fusion reads the slice and writes the update alone; products and kernels are counted by what they multiply."""
    cost = gpu_cost(parse(TEXT), H100)
    found = {o.name: o for o in cost.operations}
    layer, word = 64 * 32 * 2, 4
    assert found['read'].times == 4 and found['read'].moved == 4 * (2 * layer + word)
    assert found['write'].moved == 4 * (2 * layer + word) and found['write'].direction == 'backward'
    assert found['product'].kind == 'matrix products'
    assert found['product'].moved == layer + 32 * 16 * 2 + 64 * 16 * 2

    def seconds(name: str) -> float:
        return found[name].cycles / H100.clock

    assert seconds('product') == pytest.approx(found['product'].moved / H100.hbm_speed)
    assert seconds('attention.4') == pytest.approx(7e6 / H100.flops)
    assert seconds('attention_shares.6') == pytest.approx(7e6 / H100.flops), 'products of bfloat16, sums in float32'
    assert (found['attention.4'].kind, found['attention.4'].direction) == ('kernels', 'forward')
    assert found['call.2'].kind == 'matrix products' and found['fmha.3'].kind == 'kernels'
    assert cost.calls() == {'__cublas$lt$matmul': 1, '__cudnn$fmhaScaleBiasSoftmax': 1, '__gpu$xla.gpu.triton': 2}
    assert [(c.kind, c.group) for c in cost.collectives] == [('all-reduce', 8)]
    assert cost.moved == sum(o.moved for o in cost.operations)


def test_reports() -> None:
    topology = parse_topology('h100:8')
    memory = Memory(1e9, 2e9, 0.0, 3e9, 0.0, 6e9, H100.hbm)
    program = Program(TRAIN, Model(SIZES['tiny']), HeadSpec('pair', 3), 8, 32)
    found = Compiled(program, topology, {'data': 8}, memory, gpu_cost(parse(TEXT), H100), '', 1.0)
    text = program_text(found)
    assert 'bytes moved:' in text and '2 x __gpu$xla.gpu.triton' in text and 'nan' not in text
    assert 'costed by a roofline' not in text
    assert programs_table([found]).count('h100:8') == 1
    numbers = compiled_dict(found)
    assert numbers['cost']['bytes_moved'] == found.cost.moved > 0  # type: ignore[union-attr]
    assert numbers['cost']['custom_calls']['__cublas$lt$matmul'] == 1 and 'libtpu' not in numbers
    assert method([topology]).count('How to read it') == 1
    assert method([topology, parse_topology('v5e:2x2')]).count('How to read it') == 2


@pytest.mark.slow
@needs_cuda
@pytest.mark.parametrize('name', ['h100:1', 'h100:8', 'a100:8'])
def test_tiny_programs_compile(name: str) -> None:
    topology = parse_topology(name)
    mesh = mesh_on(topology, MeshSpec(1, -1, 1))
    model = Model(SIZES['tiny'], dtype='bfloat16')
    for does in (TRAIN, EVALUATE):
        found = compile_program(Program(does, model, HeadSpec('pair', 3), 16, 32), topology, mesh)
        assert found.cost is not None and found.memory.fits and found.cost.loops_unknown == 0
        assert 0 < found.ideal < found.seconds <= found.slowest and found.cost.moved > 0
        assert bool(found.cost.collectives) == (topology.chips > 1)
        kernel = '__gpu$xla.gpu.triton' if does == TRAIN else '__cudnn$fmhaScaleBiasSoftmax'
        assert found.cost.calls()[kernel] == (6 if does == TRAIN else 2)
    assert len(jax.devices()) >= 1  # the process still has its own devices
