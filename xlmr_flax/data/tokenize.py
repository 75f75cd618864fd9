"""Tokenizer: encodes text as ragged int32 token ids and puts special tokens around texts (jiant: tasks/lib/templates).

The tokenizer uses the `tokenizers` library with a tokenizer.json. It gives the same ids as transformers' fast tokenizer
without importing transformers. Metaspace tokenizers handle spaces as XLM-R's own, whichever tokenizer.json is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xlmr_flax.util.errors import UserError
from xlmr_flax.util.stopping import check
from xlmr_flax.util.tokenizer_file import TokenizerFileError, naming, open_tokenizer, special_tokens

_CHUNK = 8192


class TokenizerError(UserError, ValueError):
    """Raised for a tokenizer that does not fit the encoder; the message names the file."""


@dataclass(frozen=True)
class Ragged:
    """Ragged array of rows: row i is flat[offsets[i]:offsets[i+1]]. flat int32, offsets int64 [n + 1]."""

    flat: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """The lengths of the rows, int64 [n]."""
        return np.diff(self.offsets)

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int] | np.ndarray]) -> Ragged:
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        flat = np.concatenate([np.asarray(row, np.int32) for row in rows]) if rows else np.zeros(0, np.int32)
        return cls(flat.astype(np.int32, copy=False), offsets)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Concatenates the rows of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.flat) for part in parts)])
        ends = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
        return cls(np.concatenate([part.flat for part in parts]), np.concatenate([[0], *ends]).astype(np.int64))


class Tokenizer:
    """The tokenizer of an encoder.

    bos, eos, pad, unk: ids of these special tokens (0, 2, 1, 3 in XLM-R; BERT's [CLS] and [SEP] are bos and eos).
    middle: the ids between the texts of a pair. mask: id of the mask token, None without one. special_ids: ids of all
    special tokens. size: the highest id + 1. on_texts: called with (texts encoded so far, all texts) of a call of
    `encode` or `encode_with_offsets`, after each chunk.
    """

    def __init__(self, path: Path, rows: int):
        """rows: number of rows of the encoder's word table. Raises TokenizerError if an id is outside the table or a
        special token is missing.
        """
        try:
            self._raw, _ = open_tokenizer(path)
        except TokenizerFileError as e:
            raise TokenizerError(str(e)) from None
        size = max(self._raw.get_vocab(with_added_tokens=True).values()) + 1
        if size > rows:
            raise TokenizerError(
                f'{path}: ids up to {size - 1}, but the word table has {rows} rows: '
                f"this tokenizer is not this encoder's"
            )
        self._raw.no_padding()
        self._raw.no_truncation()
        self.path, self.size = path, size
        self.on_texts: Callable[[int, int], None] | None = None
        try:
            found = special_tokens(self._raw, str(path))
        except TokenizerFileError as e:
            raise TokenizerError(str(e)) from None
        self.bos, self.eos, self.pad, self.unk, self.middle = found.bos, found.eos, found.pad, found.unk, found.middle
        self.mask: int | None = found.mask
        special = {i for i, token in self._raw.get_added_tokens_decoder().items() if token.special}
        known = {self.bos, self.eos, self.pad, self.unk, *self.middle}
        known |= {self.mask} if self.mask is not None else set()
        self.special_ids: tuple[int, ...] = tuple(sorted(special | known))
        self.marks_blanks = self._raw.encode('a').ids != self._raw.encode(' a').ids

    @property
    def pair_specials(self) -> int:
        """The number of special tokens in a row of two texts: 4 in XLM-R, 3 in BERT."""
        return 2 + len(self.middle)

    def check_length(self, max_length: int, limit: int) -> None:
        """Raises TokenizerError if max_length exceeds `limit`, the maximum sequence length of the encoder."""
        if max_length > limit:
            raise TokenizerError(f'max_length {max_length}: the encoder has positions for {limit} tokens')

    def encode(self, texts: Sequence[str]) -> Ragged:
        """Encodes texts without special tokens, in order; runs on all cores."""
        encode = self._raw.encode_batch_fast
        parts = []
        for chunk in self._chunks(texts):
            with naming(self.path, 'it cannot encode a text'):
                parts.append(Ragged.from_rows([e.ids for e in encode(chunk, add_special_tokens=False)]))
        return Ragged.joined(parts) if parts else Ragged.from_rows([])

    def encode_words(self, words: Sequence[str], *, first: bool) -> Ragged:
        """Encodes words of a sentence one by one. first: as the first word of a text, else as a later one.

        In XLM-R and BERT, a word has the same pieces everywhere. Byte-level BPE and Gemma's tokenizer take the blank
        before a word as a part of it (`marks_blanks`), so that a word within a sentence gets one.
        """
        return self.encode([f' {word}' for word in words] if self.marks_blanks and not first else words)

    def encode_with_offsets(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """Encodes texts without special tokens, a chunk at a time on all cores; yields for each text (tokens, character
        offsets [start, end) of each token)."""
        for chunk in self._chunks(texts):
            with naming(self.path, 'it cannot encode a text'):
                batch = self._raw.encode_batch(chunk, add_special_tokens=False)
            for encoded in batch:
                yield encoded.ids, encoded.offsets

    def _chunks(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """Yields the texts in parts; a stop request ends them. `tokenizers` encodes the texts of a part in parallel."""
        os.environ.setdefault('TOKENIZERS_PARALLELISM', 'true')
        for start in range(0, len(texts), _CHUNK):
            check()
            yield list(texts[start : start + _CHUNK])
            if self.on_texts is not None:
                self.on_texts(min(start + _CHUNK, len(texts)), len(texts))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's piece for each id, '' for an id without a piece."""
        return [self._raw.id_to_token(i) or '' for i in ids]


def truncate_pair(a: int, b: int, budget: int) -> tuple[int, int]:
    """Truncated lengths of a text pair: removes tokens from the longer side (from the first if equal) until both fit
    `budget`.

    This is the authors' rule (jiant, tasks/utils.py: argmax). transformers' longest_first differs by one token when the
    number is odd: if both sides are cut and the first was longer, fast tokenizers leave the token in the first side
    (slow tokenizers always do).
    """
    while a + b > budget:
        if a >= b:
            a -= 1
        else:
            b -= 1
    return a, b


def single_rows(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Ragged:
    """Encodes rows `<s> A </s>`, truncated at the end to `max_length`."""
    tokens = tokenizer.encode(texts)
    bos, eos = [tokenizer.bos], [tokenizer.eos]
    return Ragged.from_rows([np.concatenate([bos, tokens[i][: max_length - 2], eos]) for i in range(len(tokens))])


def pair_rows(tokenizer: Tokenizer, first: Sequence[str], second: Sequence[str], max_length: int) -> Ragged:
    """Encodes rows `<s> A </s></s> B </s>` (BERT: `[CLS] A [SEP] B [SEP]`), truncated at the end to `max_length` by
    `truncate_pair`."""
    a, b = tokenizer.encode(first), tokenizer.encode(second)
    bos, eos, middle = [tokenizer.bos], [tokenizer.eos], tokenizer.middle
    rows = []
    for i in range(len(a)):
        n, m = truncate_pair(len(a[i]), len(b[i]), max_length - tokenizer.pair_specials)
        rows.append(np.concatenate([bos, a[i][:n], middle, b[i][:m], eos]))
    return Ragged.from_rows(rows)


def choice_rows(tokenizer: Tokenizer, prompts: Sequence[str], choices: Sequence[str], max_length: int) -> Ragged:
    """Encodes rows `<s> prompt </s></s> choice </s>`, truncated by `truncate_pair`, but at the start of each text,
    because the choice continues the end of the prompt (as in the authors' multiple-choice tasks)."""
    a, b = tokenizer.encode(prompts), tokenizer.encode(choices)
    bos, eos, middle = [tokenizer.bos], [tokenizer.eos], tokenizer.middle
    rows = []
    for i in range(len(a)):
        n, m = truncate_pair(len(a[i]), len(b[i]), max_length - tokenizer.pair_specials)
        rows.append(np.concatenate([bos, a[i][len(a[i]) - n :], middle, b[i][len(b[i]) - m :], eos]))
    return Ragged.from_rows(rows)
