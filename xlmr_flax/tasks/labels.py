"""Label sets that several tasks share, in head order (protocol: jiant's task library, XTREME's utils_tag.py)."""

from __future__ import annotations

NLI = ('contradiction', 'entailment', 'neutral')
BINARY = ('0', '1')

# Universal POS tags, alphabetical with X last, as XTREME's get_labels.
UPOS = (
    'ADJ', 'ADP', 'ADV', 'AUX', 'CCONJ', 'DET', 'INTJ', 'NOUN', 'NUM',
    'PART', 'PRON', 'PROPN', 'PUNCT', 'SCONJ', 'SYM', 'VERB', 'X',
)  # fmt: skip

# PAN-X entity tags (IOB2), as XTREME's get_labels.
IOB2 = ('B-LOC', 'B-ORG', 'B-PER', 'I-LOC', 'I-ORG', 'I-PER', 'O')
