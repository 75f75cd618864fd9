"""tokenizer.json, with blanks as XLM-R reads them: one or many, of any kind, part two words, and none stands at an end.

XLM-R's own tokenizer.json splits at white space before its Metaspace. Files that were converted without that split
give a piece of its own to a blank at the end of a text or before a special token.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from xlmr_flax.util.errors import UserError

# As the split takes them: any white space. A single space is left as it is, so that offsets into the text stay.
_RULE = (normalizers.Replace(Regex(r'\s{2,}|[^\S ]'), ' '), normalizers.Strip())


class TokenizerFileError(UserError, ValueError):
    """A file that is no tokenizer.json; the message names it."""


def open_tokenizer(path: Path) -> tuple[Tokenizer, bool]:
    """(the tokenizer of a tokenizer.json, whether XLM-R's rule for blanks was added to it). Raises TokenizerFileError.

    The rule is added where Metaspace alone splits the text. It is written into the normalizer: ids of texts without
    stray blanks stay, and so do their offsets.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except BaseException as e:  # the library raises bare Exception, and its panics are BaseExceptions
        if not isinstance(e, Exception) and type(e).__name__ != 'PanicException':
            raise
        raise TokenizerFileError(f'{path}: not a readable tokenizer.json ({e})') from None
    if not isinstance(tokenizer.pre_tokenizer, pre_tokenizers.Metaspace):
        return tokenizer, False
    before = tokenizer.normalizer
    if before is not None and _parts(before)[-len(_RULE) :] == [part for rule in _RULE for part in _parts(rule)]:
        return tokenizer, False
    tokenizer.normalizer = normalizers.Sequence([*([] if before is None else [before]), *_RULE])
    return tokenizer, True


def _parts(normalizer: normalizers.Normalizer) -> list[object]:
    """The description of a normalizer as tokenizer.json has it, a sequence's in parts."""
    found = json.loads(normalizer.__getstate__())
    return found['normalizers'] if found['type'] == 'Sequence' else [found]
