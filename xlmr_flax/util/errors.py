"""The base class of errors whose message is written for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 10_000  # characters of a message: it may quote a field of a damaged file, which can have megabytes


class UserError(Exception):
    """An error that the user can fix. The command line prints its message without a traceback and exits with 1.

    The message names the file and line, or the field, and the value. The middle of a very long message is cut.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(shorten(arg) if isinstance(arg, str) else arg for arg in args))


def shorten(text: str, limit: int = LONGEST) -> str:
    """Cuts the middle out of a text that is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f'{text[: limit // 2]}… ({len(text)} characters) …{text[-limit // 4 :]}'


def quote(value: object, limit: int = 120) -> str:
    """`repr(value)`, without its middle if it is longer than `limit` characters."""
    if isinstance(value, str) and len(value) > 2 * limit:  # do not compute the repr of megabytes to show its two ends
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
    """A hint for error messages: ' (did you mean X?)' for the closest of `known`, else the list of `known`."""
    known = sorted(known)
    match = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.6)
    if match:
        return f' (did you mean {quote(match[0])}?)'
    return f' (known: {shorten(", ".join(known), 1000)})' if known else ''
