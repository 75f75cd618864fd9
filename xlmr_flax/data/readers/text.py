"""Base module of all readers: reads the text of a file and defines the errors for unreadable files and rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_flax.util import strict_json
from xlmr_flax.util.errors import UserError, shorten

# What stands in the place of a text file -> what to do. The beginnings are in lower case.
_NOT_TEXT = {
    b'version https://git-lfs.github.com/spec/': 'a pointer of Git LFS, not the file: fetch it with `git lfs pull`',
    b'<!doctype html': 'a web page (HTML), not the file: download it again',
    b'<html': 'a web page (HTML), not the file: download it again',
    b'\x1f\x8b': 'compressed with gzip: unpack it',
    b'bzh91ay': 'compressed with bzip2: unpack it',
    b'\xfd7zxz\0': 'compressed with xz: unpack it',
    b'pk\x03\x04': 'a ZIP archive or a spreadsheet: unpack it, or save it as text',
}
_UTF16 = (b'\xff\xfe', b'\xfe\xff')  # byte order marks, which are named as invalid bytes


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
    """Reads a UTF-8 file without its byte order mark.

    Raises DataError, with the line, for an invalid byte and for a zero byte (UTF-16 without its mark, or a block that
    a download has not written), and for what is often in the place of a text file: an archive, a pointer of Git LFS, a
    web page.
    """
    data = path.read_bytes()
    start = data[:200].removeprefix(b'\xef\xbb\xbf').lstrip().lower()
    for mark, what in _NOT_TEXT.items():
        if start.startswith(mark):
            raise DataError(f'{path}: {what}')
    if (zero := data.find(b'\0')) >= 0 and not data.startswith(_UTF16):
        line = data.count(b'\n', 0, zero) + 1
        raise DataError(f'{path}, line {line}: not UTF-8 text: byte 0x00 at offset {zero} (UTF-16, or damaged)')
    try:
        return data.decode('utf-8').removeprefix('\ufeff')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise DataError(
            f'{path}, line {line}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason})'
        ) from None


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a UTF-8 file without line ends; [] for an empty file. Only a line feed ends a line, and a
    carriage return before it is removed. Raises DataError for a file whose lines end in carriage returns alone, which
    would be one line."""
    text = read_text(path)
    if '\r' in text.rstrip('\r') and '\n' not in text:
        raise DataError(f'{path}, line 1: the lines end in carriage returns alone; line feeds are expected')
    lines = text.split('\n')
    if lines[-1] == '':
        lines.pop()
    return [line.removesuffix('\r') for line in lines]


def read_plain_lines(path: Path) -> list[str]:
    """`read_lines` of a file of plain text or words. Raises DataError for JSON lines, which would be read as text."""
    lines = read_lines(path)
    number, first = next(((number, line) for number, line in enumerate(lines, 1) if line.strip()), (1, ''))
    if is_json_object(first):
        raise DataError(f'{path}, line {number}: JSON lines; plain text is expected in this file')
    return lines


def is_json_object(line: str) -> bool:
    """Whether a line is a JSON object."""
    if line.lstrip().startswith('{'):
        with contextlib.suppress(strict_json.JsonError):
            return isinstance(strict_json.loads(line, surrogates=True), dict)
    return False
