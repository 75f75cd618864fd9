"""Entity precision, recall and F1, the same as those of the seqeval package in its default mode.

XTREME also uses it for UDPOS, on tags without a prefix. Then seqeval reads the first letter of a tag as its prefix: 'I'
of INTJ continues a chunk, 'S' of SYM is a chunk of one word, and adjacent equal tags merge into one chunk.
The versions of seqeval differ in the type of a tag. 0.0.12, which jiant pins and which gave XTREME's expected scores,
takes the text after the last hyphen, or the whole tag if there is no hyphen. 1.2.2 takes the text after the first
letter, so that CCONJ and SCONJ are the same type and scores are higher. For B-, I- and O tags both versions agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from xlmr_flax.scoring.metrics.classification import precision_recall_f1

Chunk = tuple[str, int, int]


def _type_1(tag: str) -> str:
    return tag[1:].split('-', maxsplit=1)[-1] or '_'


def _type_0(tag: str) -> str:
    return tag.split('-')[-1]


TYPE_OF: dict[str, Callable[[str], str]] = {'0.0.12': _type_0, '1.2.2': _type_1}
DEFAULT_VERSION = '0.0.12'

# Pairs of prefixes (previous, current) that end or start a chunk for any types (rules of conlleval.pl, with E and S).
_ENDS = {('B', 'B'), ('B', 'S'), ('B', 'O'), ('I', 'B'), ('I', 'S'), ('I', 'O')}
_STARTS = {('E', 'E'), ('E', 'I'), ('S', 'E'), ('S', 'I'), ('O', 'E'), ('O', 'I')}


def chunks(tags: Sequence[str], version: str = DEFAULT_VERSION) -> list[Chunk]:
    """The chunks of a tag sequence as (type, first word, last word), the same as seqeval's get_entities."""
    type_of = TYPE_OF[version]
    result: list[Chunk] = []
    before, before_type, start = 'O', '', 0
    for i, tag in enumerate(chain(tags, 'O')):
        prefix, kind = tag[0], type_of(tag)
        changed = before_type != kind
        if before in 'ES' or (before, prefix) in _ENDS or (before not in 'O.' and changed):
            result.append((before_type, start, i - 1))
        if prefix in 'BS' or (before, prefix) in _STARTS or (prefix not in 'O.' and changed):
            start = i
        before, before_type = prefix, kind
    return result


def chunk_counts(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], version: str = DEFAULT_VERSION
) -> np.ndarray:
    """Counts the chunks of each sentence: int64 [n, 3], those that are correct, predicted and gold.

    version: version of seqeval ('0.0.12', '1.2.2'); they differ for tags without a prefix or with several hyphens.
    Raises ValueError if the numbers of sentences or of a sentence's tags differ.
    """
    if len(gold) != len(predicted):
        raise ValueError(f'{len(predicted)} sentences predicted, {len(gold)} in the gold file')
    for i, (right, guess) in enumerate(zip(gold, predicted, strict=True), 1):
        if len(right) != len(guess):
            raise ValueError(f'sentence {i}: {len(guess)} tags predicted, {len(right)} in the gold file')
    gold_chunks, predicted_chunks = (set(chunks(_joined(side), version)) for side in (gold, predicted))
    starts = np.cumsum([0, *(len(tags) + 1 for tags in gold)])  # of the sentences in the joined sequence
    counts = np.zeros((len(gold), 3), np.int64)
    for column, some in enumerate((gold_chunks & predicted_chunks, predicted_chunks, gold_chunks)):
        sentences = np.searchsorted(starts, [start for _, start, _ in some], side='right') - 1
        counts[:, column] = np.bincount(sentences, minlength=len(gold))
    return counts


def entity_scores(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], version: str = DEFAULT_VERSION
) -> dict[str, float]:
    """Computes {'f1', 'precision', 'recall'} in percent over the chunks of all sentences (micro average), as XTREME's
    evaluate.py. Takes the arguments of `chunk_counts` and raises its errors."""
    return precision_recall_f1(*chunk_counts(gold, predicted, version).sum(0).tolist())


def _joined(sentences: Sequence[Sequence[str]]) -> list[str]:
    """Joins all sentences to one sequence with an 'O' after each sentence.

    seqeval does the same, and this affects the result: in 1.2.2 the start of a chunk with tag 'X' at the start of a
    sentence depends on the tags before it.
    """
    return [tag for sentence in sentences for tag in chain(sentence, 'O')]
