"""Converts a SentencePiece model to tokenizer.json, for model directories that have only the former.

transformers' AutoTokenizer does not replace it: it opens such a directory only with the package sentencepiece, which
transformers does not require, and for mDeBERTa it gives other ids ([UNK] in place of bytes).

The file is a protocol buffer (sentencepiece_model.proto of google/sentencepiece). This module reads only the few fields
that define the tokenizers of XLM-R and DeBERTa. The ids are those of transformers' classes:
- XLM-R (sentencepiece.bpe.model): <s>, <pad>, </s>, <unk>, the pieces after SentencePiece's own three, <mask>.
- DeBERTa (spm.model): the file's, which begin with [PAD], [CLS], [SEP], [UNK], and [MASK] after them if they lack it.
A model with byte fallback (mDeBERTa's) encodes unknown characters as the pieces of their bytes, as SentencePiece does.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from xlmr_flax.encoders.config import ModelError
from xlmr_flax.encoders.tensors import read_json
from xlmr_flax.util.errors import quote
from xlmr_flax.util.files import write_atomically

# Version of the generated tokenizer; part of the name of the cached file.
_FORMAT = 1
_UNK_ID = 3
_UNIGRAM = 1
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6  # types of pieces
_BYTE_FALLBACK = 35  # field of the trainer's settings
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class TokenizerLayout:
    """How a kind of tokenizer uses a SentencePiece model.

    kind: for messages. own: the first pieces of the model file. first: the tokens that replace them; the fourth is the
    unknown token. mask: the mask token, which is appended if no piece of the file is equal to it. single, pair: the
    post-processor's templates.
    """

    kind: str
    own: tuple[str, ...]
    first: tuple[str, str, str, str]
    mask: str
    single: str
    pair: str


LAYOUTS = {
    'sentencepiece.bpe.model': TokenizerLayout(
        'XLM-R', ('<unk>', '<s>', '</s>'), ('<s>', '<pad>', '</s>', '<unk>'), '<mask>',
        '<s> $A </s>', '<s> $A </s> </s> $B </s>',
    ),
    'spm.model': TokenizerLayout(
        'DeBERTa', ('[PAD]', '[CLS]', '[SEP]', '[UNK]'), ('[PAD]', '[CLS]', '[SEP]', '[UNK]'), '[MASK]',
        '[CLS] $A [SEP]', '[CLS] $A [SEP] $B:1 [SEP]:1',
    ),
}  # fmt: skip


class SentencePiece(NamedTuple):
    """The contents of a model file. pieces: (piece, score, type) in order. charsmap: the normalizer's compiled table,
    empty = none. has_bytes: whether unknown characters become the pieces of their bytes."""

    pieces: list[tuple[str, float, int]]
    charsmap: bytes
    has_bytes: bool = False


def model_file(directory: Path) -> Path | None:
    """Returns the SentencePiece model of a directory, None without one."""
    return next((path for name in LAYOUTS if (path := directory / name).is_file()), None)


def tokenizer_json(path: Path) -> Path:
    """Returns the path of a tokenizer.json made from a SentencePiece model, whose name is one of `LAYOUTS`.

    The file is cached in ~/.cache/xlmr_flax/tokenizers (or below XDG_CACHE_HOME); its name is a hash of everything that
    it is made from. Raises ModelError for a file that is not a SentencePiece model of its layout, and if the result
    cannot be written.
    """
    layout, added = LAYOUTS[path.name], _added_tokens(path.parent)
    data = path.read_bytes()
    decides = [
        _FORMAT,
        path.name,
        tokenizers.__version__,
        hashlib.sha256(data).hexdigest(),
        [(i, repr(t)) for i, t in added],
    ]
    home = os.environ.get('XDG_CACHE_HOME')
    cache = (Path(home) if home else Path.home() / '.cache') / 'xlmr_flax' / 'tokenizers'
    out = cache / f'{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:24]}.json'
    if not out.is_file():
        made = build(read_model(data, str(path), layout), layout, added, str(path))
        try:
            write_atomically(out, made.to_str())
        except OSError as e:
            raise ModelError(
                f'{path}: the tokenizer.json that is made from it cannot be kept: {e}; '
                'set XDG_CACHE_HOME to a folder that can be written'
            ) from None
    return out


def read_model(data: bytes, where: str, layout: TokenizerLayout) -> SentencePiece:
    """Parses a model file. Raises ModelError for a truncated file and for a model that is not of the layout."""
    pieces, charsmap, kind, has_bytes, view = [], b'', _UNIGRAM, False, memoryview(data)
    try:
        for field, value in _fields(view):
            if field == 1:
                piece = dict(_fields(_message(value)))
                score = struct.unpack('<f', _message(piece.get(2, memoryview(bytes(4)))))[0]
                pieces.append((bytes(_message(piece[1])).decode('utf-8'), score, int(piece.get(3, 1))))
            elif field == 2:
                trainer = dict(_fields(_message(value)))
                kind, has_bytes = trainer.get(3, _UNIGRAM), bool(trainer.get(_BYTE_FALLBACK, 0))
            elif field == 3:
                charsmap = bytes(_message(dict(_fields(_message(value))).get(2, memoryview(b''))))
    except (KeyError, IndexError, TypeError, ValueError, struct.error):
        raise ModelError(f'{where}: not a whole SentencePiece model; copy it again') from None
    if kind != _UNIGRAM:
        raise ModelError(f'{where}: a SentencePiece model of type {kind}; unigram models (type 1) are read')
    first = tuple(piece for piece, _, _ in pieces[: len(layout.own)])
    if first != layout.own:
        expected = quote(list(layout.own))
        raise ModelError(f"{where}: the first pieces are {quote(list(first))}; {layout.kind}'s are {expected}")
    if layout.own != layout.first and any(kind == _BYTE for _, _, kind in pieces):
        raise ModelError(f'{where}: pieces for single bytes, which {layout.kind}-type tokenizers do not have')
    return SentencePiece(pieces, charsmap, has_bytes)


def build(model: SentencePiece, layout: TokenizerLayout, added: list[tuple[int, AddedToken]], where: str) -> Tokenizer:
    """Builds a tokenizer from a SentencePiece model. added: (id, token) of added tokens, sorted by id.

    Raises ModelError for a model that the tokenizers library refuses, and for an added token whose id is not the next
    free one.
    """
    own = model.pieces[len(layout.own) :]
    vocab = [(name, 0.0) for name in layout.first] + [(piece, score) for piece, score, _ in own]
    if layout.mask not in {piece for piece, _, _ in own}:
        vocab.append((layout.mask, 0.0))
    try:
        tokenizer = Tokenizer(Unigram(vocab, unk_id=_UNK_ID, byte_fallback=model.has_bytes))
        if model.charsmap:
            tokenizer.normalizer = normalizers.Precompiled(model.charsmap)
            tokenizer.encode('A test')  # a damaged table is found only when it is used
    except BaseException as e:  # the library raises bare Exception, and its panics are BaseExceptions
        if not isinstance(e, Exception) and type(e).__name__ != 'PanicException':
            raise
        raise ModelError(f'{where}: not a SentencePiece model that can be used ({e})') from None
    split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme='always')]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    blanks = decoders.Metaspace(prepend_scheme='always')
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), blanks]) if model.has_bytes else blanks
    around = [(name, i) for i, name in enumerate(layout.first) if name in layout.single]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=layout.single, pair=layout.pair, special_tokens=around
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in layout.first])
    for piece, _, kind in own:
        if kind in (_CONTROL, _USER_DEFINED):
            tokenizer.add_tokens([AddedToken(piece, normalized=False, special=kind == _CONTROL)])
    tokenizer.add_special_tokens([AddedToken(layout.mask, lstrip=True, normalized=False)])
    for number, token in added:
        if tokenizer.token_to_id(token.content) is None:
            tokenizer.add_tokens([token])
        if (got := tokenizer.token_to_id(token.content)) != number:
            raise ModelError(
                f'{where}: added token {quote(token.content)} has id {number} in the files beside it, '
                f'but the tokenizer gives it {got}'
            )
    return tokenizer


def _added_tokens(directory: Path) -> list[tuple[int, AddedToken]]:
    """Reads (id, token) of the added tokens, sorted by id, from added_tokens.json and from tokenizer_config.json's
    added_tokens_decoder. Raises ModelError."""
    by_id: dict[int, AddedToken] = {}
    plain, config = directory / 'added_tokens.json', directory / 'tokenizer_config.json'
    tokens = read_json(plain) if plain.is_file() else {}
    described = read_json(config).get('added_tokens_decoder') if config.is_file() else None
    try:
        for content, number in tokens.items():
            by_id[int(number)] = AddedToken(content)
        for number, token in (described or {}).items():
            flags = {k: bool(token.get(k)) for k in ('single_word', 'lstrip', 'rstrip', 'normalized', 'special')}
            by_id[int(number)] = AddedToken(token['content'], **flags)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ModelError(f'{directory}: the added tokens of {plain.name} or {config.name} cannot be read') from None
    return sorted(by_id.items(), key=lambda item: item[0])


def _message(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise TypeError('a number where bytes are expected')
    return value


def _fields(view: memoryview) -> Iterator[tuple[int, Any]]:
    """Yields (field number, value) of a protocol buffer message. The value is an int or bytes (a memoryview).

    Raises ValueError for a truncated message.
    """
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
        elif kind in (_BYTES, _FOUR_BYTES, _EIGHT_BYTES):
            size, at = _varint(view, at) if kind == _BYTES else (4 if kind == _FOUR_BYTES else 8, at)
            value, at = view[at : at + size], at + size
        else:
            raise ValueError(f'wire type {kind}')
        if at > end:
            raise ValueError('cut short')
        yield tag >> 3, value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Reads a varint: (number, position after it)."""
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError('a number of more than 64 bits')
