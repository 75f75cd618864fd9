"""Strict JSON parser for untrusted files: every malformed document raises one error with a line and a column.

`json.loads` accepts NaN and Infinity, keeps the last of two equal keys, and lets ValueError (integers of more than
4,300 digits) and RecursionError (deep nesting) escape.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from xlmr_flax.util.errors import UserError, quote

_DIGITS = 400  # the longest integer that is accepted; a float has at most 309 digits before its point
_SURROGATE = re.compile('[\ud800-\udfff]')
_ESCAPE = re.compile(r'\\u[dD][89a-fA-F]')


class JsonError(UserError, ValueError):
    """Malformed JSON. reason: what is wrong. line, column: where, from 1; 0 = unknown."""

    def __init__(self, reason: str, line: int = 0, column: int = 0, path: str | Path | None = None) -> None:
        self.reason, self.line, self.column = reason, line, column
        where = '' if path is None else f'{path}, line {line}: ' if line else f'{path}: '
        super().__init__(f'{where}{self.described()}')

    def described(self) -> str:
        """The reason and the column, for a caller that names file and line itself."""
        return f'broken JSON: {self.reason}' + (f' at column {self.column}' if self.column else '')


class _Refused(ValueError):
    """A value that Python's parser accepts, but that is not valid JSON (or is too large)."""


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f'the number {quote(text, 40)} is too large')
    return value


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise _Refused(f'an integer of {len(text)} digits')
    return int(text)


def _constant(text: str) -> float:
    raise _Refused(f'{text} is not a JSON value')


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise _Refused(f'the key {quote(twice)} occurs twice in one object')
    return result


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_integer, parse_constant=_constant
)


def decode(text: str, position: int = 0, surrogates: bool = False) -> tuple[Any, int]:
    """Parses one JSON value at `position` of `text` (no white space before it); returns (value, position after it).

    surrogates: accept escapes of unpaired surrogates. Such strings cannot be encoded, so the caller must check them.
    Raises JsonError.
    """
    try:
        value, end = _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise JsonError(error.msg, error.lineno, error.colno) from None
    except _Refused as error:
        raise JsonError(str(error), text.count('\n', 0, position) + 1) from None
    except RecursionError:
        raise JsonError('too deeply nested', text.count('\n', 0, position) + 1) from None
    if not surrogates and _ESCAPE.search(text, position, end) and has_surrogate(value):
        raise JsonError('an unpaired surrogate (half a character)', text.count('\n', 0, position) + 1)
    return value, end


def loads(text: str, surrogates: bool = False) -> Any:
    """Parses a whole JSON text. Raises JsonError, also for text after the value."""
    start = _blank(text, 0)
    value, end = decode(text, start, surrogates)
    end = _blank(text, end)
    if end != len(text):
        line = text.count('\n', 0, end) + 1
        raise JsonError('unexpected text after the value', line, end - text.rfind('\n', 0, end))
    return value


def read(path: str | Path, surrogates: bool = False) -> Any:
    """Reads a JSON file in UTF-8 (a byte order mark is allowed). Raises JsonError with file and line."""
    try:
        text = Path(path).read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise JsonError(f'not UTF-8 at byte {error.start}', path=path) from None
    try:
        return loads(text, surrogates)
    except JsonError as error:
        raise JsonError(error.reason, error.line, error.column, path) from None


def read_object(path: str | Path) -> dict[str, Any]:
    """Reads a JSON file that must hold an object. Raises JsonError, which names the file, or OSError."""
    value = read(path)
    if not isinstance(value, dict):
        raise JsonError(f'an object is expected, not {type(value).__name__}', path=path)
    return value


def has_surrogate(value: Any) -> bool:
    """Returns whether any string in the value, keys included, holds an unpaired surrogate."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            if _SURROGATE.search(each):
                return True
        elif isinstance(each, dict):
            todo += each.keys()
            todo += each.values()
        elif isinstance(each, list | tuple):
            todo += each
    return False


def _blank(text: str, position: int) -> int:
    while position < len(text) and text[position] in ' \t\r\n':
        position += 1
    return position
