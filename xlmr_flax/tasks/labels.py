"""Label sets that several tasks share, in head order (jiant: tasks/lib; XTREME: third_party/utils_tag.py)."""

from __future__ import annotations

NLI = ('contradiction', 'entailment', 'neutral')
BINARY = ('0', '1')


def choices(count: int) -> tuple[str, ...]:
    """The labels of a task with `count` choices: '0', '1', ..."""
    return tuple(str(number) for number in range(count))


# Universal POS tags, alphabetical with X last, as XTREME's get_labels.
UPOS = (
    'ADJ', 'ADP', 'ADV', 'AUX', 'CCONJ', 'DET', 'INTJ', 'NOUN', 'NUM',
    'PART', 'PRON', 'PROPN', 'PUNCT', 'SCONJ', 'SYM', 'VERB', 'X',
)  # fmt: skip

# PAN-X entity tags (IOB2), as XTREME's get_labels.
IOB2 = ('B-LOC', 'B-ORG', 'B-PER', 'I-LOC', 'I-ORG', 'I-PER', 'O')

# MasakhaNER's tags. PAN-X's tags come first, so that the outputs of a head trained on PAN-X mean the same tags here.
IOB2_DATE = (*IOB2, 'B-DATE', 'I-DATE')
