"""What an operation of a compiled program is: its kind, its pass, and the part of the model that it comes from."""

from __future__ import annotations

from xlmr_flax.tools.estimate.hlo import Instruction, Module, Source

MATMUL, KERNEL, GATHER, STACK, REDUCE, ELEMENTWISE, COPY = (
    'matrix products',
    'kernels',
    'gather and scatter',
    'writes into stacks',
    'reductions',
    'elementwise',
    'copies and layouts',
)
_MOVES = frozenset(
    {'copy', 'transpose', 'bitcast', 'reshape', 'pad', 'concatenate', 'broadcast', 'slice', 'dynamic-slice'}
)
_PACKAGE = '/xlmr_flax/'


def kind_of_operation(codes: set[str]) -> str:
    """The kind of an operation. codes: the opcodes of its instructions."""
    if codes & {'convolution', 'dot'}:
        return MATMUL
    if codes & {'gather', 'scatter', 'sort'}:
        return GATHER
    if 'dynamic-update-slice' in codes:
        return STACK
    if codes & {'reduce', 'reduce-window'}:
        return REDUCE
    if codes - {'parameter', 'constant', 'tuple', 'get-tuple-element', 'convert', 'fusion', 'custom-call'} <= _MOVES:
        return COPY
    return ELEMENTWISE


def described(module: Module, instruction: Instruction) -> tuple[str, str, str]:
    """('file:line', function, path in the traced function) of an instruction, or of one in its fusion."""
    inner = list(module.within(instruction))
    frames = module.sources(instruction) or next((s for i in inner if (s := module.sources(i))), ())
    return *origin(frames), instruction.op_name or next((i.op_name for i in inner if i.op_name), '')


def direction(op_name: str) -> str:
    if 'rematted_computation' in op_name:
        return 'recomputed'
    if 'transpose(jvp' in op_name:
        return 'backward'
    if 'jvp' in op_name:
        return 'forward'
    return 'other' if op_name else 'compiler'


def origin(frames: tuple[Source, ...]) -> tuple[str, str]:
    """('file:line', function) of the innermost stack frame in this package, or of the innermost frame at all."""
    own = [f for f in frames if _PACKAGE in f.file]
    if not frames:
        return '', 'compiler'
    frame = (own or frames)[0]
    file = frame.file.rpartition(_PACKAGE)[2] if own else '/'.join(frame.file.split('/')[-2:])
    return f'{file}:{frame.line}', frame.function.replace('.<locals>', '')
