"""Predictions for a user's own rows: one record per row with the prediction and its confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_flax.data.encode import Encoded
from xlmr_flax.eval.predict import Forward, head_outputs
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.kinds.base import Record
from xlmr_flax.tasks.base import Example

_WIDTH = 100  # characters of a readable line


def predict_records(
    forward: Forward,
    name: str,
    head: HeadSpec,
    examples: Sequence[Example],
    data: Encoded,
    labels: Sequence[str],
) -> list[Record]:
    """Predicts one record for each example, in order; `Kind.records` of the head's kind defines its fields. data: the
    encoded examples. labels: names of the head's outputs."""
    out = head_outputs(forward, name, head, data.tokens, scored_tags=True)
    return kind_of(head).records(examples, data, out, labels)


def readable(head: HeadSpec, example: Example, record: Mapping[str, Any]) -> str:
    """A record as one line of readable text: the prediction and the start of the input text."""
    shown, text = kind_of(head).summary(example, dict(record))
    text, left = ' '.join(text.split()), max(_WIDTH - len(shown), 10)
    return shown + (text if len(text) <= left else text[: left - 3] + '...')
