"""Work of an operation on a GPU, for which XLA gives no cycles: bytes moved, and operations of its products.

The bytes are those that a program must read and write if nothing stays in a cache, as XLA's own HloCostAnalysis counts
them: of an operand that a fusion only slices, the slices; of an array that is updated in place, the update alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from xlmr_flax.tools.estimate.hlo import Computation, Instruction, Module

_SLICES = ('dynamic-slice', 'slice', 'gather')
_SAME = ('bitcast', 'reshape', 'get-tuple-element')
_ELEMENTWISE_FREE = frozenset(
    {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'reshape', 'broadcast', 'iota', 'copy', 'slice'}
    | {'transpose', 'dynamic-slice', 'dynamic-update-slice', 'gather', 'dot', 'fusion', 'concatenate', 'pad'}
)
_ARRAY = re.compile(r'\b[a-z]\w*\[([\d,]*)\]')
# Products of attention over scores, by cuDNN's target: two forward, five backward (Dao et al. 2022).
_CUDNN = {'__cudnn$fmhaScaleBiasSoftmax': 2, '__cudnn$fmhaScaleBiasSoftmaxBackward': 5}


def target(instruction: Instruction) -> str:
    """Target of a custom call, '' for any other instruction."""
    found = (
        re.search(r'custom_call_target="([^"]*)"', instruction.rest) if instruction.opcode == 'custom-call' else None
    )
    return found[1] if found else ''


def bytes_moved(module: Module, instruction: Instruction, operands: Sequence[Instruction]) -> float:
    """Bytes that an instruction reads and writes, at least, in the memory of the device."""
    unique = list({o.name: o for o in operands}.values())
    body = module.computations.get(instruction.attribute('calls')) if instruction.opcode == 'fusion' else None
    if body is None:
        scope = {o.name: o for o in unique} | {instruction.name: instruction}
        sliced = instruction.opcode in _SLICES
        read = instruction.bytes if sliced else sum(o.bytes for o in unique)
        if instruction.opcode == 'dynamic-update-slice':
            read = _written(scope, instruction)
        return read + _written(scope, instruction)
    parameters = {int(i.literal): i for i in body.values() if i.opcode == 'parameter' and i.literal.isdigit()}
    read = 0.0
    for name in dict.fromkeys(instruction.operands):
        places = [n for n, operand in enumerate(instruction.operands) if operand == name and n in parameters]
        read += max((_read(body, parameters[n]) for n in places), default=0.0)
    root = module.root(instruction.attribute('calls'))
    results = [body[name] for name in root.operands if name in body] if root.opcode == 'tuple' else [root]
    return read + sum(_written(body, result) for result in results)


def _read(body: Computation, value: Instruction) -> float:
    """Bytes of a fusion's operand that it reads: those of its slices, if it only slices it."""
    total = 0.0
    for user in (i for i in body.values() if value.name in i.operands):
        if user.opcode in _SLICES and user.operands[0] == value.name:
            total += user.bytes
        elif user.opcode == 'dynamic-update-slice' and user.operands[0] == value.name:
            continue
        elif user.opcode in _SAME:
            total += _read(body, user)
        else:
            return value.bytes
    return min(total, value.bytes)


def _written(body: Computation, value: Instruction) -> float:
    """Bytes of a result that are written: those of the update, if the array is updated in place."""
    while value.opcode in _SAME and value.operands and value.operands[0] in body:
        value = body[value.operands[0]]
    if value.opcode == 'dynamic-update-slice' and len(value.operands) > 1 and value.operands[1] in body:
        return body[value.operands[1]].bytes
    return value.bytes


def product_flops(module: Module, instruction: Instruction, operands: Sequence[Instruction]) -> float:
    """FLOP of the matrix products of an instruction: dots (also in fusions), cuBLAS and cuDNN calls."""
    if count := _CUDNN.get(target(instruction)):
        heads = _sizes(operands[0].shape)  # [B, T, H, K] in the layout of `operand_layout_constraints`
        found = re.search(r'operand_layout_constraints=\{\w+\[([\d,]+)\]', instruction.rest)
        b, t, h, k = _numbers(found[1]) if found else heads
        return 2.0 * count * b * h * t * t * k
    if target(instruction).startswith('__cublas') and len(operands) > 1:
        dims = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.rest)
        result = max(_every_size(instruction.shape), key=math.prod)
        over = [int(n) for n in re.findall(r'\d+', dims[1])] if dims else [len(_sizes(operands[0].shape)) - 1]
        return 2.0 * math.prod(result) * math.prod(_sizes(operands[0].shape)[n] for n in over)
    return sum(_dot(scope, i) for scope, i in _inner(module, instruction) if i.opcode == 'dot')


def _dot(scope: Computation, dot: Instruction) -> float:
    found = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', dot.rest)
    left = scope.get(dot.operands[0]) if dot.operands else None
    if found is None or left is None:
        return 0.0
    sizes = _sizes(left.shape)
    return 2.0 * math.prod(_sizes(dot.shape)) * math.prod(sizes[n] for n in _numbers(found[1]))


def element_operations(module: Module, instruction: Instruction) -> float:
    """Elementwise operations of a fusion: each of its instructions once for every element of its result."""
    return sum(math.prod(_sizes(i.shape)) for _, i in _inner(module, instruction) if i.opcode not in _ELEMENTWISE_FREE)


def _inner(module: Module, instruction: Instruction) -> Iterator[tuple[Computation, Instruction]]:
    """Yields the instructions of a fusion, recursively, each with its computation."""
    body = module.computations.get(instruction.attribute('calls')) if instruction.opcode == 'fusion' else None
    if body is None:
        yield {}, instruction
        return
    for inner in body.values():
        if inner.opcode == 'fusion' and inner.attribute('calls') in module.computations:
            yield from _inner(module, inner)
        else:
            yield body, inner


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(',') if n]


def _every_size(shape: str) -> list[list[int]]:
    return [_numbers(dims) for dims in _ARRAY.findall(shape)]


def _sizes(shape: str) -> list[int]:
    """Dimensions of the first array of a shape."""
    return next(iter(_every_size(shape)), [])
