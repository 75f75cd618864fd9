"""Parses the HLO text of a program that XLA has compiled for a TPU or a GPU.

It reads the computations with their instructions in the order of the schedule (OpenXLA's HLO text, hlo_parser.cc), the
cost model's `estimated_cycles` in an instruction's backend_config, the trip counts of loops, and the tables of stack
frames after the header, which give an instruction's source line (older texts have source_file= and source_line= in the
metadata).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

_BYTES = {
    'pred': 1, 's4': 0.5, 'u4': 0.5, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4,
    'f32': 4, 's64': 8, 'u64': 8, 'f64': 8, 'c64': 8,
}  # fmt: skip
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_NAME = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = ')
_OPCODE = re.compile(r' ?([a-z][\w\-]*)\(')
_ONE_LINE = re.compile(r'kernel_metadata=\{\n[^}]*\}')  # the only attribute that spans several lines
_ROW = re.compile(r'^(\d+) (?:"(.*)"|\{(.*)\})$')


def shape_parts(shape: str) -> list[float]:
    """Bytes of each array of a shape, without layout padding: 'f32[2,3]{1,0}' -> [24]."""
    sizes = []
    for dtype, dims in _ARRAY.findall(shape):
        size = _BYTES.get(dtype, 1 if dtype.startswith('f8') else 0)
        sizes.append(float(size * math.prod(int(n) for n in dims.split(',') if n)))
    return sizes


def shape_bytes(shape: str) -> float:
    """Bytes of an array, or of all arrays of a tuple."""
    return sum(shape_parts(shape))


@dataclass(frozen=True)
class Source:
    """Source position of an instruction. line: 0 = unknown."""

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Instruction:
    """One HLO instruction. operands: names. rest: its attributes, as text. literal: the value of a
    scalar constant, or the number of a parameter."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    literal: str = ''
    root: bool = False

    @cached_property
    def bytes(self) -> float:
        return shape_bytes(self.shape)

    @property
    def cycles(self) -> int | None:
        """The compiler's estimated cycles; None without an estimate."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found[1]) if found else None

    @property
    def op_name(self) -> str:
        """Path of the operation in the traced function, '' if the compiler added the instruction."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.rest)
        return found[1] if found else ''

    def attribute(self, name: str) -> str:
        """Name of the computation in an attribute (calls, body, condition, to_apply), '' without the attribute."""
        found = re.search(rf'\b{name}=%?([\w.\-]+)', self.rest)
        return found[1] if found else ''


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Module:
    """A compiled program. frames: stack frame id -> the frames of that stack, innermost first."""

    computations: Mapping[str, Computation]
    entry: str
    frames: Mapping[int, tuple[Source, ...]] = field(default_factory=dict)

    def sources(self, instruction: Instruction) -> tuple[Source, ...]:
        """Stack frames of an instruction, innermost first; () if the compiler added it."""
        if found := re.search(r'stack_frame_id=(\d+)', instruction.rest):
            return self.frames.get(int(found[1]), ())
        if found := re.search(r'source_file="([^"]*)" source_line=(\d+)', instruction.rest):
            return (Source(found[1], int(found[2]), ''),)
        return ()

    def root(self, computation: str) -> Instruction:
        """The root instruction of a computation, which is its result."""
        instructions = self.computations[computation].values()
        return next((i for i in instructions if i.root), list(instructions)[-1])

    def within(self, instruction: Instruction) -> Iterator[Instruction]:
        """Yields the instructions of a fusion, recursively; any other instruction yields itself."""
        called = instruction.attribute('calls')
        if instruction.opcode != 'fusion' or called not in self.computations:
            yield instruction
            return
        for inner in self.computations[called].values():
            yield from self.within(inner)


def _closing(text: str, start: int) -> int:
    """Index after the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] in '([{':
            depth += 1
        elif text[i] in ')]}':
            depth -= 1
            if not depth:
                return i + 1
    raise ValueError(f'unbalanced brackets: {text[start : start + 60]!r}')


def _instruction(line: str) -> Instruction | None:
    head = _NAME.match(line)
    if not head:
        return None
    start = head.end()
    end = _closing(line, start) if line[start] == '(' else line.index(' ', start)
    opcode = _OPCODE.match(line, end)
    if not opcode:
        return None
    after = _closing(line, opcode.end() - 1)
    inside = line[opcode.end() : after - 1]
    operands = () if opcode[1] == 'constant' else tuple(re.findall(r'%([\w.\-]+)', inside))
    literal = inside if opcode[1] in ('constant', 'parameter') and '{' not in inside else ''
    return Instruction(head[2], line[start:end], opcode[1], operands, line[after:], literal, bool(head[1]))


def parse(text: str) -> Module:
    """Parses the text of a compiled program. Raises ValueError for a text without an entry computation."""
    computations: dict[str, Computation] = {}
    tables: dict[str, dict[int, str]] = {}
    entry, current, table = '', None, None
    for line in _ONE_LINE.sub(lambda found: found[0].replace('\n', ''), text).splitlines():
        if line in ('FileNames', 'FunctionNames', 'FileLocations', 'StackFrames'):
            table = tables.setdefault(line, {})
        elif table is not None and (row := _ROW.match(line)):
            table[int(row[1])] = row[2] if row[2] is not None else row[3]
        elif header := _HEADER.match(line):
            table, current = None, computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    if entry not in computations:
        raise ValueError('no ENTRY computation: this is not the text of a compiled program')
    return Module(computations, entry, _frames(tables))


def _frames(tables: Mapping[str, Mapping[int, str]]) -> dict[int, tuple[Source, ...]]:
    files, functions = tables.get('FileNames', {}), tables.get('FunctionNames', {})

    def numbers(row: str) -> dict[str, int]:
        return {k: int(v) for k, v in re.findall(r'(\w+)=(\d+)', row)}

    places = {
        i: Source(
            files.get(row.get('file_name_id', 0), ''), row.get('line', 0), functions.get(row['function_name_id'], '')
        )
        for i, row in ((i, numbers(text)) for i, text in tables.get('FileLocations', {}).items())
    }
    rows = {i: numbers(text) for i, text in tables.get('StackFrames', {}).items()}
    # Some texts use parent id 0 for "no parent" and add 1 to the others; a frame then seems to be its own parent.
    shift = int(any(row.get('parent_frame_id') == i for i, row in rows.items()))
    frames: dict[int, tuple[Source, ...]] = {}
    for i in sorted(rows):
        parent = rows[i].get('parent_frame_id', 0) - shift
        frames[i] = (places[rows[i]['file_location_id']], *frames.get(parent, ()))
    return frames
