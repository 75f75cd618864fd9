"""Encodes tagged words: the first sub-token of each word has the label. Long sentences are split, never truncated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.tasks.base import TagExample
from xlmr_flax.util.stopping import check

Row = tuple[list[int], list[int], list[int]]  # tokens, word_starts, labels


@dataclass(frozen=True)
class TagRows:
    """Encoded rows of tagged sentences.

    tokens: the rows. word_starts: Ragged like tokens, 1 on each word's first sub-token, 0 elsewhere. labels: Ragged
    like tokens, the tag on each word's first sub-token, IGNORED elsewhere. example int32 [rows]: the number of the
    row's sentence; the parts of a sentence are in order.
    """

    tokens: Ragged
    word_starts: Ragged
    labels: Ragged
    example: np.ndarray


def _pieces(
    tokenizer: Tokenizer, examples: Sequence[TagExample], budget: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Maps each word to its sub-tokens: (as the first word of a sentence, as a later one).

    A word without sub-tokens (a lone zero-width character) or with more than a row holds becomes <unk>, as in XTREME's
    utils_preprocess.py.
    """
    words = sorted({word for example in examples for word in example.words})
    unknown = np.asarray([tokenizer.unk], np.int32)

    def table(first: bool) -> dict[str, np.ndarray]:
        tokens = tokenizer.encode_words(words, first=first)
        return {word: tokens[i] if 0 < len(tokens[i]) <= budget else unknown for i, word in enumerate(words)}

    later = table(first=False)
    return (table(first=True) if tokenizer.marks_blanks else later), later


def tag_rows(tokenizer: Tokenizer, examples: Sequence[TagExample], max_length: int) -> TagRows:
    """Encodes sentences word by word, as XTREME and jiant do for these tasks.

    A sentence with more sub-tokens than a row holds is split into several rows at word boundaries. A row holds
    max_length - 3 sub-tokens in XLM-R and max_length - 2 in BERT, as in XTREME's utils_preprocess.py.
    """
    budget = max_length - tokenizer.pair_specials + 1
    beginnings, later = _pieces(tokenizer, examples, budget)
    rows: list[Row] = []
    parents: list[int] = []
    for number, example in enumerate(examples):
        check()
        row = _new_row(tokenizer)
        tags = example.tags if example.tags is not None else (IGNORED,) * len(example.words)
        for place, (word, tag) in enumerate(zip(example.words, tags, strict=True)):
            piece = (later if place else beginnings)[word]
            if len(row[0]) - 1 + len(piece) > budget:
                rows.append(_closed(tokenizer, *row))
                parents.append(number)
                row = _new_row(tokenizer)
            row[0].extend(int(t) for t in piece)
            row[1].extend([1] + [0] * (len(piece) - 1))
            row[2].extend([tag] + [IGNORED] * (len(piece) - 1))
        rows.append(_closed(tokenizer, *row))
        parents.append(number)
    tokens, word_starts, labels = (Ragged.from_rows([row[i] for row in rows]) for i in range(3))
    return TagRows(tokens, word_starts, labels, np.asarray(parents, np.int32))


def _new_row(tokenizer: Tokenizer) -> Row:
    return [tokenizer.bos], [0], [IGNORED]


def _closed(tokenizer: Tokenizer, tokens: list[int], word_starts: list[int], labels: list[int]) -> Row:
    return [*tokens, tokenizer.eos], [*word_starts, 0], [*labels, IGNORED]


def join_words(rows: TagRows, per_token: Sequence[np.ndarray], sentences: int) -> list[np.ndarray]:
    """Selects the values of each word's first sub-token and joins the parts of each sentence: [tokens, ...] for each
    row -> [words, ...] for each sentence."""
    parts: list[list[np.ndarray]] = [[] for _ in range(sentences)]
    for i, values in enumerate(per_token):
        parts[int(rows.example[i])].append(values[rows.word_starts[i] == 1])
    return [np.concatenate(part) for part in parts]


def join_tags(rows: TagRows, row_tags: Sequence[np.ndarray], sentences: int) -> list[list[int]]:
    """Converts the tags of each row's tokens to one tag per word of each sentence and joins the parts of sentences."""
    return [tags.tolist() for tags in join_words(rows, row_tags, sentences)]
