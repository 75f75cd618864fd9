"""Entity precision, recall and F1 as the seqeval package computes them in its default mode.

XTREME scores UDPOS with it as well, on tags without a prefix. seqeval then reads a tag's first letter as its prefix:
'I' of INTJ continues, 'S' of SYM stands alone, and neighbouring equal tags merge into one chunk.
Its versions differ in what is left as the type: 0.0.12, which XTREME's expected scores come from and jiant pins, takes
what is behind the last hyphen, so the whole tag where there is none; 1.2.2 takes what follows the first letter, so that
CCONJ and SCONJ are one type and scores are higher. On B-, I- and O tags they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from xlmr_flax.scoring.metrics.classification import precision_recall_f1

Chunk = tuple[str, int, int]


def _type_1(tag: str) -> str:
    return tag[1:].split('-', maxsplit=1)[-1] or '_'


def _type_0(tag: str) -> str:
    return tag.split('-')[-1]


TYPE_OF: dict[str, Callable[[str], str]] = {'0.0.12': _type_0, '1.2.2': _type_1}
DEFAULT_VERSION = '0.0.12'

# Where a prefix ends or starts a chunk whatever the types are (the rules of conlleval.pl, with E and S).
_ENDS = {('B', 'B'), ('B', 'S'), ('B', 'O'), ('I', 'B'), ('I', 'S'), ('I', 'O')}
_STARTS = {('E', 'E'), ('E', 'I'), ('S', 'E'), ('S', 'I'), ('O', 'E'), ('O', 'I')}


def chunks(tags: Sequence[str], version: str = DEFAULT_VERSION) -> list[Chunk]:
    """(type, first word, last word) of every chunk of one tag sequence, as seqeval's get_entities."""
    type_of = TYPE_OF[version]
    found: list[Chunk] = []
    before, before_type, start = 'O', '', 0
    for i, tag in enumerate(chain(tags, 'O')):
        prefix, kind = tag[0], type_of(tag)
        changed = before_type != kind
        if before in 'ES' or (before, prefix) in _ENDS or (before not in 'O.' and changed):
            found.append((before_type, start, i - 1))
        if prefix in 'BS' or (before, prefix) in _STARTS or (prefix not in 'O.' and changed):
            start = i
        before, before_type = prefix, kind
    return found


def entity_scores(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], version: str = DEFAULT_VERSION
) -> dict[str, float]:
    """{'f1', 'precision', 'recall'} over the chunks of all sentences (micro), as XTREME's evaluate.py.

    version: of seqeval ('0.0.12', '1.2.2'); they differ on tags without a prefix or with several hyphens.
    Raises ValueError when the numbers of sentences or of a sentence's tags differ.
    """
    if len(gold) != len(predicted):
        raise ValueError(f'{len(predicted)} sentences predicted, {len(gold)} in the gold file')
    for i, (right, said) in enumerate(zip(gold, predicted, strict=True), 1):
        if len(right) != len(said):
            raise ValueError(f'sentence {i}: {len(said)} tags predicted, {len(right)} in the gold file')
    gold_chunks, said_chunks = (set(chunks(_joined(side), version)) for side in (gold, predicted))
    return precision_recall_f1(len(gold_chunks & said_chunks), len(said_chunks), len(gold_chunks))


def _joined(sentences: Sequence[Sequence[str]]) -> list[str]:
    """All sentences as one sequence with an 'O' behind each.

    seqeval does so, and it shows: where a chunk of tag 'X' at the start of a sentence begins depends on what was
    before (1.2.2).
    """
    return [tag for sentence in sentences for tag in chain(sentence, 'O')]
