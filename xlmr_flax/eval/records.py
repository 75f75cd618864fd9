"""Outputs of a head on a user's own rows: one record for each, with the prediction and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_flax.data.encode import Encoded
from xlmr_flax.eval.predict import Forward, Tick, head_outputs
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.kinds.base import Record
from xlmr_flax.tasks.base import Example


def predict_records(
    forward: Forward,
    name: str,
    head: HeadSpec,
    examples: Sequence[Example],
    data: Encoded,
    labels: Sequence[str],
    tick: Tick | None = None,
) -> list[Record]:
    """One record for each example, in order, with the fields that Kind.records of its kind names. data: the examples,
    encoded. labels: names of the head's outputs."""
    out = head_outputs(forward, name, head, data.tokens, scored_tags=True, tick=tick)
    return kind_of(head).records(examples, data, out, labels)


def readable(head: HeadSpec, example: Example, record: Mapping[str, Any], width: int = 100) -> str:
    """One line for a person: the prediction and the beginning of the text."""
    said, text = kind_of(head).summary(example, dict(record))
    text, left = ' '.join(text.split()), max(width - len(said), 10)
    return said + (text if len(text) <= left else text[: left - 3] + '...')
