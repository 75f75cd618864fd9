"""The ground of all readers: text of a file, and what is said about a row that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_flax.util.errors import UserError, shorten


class DataError(UserError, ValueError):
    """Data that is missing or cannot be read; the message names the file, the line (from 1) and the column."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a reader yields in place of a row that it cannot read; the rows behind it are still read."""

    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, 'reason', shorten(self.reason, 500))


Row = dict[str, Any]
Rows = Iterator[tuple[int, Row | Problem]]  # (line from 1, row)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, a byte order mark left out. DataError names the first bad byte and its line."""
    data = path.read_bytes()
    try:
        return data.decode('utf-8').removeprefix('\ufeff')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise DataError(
            f'{path}, line {line}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason})'
        ) from None


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends; an empty list for an empty file. Only a line feed ends a line."""
    lines = read_text(path).split('\n')
    if lines[-1] == '':
        lines.pop()
    return [line.removesuffix('\r') for line in lines]
