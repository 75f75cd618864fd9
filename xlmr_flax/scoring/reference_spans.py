"""Answers as the scripts that XTREME, jiant and xTune share decode them (transformers, data/metrics/squad_metrics.py).

A span of tokens stands for the white-space words that it touches. What the tokens read as is looked for in these words,
and cut out of them where a character-by-character alignment is found; else the answer is the words as a whole. Scripts
without spaces, clitics and words with punctuation therefore lose what scoring/spans.py's offsets keep.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from xlmr_flax.data.spans import SpanRows
from xlmr_flax.scoring.spans import MAX_ANSWER, N_BEST, Answer, max_context
from xlmr_flax.tasks.base import SpanExample

_WORD_BOUNDARY = '\u2581'  # at the beginning of SentencePiece's pieces
_WORD_SPACES = ' \t\r\n\u202f'  # what parts words; of other white space a word may hold some
_NOTHING = 'empty'  # the scripts' answer where no span is allowed
# First and last of the code points that BERT's tokenizer parts one by one.
_HAN = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip

Pieces = Callable[[Sequence[int]], Sequence[str]]  # token ids -> the pieces of the vocabulary


def decode_reference(
    rows: SpanRows, logits: Sequence[np.ndarray], examples: Sequence[SpanExample], pieces: Pieces, realign: bool = True
) -> list[Answer]:
    """logits: per row float32 [tokens, 2] -> one Answer per example, in order; `start` and `end` are 0.

    As eval.spans.decode, but the 20 best starts and ends are those of the whole row, of which only the context's count,
    and the text is the words'. realign: False answers with what the tokens read as (jiant and xTune, in Chinese). The
    scripts also look at the logits of padding, which are not kept here.
    """
    by_example: list[list[int]] = [[] for _ in examples]
    for i, number in enumerate(rows.example):
        by_example[int(number)].append(i)
    answers = []
    for number, (example, indices) in enumerate(zip(examples, by_example, strict=True)):
        score, null, span = _best_span(rows, logits, indices)
        text = _NOTHING
        if span:
            row, first, last = span
            place = int(rows.first[row])
            ids = rows.tokens[row][place + first : place + last + 1].tolist()
            said = ' '.join(''.join(pieces(ids)).replace(_WORD_BOUNDARY, ' ').split())
            offsets = rows.offsets[number][rows.begin[row] + first : rows.begin[row] + last + 1]
            text = realigned(said, _words(example.context, offsets)) if realign else said
        answers.append(Answer(text, score if span else 0.0, null))
    return answers


def _best_span(
    rows: SpanRows, logits: Sequence[np.ndarray], indices: Sequence[int]
) -> tuple[float, float, tuple[int, int, int] | None]:
    """(score, null score, (row, first and last token of its context) or None where no span is allowed)"""
    best, null, span = -np.inf, np.inf, None
    for row, allowed in zip(indices, max_context(rows, indices), strict=True):
        null = min(null, float(logits[row][0].sum()))
        first, count = int(rows.first[row]), int(rows.count[row])
        start, end = logits[row].astype(np.float64).T
        starts, ends = (np.argsort(-scores, kind='stable')[:N_BEST] - first for scores in (start, end))
        for s in starts.tolist():
            if not 0 <= s < count or not allowed[s]:
                continue
            for e in ends.tolist():
                score = float(start[first + s] + end[first + e])
                if s <= e < min(count, s + MAX_ANSWER) and score > best:
                    best, span = score, (row, s, e)
    return best, null, span


def _words(context: str, offsets: np.ndarray) -> str:
    """The white-space words that tokens with these offsets int32 [n, 2] lie in, joined by single spaces."""
    begin, end = (min(int(place), len(context) - 1) for place in (offsets[0, 0], offsets[-1, 0]))
    while begin > 0 and context[begin - 1] not in _WORD_SPACES:
        begin -= 1
    while end < len(context) and context[end] not in _WORD_SPACES:
        end += 1
    text = context[begin:end]
    for space in _WORD_SPACES[1:]:
        text = text.replace(space, ' ')
    return ' '.join(filter(None, text.split(' ')))


def realigned(said: str, words: str) -> str:
    """The part of `words` that reads as `said`, or all of `words` where none is found.

    said: what the predicted tokens read as, in single spaces. It is looked for in the words as BERT's basic tokenizer
    parts them (`basic_tokens`), and carried over by counting the characters that are no spaces.
    """
    parted = ' '.join(basic_tokens(words))
    start = parted.find(said)
    places, parted_places = ([i for i, c in enumerate(text) if c != ' '] for text in (words, parted))
    if start < 0 or len(places) != len(parted_places):
        return words
    number = {place: i for i, place in enumerate(parted_places)}
    first, last = number.get(start), number.get(start + len(said) - 1)
    if first is None or last is None:
        return words
    return words[places[first] : places[last] + 1]


def basic_tokens(text: str) -> list[str]:
    """The tokens of BERT's basic tokenizer without lower-casing: control characters are left out; white space,
    punctuation and Han characters part."""
    return ''.join(_parted(text)).split()


def _parted(text: str) -> Iterator[str]:
    for char in text:
        category = unicodedata.category(char)
        if char in ' \t\n\r' or category == 'Zs':
            yield ' '
        elif char == '\ufffd' or category[0] == 'C':
            continue
        elif _is_punctuation(char, category) or any(first <= ord(char) <= last for first, last in _HAN):
            yield f' {char} '
        else:
            yield char


def _is_punctuation(char: str, category: str) -> bool:
    """ASCII symbols count, too."""
    return category[0] == 'P' or ('!' <= char <= '~' and not char.isalnum())
