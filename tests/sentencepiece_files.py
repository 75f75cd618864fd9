"""SentencePiece model files made of single pieces."""

from __future__ import annotations

import struct

OWN = [('<unk>', 0.0, 2), ('<s>', 0.0, 3), ('</s>', 0.0, 3)]
PIECES = [('▁the', -1.0, 1), ('▁', -4.0, 1), ('station', -3.0, 1), ('s', -2.0, 1), ('▁st', -2.5, 1), ('<x>', 0.0, 4)]
DEBERTA = [('[PAD]', 0.0, 3), ('[CLS]', 0.0, 3), ('[SEP]', 0.0, 3), ('[UNK]', 0.0, 2)]


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: bytes | int | float) -> bytes:
    """One field of a protocol buffer message."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack('<f', value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def model_file(pieces: list[tuple[str, float, int]], kind: int = 1) -> bytes:
    rows = (field(1, text.encode()) + field(2, score) + field(3, type_) for text, score, type_ in pieces)
    trainer = field(1, b'a.txt') + field(3, kind) + field(15, 0.5)
    return b''.join(field(1, row) for row in rows) + field(2, trainer) + field(3, field(1, b'identity'))
