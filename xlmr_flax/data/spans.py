"""Encodes extractive QA: contexts as overlapping windows, answer spans as token positions, with character offsets.

Windows and limits of rows of up to 512 tokens are those of the authors and XTREME (doc_stride 128, query 64 tokens). In
longer rows, windows overlap by the same share as in rows of 512. Spans are mapped with the tokenizer's offsets, not by
tokenizing words again, so that no separator or realignment can shift them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.tasks.base import SpanExample
from xlmr_flax.util.stopping import check

DOC_STRIDE, MAX_QUERY = 128, 64
_JOINER = '\u200d'


@dataclass(frozen=True)
class SpanRows:
    """Encoded windows of QA examples.

    tokens: one row per window. example int32 [rows]: the number of the row's example. start, end int32 [rows]: token
    positions of the first answer in the row, 0 (BOS) if the window does not contain it. first, count int32 [rows]: the
    context's tokens in the row are [first, first + count). begin int32 [rows]: the position of the row's first context
    token in the whole context. offsets: for each example int32 [context tokens, 2], the character range [start, end) of
    each context token.
    """

    tokens: Ragged
    example: np.ndarray
    start: np.ndarray
    end: np.ndarray
    first: np.ndarray
    count: np.ndarray
    begin: np.ndarray
    offsets: tuple[np.ndarray, ...]


def _joins(text: str, place: int) -> bool:
    """Whether the character at `place` belongs to the one before it: a combining mark (category M: accents, Indic vowel
    signs, variation selectors), a zero-width joiner, or a character after a zero-width joiner. White space joins
    nothing: in older Malayalam text, a joiner ends a word."""
    if not 0 < place < len(text):
        return False
    pair = text[place - 1 : place + 1]
    return unicodedata.category(text[place])[0] == 'M' or (_JOINER in pair and pair.strip() == pair)


def trimmed_offsets(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Character offsets of tokens, int32 [n, 2], without leading and trailing white space (the token's word-boundary
    mark covers the blank) and widened to whole characters as a reader sees them. The tokenizer's own offsets may
    exclude a combining mark that it drops or composes.
    """
    out = np.empty((len(offsets), 2), np.int32)
    for i, (start, end) in enumerate(offsets):
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if start < end and not text.isascii():
            while _joins(text, end):
                end += 1
            while _joins(text, start):
                start -= 1
        out[i] = start, end
    return out


def answer_tokens(offsets: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """The smallest span of context tokens that covers characters [start, end): (first, last) token, or None if no token
    overlaps them.
    """
    touching = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < end) & (offsets[:, 1] > offsets[:, 0]))
    return (int(touching[0]), int(touching[-1])) if len(touching) else None


def stride_of(max_length: int) -> int:
    """Tokens from the start of a window to that of the next: 128, and a quarter of a row of more than 512 tokens."""
    return max(DOC_STRIDE, max_length // 4)


def windows(length: int, capacity: int, stride: int = DOC_STRIDE) -> list[tuple[int, int]]:
    """[(first token, count)] of the windows over a context, one every `stride` tokens; the last ends with the context.
    Raises ValueError if `capacity` is below 1."""
    if capacity < 1:
        raise ValueError(f'windows of {capacity} tokens hold no context')
    spans, start = [], 0
    while True:
        count = min(length - start, capacity)
        spans.append((start, count))
        if start + count >= length:
            return spans
        start += min(count, stride)


def span_rows(tokenizer: Tokenizer, examples: Sequence[SpanExample], max_length: int, *, stride: int = 0) -> SpanRows:
    """Encodes questions as rows `<s> question </s></s> window </s>`. Windows without the answer are kept and point at
    BOS, as in the authors' code. stride: of the windows; 0 = `stride_of` the rows."""
    stride = stride or stride_of(max_length)
    questions = tokenizer.encode([e.question for e in examples])
    contexts = _contexts(tokenizer, [e.context for e in examples])
    rows, columns, all_offsets = [], [], []
    for number, example in enumerate(examples):
        check()
        # In rows shorter than the reference's 384 tokens, the context keeps at least half of the tokens.
        question = questions[number][: min(MAX_QUERY, (max_length - tokenizer.pair_specials) // 2)]
        ids, offsets = contexts[example.context]
        all_offsets.append(offsets)
        gold = None
        if example.answers:
            text, begin = example.answers[0]
            gold = answer_tokens(offsets, begin, begin + len(text))
        head = [tokenizer.bos, *question, *tokenizer.middle]
        first = len(head)
        for begin, count in windows(len(ids), max_length - first - 1, stride):
            rows.append(np.concatenate([head, ids[begin : begin + count], [tokenizer.eos]], dtype=np.int32))
            inside = gold is not None and begin <= gold[0] and gold[1] < begin + count
            start, end = (gold[0] - begin + first, gold[1] - begin + first) if inside and gold else (0, 0)
            columns.append((number, start, end, first, count, begin))
    table = np.asarray(columns, np.int32).reshape(-1, 6)
    example, start, end, first, count, begin = table.T
    return SpanRows(Ragged.from_rows(rows), example, start, end, first, count, begin, tuple(all_offsets))


def _contexts(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Encodes each distinct context once, as SQuAD asks five questions about each: {context: (token ids int32 [n],
    character offsets int32 [n, 2])}."""
    distinct = list(dict.fromkeys(texts))
    return {
        text: (np.asarray(ids, np.int32), trimmed_offsets(text, offsets))
        for text, (ids, offsets) in zip(distinct, tokenizer.encode_with_offsets(distinct), strict=True)
    }
