"""Decodes start and end logits of windows to one answer per question (n-best decoding as in the reference scripts)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_flax.data.spans import SpanRows
from xlmr_flax.tasks.base import SpanExample

N_BEST, MAX_ANSWER = 20, 30


@dataclass(frozen=True)
class Answer:
    """A decoded answer.

    text: the best non-empty answer ('' only if no span is allowed). score: its start logit + end logit. null: the
    lowest BOS + BOS score over the windows; null - score above a threshold means 'no answer' (SQuAD v2). start, end:
    the character range [start, end) of the text in the context (0, 0 if the text is '').
    """

    text: str
    score: float
    null: float
    start: int = 0
    end: int = 0


Decoder = Callable[[SpanRows, Sequence[np.ndarray], Sequence[SpanExample]], list[Answer]]


def max_context(rows: SpanRows, indices: Sequence[int]) -> list[np.ndarray]:
    """For each window of one question, a mask of the context tokens that have their maximum context in this window (the
    reference's token_is_max_context: min(left, right) + 0.01 x window length; among equals the first window)."""
    begins, counts = rows.begin[list(indices)], rows.count[list(indices)]
    total = int((begins + counts).max())
    position = np.arange(total)
    left, right = position[None] - begins[:, None], begins[:, None] + counts[:, None] - 1 - position[None]
    score = np.where((left >= 0) & (right >= 0), np.minimum(left, right) + 0.01 * counts[:, None], -np.inf)
    best = score.argmax(0)
    return [best[b : b + c] == i for i, (b, c) in enumerate(zip(begins, counts, strict=True))]


def decode(rows: SpanRows, logits: Sequence[np.ndarray], examples: Sequence[SpanExample]) -> list[Answer]:
    """Decodes span logits to one Answer per example, in order. logits: for each row float32 [tokens, 2].

    A span is inside the context of one window, starts at a token with its maximum context in this window, and has at
    most 30 tokens. The 20 best starts and ends of each window are combined. Among equal scores, the first window and
    token win.
    """
    by_example: list[list[int]] = [[] for _ in examples]
    for i, number in enumerate(rows.example):
        by_example[int(number)].append(i)
    return [_best(rows, logits, indices, examples[n], rows.offsets[n]) for n, indices in enumerate(by_example)]


def _best(
    rows: SpanRows, logits: Sequence[np.ndarray], indices: list[int], example: SpanExample, offsets: np.ndarray
) -> Answer:
    best, null = -np.inf, np.inf
    where: tuple[int, int] | None = None
    for i, allowed in zip(indices, max_context(rows, indices), strict=True):
        null = min(null, float(logits[i][0].sum()))
        first, count = int(rows.first[i]), int(rows.count[i])
        start, end = logits[i][first : first + count].astype(np.float64).T
        starts = [s for s in np.argsort(-start, kind='stable')[:N_BEST] if allowed[s]]
        ends = np.argsort(-end, kind='stable')[:N_BEST]
        for s in starts:
            for e in ends:
                if s <= e < s + MAX_ANSWER and start[s] + end[e] > best:
                    a, b = offsets[rows.begin[i] + s, 0], offsets[rows.begin[i] + e, 1]
                    if b > a:
                        best, where = float(start[s] + end[e]), (int(a), int(b))
    begin, end = where or (0, 0)
    return Answer(example.context[begin:end], best, null, begin, end)
