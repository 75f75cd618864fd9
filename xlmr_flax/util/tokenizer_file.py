"""Opens a tokenizer.json and makes it treat white space as XLM-R does.

In XLM-R, any run of white space separates two words, and white space at either end of a text is dropped. XLM-R's own
tokenizer.json does this with a white-space split before its Metaspace pre-tokenizer. Files that were converted without
that split make a separate piece from a blank at the end of a text or before a special token.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from xlmr_flax.util.errors import UserError

# The same white space as the split. A single space is not replaced, so that offsets into the text stay valid.
_RULE = (normalizers.Replace(Regex(r'\s{2,}|[^\S ]'), ' '), normalizers.Strip())


_TRIAL = 'A test: \u00e9 e\u0301 \ufb01 \u0e01\u0e33 \u4e2d\uff21'  # compatibility and combining characters too


class TokenizerFileError(UserError, ValueError):
    """A file is not a readable tokenizer.json; the message names it."""


@contextlib.contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Turns the library's errors into a TokenizerFileError that names the file and says `what` is wrong."""
    try:
        yield
    except BaseException as e:  # the library raises bare Exception, and its panics are BaseExceptions
        if not isinstance(e, Exception) and type(e).__name__ != 'PanicException':
            raise
        raise TokenizerFileError(f'{path}: {what} ({e})') from None


def open_tokenizer(path: Path) -> tuple[Tokenizer, bool]:
    """Opens a tokenizer.json; returns (tokenizer, whether XLM-R's white-space rule was added).

    The rule is added if Metaspace alone splits the text. It becomes a part of the normalizer. The ids and offsets of
    texts without superfluous white space do not change. Raises TokenizerFileError.
    """
    with naming(path, 'not a readable tokenizer.json'):
        tokenizer = Tokenizer.from_file(str(path))
        if tokenizer.normalizer is not None:  # a damaged character table is found only when it is used
            tokenizer.normalizer.normalize_str(_TRIAL)  # not encode(), which pads to any length that the file says
    if not isinstance(tokenizer.pre_tokenizer, pre_tokenizers.Metaspace):
        return tokenizer, False
    before = tokenizer.normalizer
    if before is not None and _parts(before)[-len(_RULE) :] == [part for rule in _RULE for part in _parts(rule)]:
        return tokenizer, False
    tokenizer.normalizer = normalizers.Sequence([*([] if before is None else [before]), *_RULE])
    return tokenizer, True


def _parts(normalizer: normalizers.Normalizer) -> list[object]:
    """The entries of a normalizer in the format of tokenizer.json: those of a Sequence, else one."""
    state = json.loads(normalizer.__getstate__())
    return state['normalizers'] if state['type'] == 'Sequence' else [state]
