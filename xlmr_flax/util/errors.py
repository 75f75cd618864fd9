"""The base class of errors whose message is written for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 10_000  # characters of a message, in which a field of a damaged file may be megabytes long


class UserError(Exception):
    """An error that the user can mend. The command line prints its message without a traceback and exits with 1.

    The message names the file and line, or the field, and the value; of a very long one the middle is left out.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(shorten(arg) if isinstance(arg, str) else arg for arg in args))


def shorten(text: str, limit: int = LONGEST) -> str:
    """The text, without its middle where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f'{text[: limit // 2]}… ({len(text)} characters) …{text[-limit // 4 :]}'


def quote(value: object, limit: int = 120) -> str:
    """`repr(value)`, with the middle left out where it is longer than `limit` characters."""
    if isinstance(value, str) and len(value) > 2 * limit:  # repr of megabytes is not needed for its two ends
        value, whole = value[:limit] + value[-limit:], len(value)
    else:
        whole = 0
    written = repr(value)
    if not whole and len(written) <= limit:
        return written
    half = limit // 2
    count = f' ({whole} characters)' if whole else ''
    return f'{written[:half]}…{written[-half:]}{count}'


def closest(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the closest known name, or ''."""
    near = difflib.get_close_matches(name[:200], list(known), n=1)
    return f'; did you mean {near[0]!r}?' if near else ''
