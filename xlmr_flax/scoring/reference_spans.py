"""Reference decoding of QA answers, as in the scripts of XTREME, jiant and xTune (transformers,
data/metrics/squad_metrics.py).

A predicted span of tokens selects the white-space-separated words that it overlaps. The text of the tokens is searched
in these words. If a character-by-character alignment is found, the answer is the matching part, otherwise the whole
words. So for scripts without spaces, clitics and words with punctuation this decoding is less exact than the offsets of
scoring/spans.py.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from xlmr_flax.data.spans import SpanRows
from xlmr_flax.scoring.spans import MAX_ANSWER, N_BEST, Answer, max_context
from xlmr_flax.tasks.base import SpanExample

_WORD_BOUNDARY = '\u2581'  # the first character of a SentencePiece piece that starts a word
_WORD_SPACES = ' \t\r\n\u202f'  # separators of words; other white space may be part of a word
_NOTHING = 'empty'  # the scripts' answer if no span is allowed
# First and last code points of the ranges whose characters are separate tokens in BERT's tokenizer.
_HAN = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip

Pieces = Callable[[Sequence[int]], Sequence[str]]  # token ids -> the pieces of the vocabulary


def decode_reference(
    rows: SpanRows, logits: Sequence[np.ndarray], examples: Sequence[SpanExample], pieces: Pieces, realign: bool = True
) -> list[Answer]:
    """Decodes span logits to one Answer per example, in order; `start` and `end` of the answers are 0.

    logits: for each row float32 [tokens, 2]. Same as scoring.spans.decode, except: the 20 best starts and ends are
    selected from the whole row, and those outside the context are then ignored; the text consists of the context's
    words. realign: False returns the text of the tokens (jiant and xTune do so in Chinese). The scripts also use the
    logits of padding, which are not available here.
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
            answer = ' '.join(''.join(pieces(ids)).replace(_WORD_BOUNDARY, ' ').split())
            offsets = rows.offsets[number][rows.begin[row] + first : rows.begin[row] + last + 1]
            text = realigned(answer, _words(example.context, offsets)) if realign else answer
        answers.append(Answer(text, score if span else 0.0, null))
    return answers


def _best_span(
    rows: SpanRows, logits: Sequence[np.ndarray], indices: Sequence[int]
) -> tuple[float, float, tuple[int, int, int] | None]:
    """The best span of a question: (score, null score, (row, first and last token in the context)); the last is None if
    no span is allowed."""
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
    """The white-space-separated words that contain the tokens with these offsets int32 [n, 2], joined by single
    spaces."""
    begin, end = (min(int(place), len(context) - 1) for place in (offsets[0, 0], offsets[-1, 0]))
    while begin > 0 and context[begin - 1] not in _WORD_SPACES:
        begin -= 1
    while end < len(context) and context[end] not in _WORD_SPACES:
        end += 1
    text = context[begin:end]
    for space in _WORD_SPACES[1:]:
        text = text.replace(space, ' ')
    return ' '.join(filter(None, text.split(' ')))


def realigned(answer: str, words: str) -> str:
    """The part of `words` that matches the text `answer`, or all of `words` if there is no match.

    answer: the text of the predicted tokens, with single spaces. It is searched in the words after BERT's basic
    tokenization (`basic_tokens`). The match is mapped back to `words` by counting characters other than spaces.
    """
    parted = ' '.join(basic_tokens(words))
    start = parted.find(answer)
    places, parted_places = ([i for i, c in enumerate(text) if c != ' '] for text in (words, parted))
    if start < 0 or len(places) != len(parted_places):
        return words
    number = {place: i for i, place in enumerate(parted_places)}
    first, last = number.get(start), number.get(start + len(answer) - 1)
    if first is None or last is None:
        return words
    return words[places[first] : places[last] + 1]


def basic_tokens(text: str) -> list[str]:
    """Tokenizes like BERT's basic tokenizer without lower-casing: removes control characters, splits at white space,
    and makes every punctuation mark and Han character a token."""
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
    """Whether a character is punctuation; all ASCII symbols count as punctuation."""
    return category[0] == 'P' or ('!' <= char <= '~' and not char.isalnum())
