"""Cycles, loops, collectives and source lines, read from a shortened text of a compiled training step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.parallel.chips import TPUS
from xlmr_flax.tools.estimate import hlo
from xlmr_flax.tools.estimate.cost import ProgramCost, group_size, program_cost, to_dict, trip_count

TEXT = (Path(__file__).parent / 'compiled.txt').read_text(encoding='utf-8')
V5E = TPUS['v5e']


@pytest.fixture(scope='module')
def module() -> hlo.Module:
    return hlo.parse(TEXT)


@pytest.fixture(scope='module')
def cost(module: hlo.Module) -> ProgramCost:
    return program_cost(module, V5E)


@pytest.mark.parametrize(
    ('shape', 'size'),
    [
        ('f32[2,3]{1,0:T(8,128)}', 24),
        ('bf16[4096,192]{0,1:T(8,128)(2,1)S(1)}', 4096 * 192 * 2),
        ('(s32[]{:T(128)}, /*index=1*/pred[7]{0}, u32[2]{0:S(2)})', 4 + 7 + 8),
        ('f8e4m3fn[16]{0}', 16),
        ('token[]', 0),
    ],
)
def test_bytes_of_a_shape(shape: str, size: int) -> None:
    assert hlo.shape_bytes(shape) == size


def test_instructions(module: hlo.Module) -> None:
    assert module.entry == 'main.67_spmd'
    entry = module.computations[module.entry]
    loop = entry['while.7']
    assert loop.opcode == 'while' and loop.operands == ('tuple.254',) and loop.shape.startswith('(s32[]')
    assert loop.attribute('body') == 'wide.region_4.12_spmd.clone'
    assert entry['copy.390'].cycles == 3559 and entry['all-reduce.29'].cycles is None
    assert entry['constant.666'].literal == '0' and entry['bf.1'].literal == ''
    assert module.root(module.entry).name == 'multiply_add_fusion.3'
    body = module.computations['wide.region_4.12_spmd.clone']
    assert {i.opcode for i in module.within(body['fusion.531'])} == {'parameter', 'bitcast', 'convolution'}
    assert 'word' in entry['param.6'].op_name  # with escaped quotes


def test_source_lines(module: hlo.Module, cost: ProgramCost) -> None:
    body = module.computations['wide.region_4.12_spmd.clone']
    frames = module.sources(body['fusion.531'])
    assert [(f.file.rsplit('/', 1)[-1], f.line) for f in frames] == [
        ('encoder.py', 82),
        ('encoder.py', 160),
        ('step.py', 181),
        ('xlmr-flax', 8),
    ]
    by_name = {o.name: o for o in cost.operations}
    fusion = by_name['fusion.531']
    assert fusion.source == 'encoders/encoder.py:82' and fusion.part == 'Attention.__call__'
    assert by_name['multiply_add_fusion.3'].source == '_src/transform.py:312'  # nothing of the package on the stack
    assert by_name['multiply_add_fusion.3'].part == 'scale_by_adam.update_fn'
    assert by_name['copy.390'].part == 'compiler' and by_name['copy.390'].direction == 'compiler'


def test_frames_whose_parents_start_from_one() -> None:
    """Older texts: 0 stands for no parent, and a frame has its parent's own number."""
    shifted = TEXT.replace('parent_frame_id=1}', 'parent_frame_id=0}')
    for i in (2, 3, 4):
        shifted = shifted.replace(f'parent_frame_id={i}}}', f'parent_frame_id={i - 1}}}')
    assert hlo.parse(shifted).frames == hlo.parse(TEXT).frames


def test_cycles_of_loops_and_of_what_has_no_estimate(cost: ProgramCost) -> None:
    by_name = {o.name: o for o in cost.operations}
    assert by_name['fusion.531'].times == 24 and by_name['fusion.531'].cycles == 24 * 9988
    assert by_name['mykernel.1'].marked and by_name['mykernel.1'].kind == 'kernels'
    kernel = max(1.97e9 / 197e12, 6291456 / 819e9) * 1.5e9  # its CostEstimate: operations, bytes
    assert by_name['mykernel.1'].cycles == pytest.approx(kernel)
    assert by_name['kernel_without.1'].cycles == pytest.approx(2 * 2 * 8 * 32 * 128 * 2 / 819e9 * 1.5e9)
    gathered = 2 * 4096 * 16 * 4  # read and written; not the whole table
    assert by_name['gather_fusion'].cycles == pytest.approx(gathered / 819e9 * 1.5e9)
    estimated = 24 * (9988 + 14057) + 500 + 700 + 3559 + 10728
    assert cost.cycles - cost.marked_cycles == estimated
    assert cost.marked_cycles == pytest.approx(
        sum(by_name[n].cycles for n in ('mykernel.1', 'kernel_without.1', 'gather_fusion'))
    )
    assert not {'custom-call.9', 'copy-start', 'copy-done', 'while.7', 'fusion.532', 'all-reduce.29'} & set(by_name)


@pytest.mark.parametrize('chip', ['v5e', 'v4'])
def test_elementwise_operations_that_a_kernel_says_it_has(chip: str) -> None:
    """In its metadata, which the compiler writes over several lines; they come on top of its matrix products. A product
    of integers is one of them, or many where a chip has none."""
    work = '"vector_ops":"61440000000",\n"integer_products":"1000000000"'
    said = 'frontend_attributes={kernel_metadata={\n' + work + '\n}}, metadata={op_name="jit(step)/mykernel'
    text = TEXT.replace('metadata={op_name="jit(step)/mykernel', said)
    assert text != TEXT
    found = {o.name: o for o in program_cost(hlo.parse(text), TPUS[chip]).operations}
    lanes = 8 * 128 * 4 * (2 if chip == 'v4' else 1)  # of a chip: a v4 has two cores
    more = 23 * 1000000000 if chip == 'v4' else 0
    products = 1.97e9 / TPUS[chip].flops * TPUS[chip].clock
    assert found['mykernel.1'].cycles == pytest.approx(products + (61440000000 + more) / lanes)
    assert {o.name for o in program_cost(hlo.parse(TEXT), TPUS[chip]).operations} == set(found)


def test_groups(cost: ProgramCost) -> None:
    kinds = cost.by('kind')
    assert kinds['matrix products',] == 24 * 9988
    assert kinds['writes into stacks',] == 24 * 14057
    assert kinds['copies and layouts',] == 3559
    assert kinds['elementwise',] == 500 + 700 + 10728
    assert list(kinds.values()) == sorted(kinds.values(), reverse=True)
    parts = cost.by('part', 'direction')
    assert parts['Encoder.__call__', 'forward'] == 24 * 14057
    assert parts['Attention.__call__', 'backward'] == 500 + 700
    assert cost.largest(1)[0].name == 'fusion.555'


def test_collectives(cost: ProgramCost) -> None:
    """One that is carried out in pieces counts once, that of a loop 24 times; a sliced all-reduce is a scatter."""
    found = {c.kind: c for c in cost.collectives}
    assert set(found) == {'reduce-scatter', 'all-gather', 'all-reduce', 'collective-permute'}
    scatter, gather, reduce = found['reduce-scatter'], found['all-gather'], found['all-reduce']
    permute = found['collective-permute']
    assert (scatter.count, scatter.group, scatter.bytes) == (24, 4, 24 * 4096 * 192 * 2)
    assert scatter.sent == scatter.bytes * 3 / 4
    assert (gather.count, gather.group, gather.bytes) == (1, 4, 4096 * 64 * 2)
    assert (reduce.count, reduce.group, reduce.bytes, reduce.sent) == (1, 4, 4096, 2 * 4096 * 3 / 4)
    assert (permute.count, permute.bytes, permute.sent) == (1, 140 * 8 * 2, 140 * 8 * 2)
    assert cost.sent == sum(c.sent for c in cost.collectives)


def test_the_payload_of_a_collective_that_is_started() -> None:
    """Its shape has operand, result and flags."""
    old = next(line for line in TEXT.splitlines() if 'collective-permute-start(' in line)
    new = (
        '  %all-gather-start.1 = (f32[8]{0}, f32[64]{0}, u32[]{:S(2)}) all-gather-start(%bf.2), channel_id=77, '
        'replica_groups=[1,8]<=[8], dimensions={0}'
    )
    found = program_cost(hlo.parse(TEXT.replace(old, new)), V5E)
    assert [c.bytes for c in found.collectives if c.group == 8] == [64 * 4]


def test_every_branch_of_a_conditional_counts() -> None:
    old = next(line for line in TEXT.splitlines() if 'copy.390 =' in line)
    new = (
        '  %copy.390 = f32[4096,16]{1,0} conditional(%constant.666, %bf.1, %bf.2), '
        'branch_computations={%all-reduce-scatter.1.clone.1, %wide.region_4.12_spmd.clone}, metadata={op_name="a/%b"}'
    )
    by_name = program_cost(hlo.parse(TEXT.replace(old, new)), V5E).by('name')
    assert by_name['fusion.531',] == 25 * 9988
    assert ('copy.390',) not in by_name


@pytest.mark.parametrize(
    ('rest', 'size'),
    [
        ('replica_groups={{0,1,2,3},{4,5,6,7}}', 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=3,'axis_2'=5] {'axis_0','axis_2'}", 10),
        ('replica_groups=[8,16]<=[128]', 16),
        ('source_target_pairs={{0,1}}', 0),
    ],
)
def test_group_sizes(rest: str, size: int) -> None:
    assert group_size(f', channel_id=1, {rest}, dimensions={{0}}') == size


def test_trip_counts() -> None:
    def loop_of(text: str) -> int | None:
        module = hlo.parse(text)
        entry = module.computations[module.entry]
        return trip_count(module, entry['while.7'], entry)

    assert loop_of(TEXT) == 24
    by_five = TEXT.replace('constant.467 = s32[]{:T(128)} constant(1)', 'constant.467 = s32[]{:T(128)} constant(5)')
    assert loop_of(by_five) == 5
    later = TEXT.replace('constant.666 = s32[]{:T(128)} constant(0)', 'constant.666 = s32[]{:T(128)} constant(4)')
    assert loop_of(later) == 20
    assert loop_of(TEXT.replace('constant(24)', 'constant(-24)')) is None
    known = TEXT.replace(
        'metadata={op_name="jit(step)/jvp()/while" stack_frame_id=3}', 'backend_config={"known_trip_count":{"n":"7"}}'
    )
    assert loop_of(known) == 7
    unknown = TEXT.replace('direction=LT', 'direction=NE')
    assert loop_of(unknown) is None
    found = program_cost(hlo.parse(unknown), V5E)
    assert found.loops_unknown == 1 and found.by('kind')['matrix products',] == 9988


def test_the_clock_of_the_chip_decides_marked_cycles_alone() -> None:
    module = hlo.parse(TEXT)
    first, second = program_cost(module, V5E), program_cost(module, TPUS['v5p'])
    assert first.cycles - first.marked_cycles == second.cycles - second.marked_cycles
    assert first.marked_cycles != second.marked_cycles


def test_json(cost: ProgramCost) -> None:
    found = json.loads(json.dumps(to_dict(cost, 2)))
    assert len(found['largest']) == 2 and found['largest'][0]['name'] == 'fusion.555'
    assert found['by_kind']['matrix products'] == 24 * 9988


def test_not_a_program() -> None:
    with pytest.raises(ValueError, match='no ENTRY computation'):
        hlo.parse('module @jit_step {\n}\n')
