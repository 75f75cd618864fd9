"""Cost of a compiled program on a GPU: a roofline for each operation, since XLA's text has no cycles for a GPU.

An operation takes the longest of: its bytes at the bandwidth of the memory, its matrix products at peak FLOP/s, its
elementwise operations at the rate of the float32 lanes. So the sum is a lower bound: nothing is slower than its
roofline, and nothing waits. Kernels of this package say their operations in their metadata. Collectives are counted
separately, as on a TPU (cost.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from xlmr_flax.parallel.chips import Chip
from xlmr_flax.tools.estimate import traffic
from xlmr_flax.tools.estimate.cost import COLLECTIVES, NOT_COSTED, Operation, ProgramCost, program_cost
from xlmr_flax.tools.estimate.describe import KERNEL, MATMUL, described, direction, kind_of_operation
from xlmr_flax.tools.estimate.hlo import Instruction, Module

# XLA writes the quotes of a kernel's metadata as \22.
_WORK = re.compile(r'(flops|vector_ops)(?:\\22|[^\w{}])+(\d+)')


def gpu_cost(module: Module, chip: Chip) -> ProgramCost:
    """Cost of a compiled program on one GPU; the cycles are seconds times the clock."""
    return program_cost(module, chip, _operation)


def _operation(
    module: Module, instruction: Instruction, times: int, operands: Sequence[Instruction], chip: Chip
) -> Operation | None:
    codes = {i.opcode for i in module.within(instruction)}
    if instruction.opcode in NOT_COSTED or any(code.startswith(COLLECTIVES) for code in codes):
        return None
    target = traffic.target(instruction)
    moved = traffic.bytes_moved(module, instruction, operands)
    flops = traffic.product_flops(module, instruction, operands)
    elements = traffic.element_operations(module, instruction)
    if work := {k: float(v) for k, v in _WORK.findall(instruction.rest)} if target else {}:
        flops, elements = work.get('flops', 0.0), work.get('vector_ops', 0.0)
    # Sums and vectors are float32 beside bfloat16 matrices, too.
    is_wide = not any('bf16[' in shape for shape in (instruction.shape, *(o.shape for o in operands)))
    seconds = max(
        moved / chip.hbm_speed,
        flops / (chip.flops32 if is_wide else chip.flops),
        elements / (chip.vector * chip.clock),
    )
    source, part, path = described(module, instruction)
    kind = kind_of_operation(codes)
    if target:
        kind = MATMUL if 'cublas' in target else KERNEL
    name = re.search(r'\bname = "(\w+)"', instruction.rest) if target else None
    return Operation(
        f'{name[1]}.{instruction.name.rpartition(".")[2]}' if name else instruction.name,
        kind,
        direction(path),
        part,
        source,
        path,
        instruction.shape,
        seconds * chip.clock * times,
        times,
        False,
        moved * times,
        target,
    )
