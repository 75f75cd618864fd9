"""Opens a tokenizer.json, makes it treat white space as XLM-R does, and finds its special tokens.

In XLM-R, any run of white space separates two words, and white space at either end of a text is dropped. XLM-R's own
tokenizer.json does this with a white-space split before its Metaspace pre-tokenizer. Files that were converted without
that split make a separate piece from a blank at the end of a text or before a special token.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from xlmr_flax.util.errors import UserError

# The same white space as the split. A single space is not replaced, so that offsets into the text stay valid.
_RULE = (normalizers.Replace(Regex(r'\s{2,}|[^\S ]'), ' '), normalizers.Strip())


_TRIAL = 'A test: \u00e9 e\u0301 \ufb01 \u0e01\u0e33 \u4e2d\uff21'  # compatibility and combining characters too

# Role -> the names that it has in tokenizers of XLM-R's, BERT's and Gemma's kind.
_NAMES = {
    'bos': ('<s>', '[CLS]', '<bos>'),
    'eos': ('</s>', '[SEP]', '<eos>'),
    'pad': ('<pad>', '[PAD]'),
    'unk': ('<unk>', '[UNK]'),
    'mask': ('<mask>', '[MASK]'),
}


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


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a tokenizer, by role.

    bos, eos: ids of the tokens before and after a text. middle: ids between the two texts of a pair. pad, unk: ids.
    mask: id, None without one. second_type: token type of the second text of a pair (1 in BERT, 0 in XLM-R).
    """

    bos: int
    eos: int
    middle: tuple[int, ...]
    pad: int
    unk: int
    mask: int | None
    second_type: int


def special_tokens(tokenizer: Tokenizer, where: str) -> SpecialTokens:
    """Finds the special tokens: those around a text and between two texts by the file's post-processor, else by name.

    Without a post-processor, texts are joined as in the model whose names the tokens have: with two separators for
    `</s>`, else with one. where: the file, for messages. Raises TokenizerFileError for a role without a token.
    """
    tokenizer.no_padding()  # a file may say any length
    tokenizer.no_truncation()
    found = {role: _named(tokenizer, role) for role in _NAMES}
    one, two = _template(tokenizer, None), _template(tokenizer, '')
    if len(one) == 2 and len(two) > 2 and (one[0][0], one[1][0]) == (two[0][0], two[-1][0]):
        found['bos'], found['eos'] = (token for token, _ in one)
        middle, second_type = tuple(token for token, _ in two[1:-1]), two[-1][1]
    else:
        eos = found['eos']
        count = 2 if eos == tokenizer.token_to_id('</s>') else 1
        middle, second_type = (() if eos is None else (eos,) * count), 0
    for role in ('bos', 'eos', 'pad', 'unk'):
        if found[role] is None:
            raise TokenizerFileError(f'{where}: no token {_listed(_NAMES[role])}')
    return SpecialTokens(middle=middle, second_type=second_type, **found)  # type: ignore[arg-type]


def read_special_tokens(path: Path) -> SpecialTokens:
    """`special_tokens` of a tokenizer.json. Raises TokenizerFileError."""
    return special_tokens(open_tokenizer(path)[0], str(path))


def _named(tokenizer: Tokenizer, role: str) -> int | None:
    numbers = (tokenizer.token_to_id(name) for name in _NAMES[role])
    return next((number for number in numbers if number is not None), None)


def _template(tokenizer: Tokenizer, second: str | None) -> list[tuple[int, int]]:
    """(id, token type) of the special tokens that the post-processor adds to an empty text, or to two."""
    made = tokenizer.encode('', second)
    rows = zip(made.ids, made.type_ids, made.special_tokens_mask, strict=True)
    return [(token, kind) for token, kind, is_special in rows if is_special]


def _listed(names: tuple[str, ...]) -> str:
    return ' or '.join(map(repr, names))


def _parts(normalizer: normalizers.Normalizer) -> list[object]:
    """The entries of a normalizer in the format of tokenizer.json: those of a Sequence, else one."""
    state = json.loads(normalizer.__getstate__())
    return state['normalizers'] if state['type'] == 'Sequence' else [state]
