"""Base module of all readers: reads the text of a file and defines the errors for unreadable files and rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_flax.util.errors import UserError, shorten


class DataError(UserError, ValueError):
    """Raised for missing or unreadable data; the message names the file, the line (from 1) and the column."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why a row cannot be read. A reader yields it in place of the row and continues with the next row."""

    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, 'reason', shorten(self.reason, 500))


Row = dict[str, Any]
Rows = Iterator[tuple[int, Row | Problem]]  # (line from 1, row)


def read_text(path: Path) -> str:
    """Reads a UTF-8 file without its byte order mark. Raises DataError that names the first invalid byte and line."""
    data = path.read_bytes()
    try:
        return data.decode('utf-8').removeprefix('\ufeff')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise DataError(
            f'{path}, line {line}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason})'
        ) from None


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a UTF-8 file without line ends; [] for an empty file. Only a line feed ends a line, and a
    carriage return before it is removed."""
    lines = read_text(path).split('\n')
    if lines[-1] == '':
        lines.pop()
    return [line.removesuffix('\r') for line in lines]
