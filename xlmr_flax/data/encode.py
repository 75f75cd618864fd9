"""Examples -> encoded examples: tokens and labels as arrays, by task kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from xlmr_flax.data.corpus import text_rows
from xlmr_flax.data.spans import SpanRows, span_rows
from xlmr_flax.data.tagging import TagRows, tag_rows
from xlmr_flax.data.tokenize import Ragged, Tokenizer, choice_rows, pair_rows, single_rows
from xlmr_flax.tasks.base import (
    ChoiceExample,
    Example,
    PairExample,
    SentenceExample,
    SpanExample,
    TagExample,
    Task,
    TaskError,
)

NO_LABEL = -1


@dataclass(frozen=True)
class Encoded:
    """Encoded examples of one task and split.

    kind: as Task.kind. tokens: rows; pair and retrieval have one per example, choice `group` in a row, tag and span
    one or more (the parts of a long sentence, the windows of a context), as text (the pieces of a long one, with ids of
    their own). label int32 [examples], NO_LABEL where the
    file has none (empty for other kinds). ids: example ids in file order. tags, spans: what these kinds need besides.
    """

    kind: str
    tokens: Ragged
    label: np.ndarray
    ids: tuple[str, ...]
    group: int = 1
    tags: TagRows | None = None
    spans: SpanRows | None = None

    def __len__(self) -> int:
        """Units that training draws: examples, or for tags and spans rows (as the reference scripts)."""
        return len(self.tokens) // self.group

    def unit_id(self, unit: int) -> str:
        """The id of the example that a unit belongs to."""
        part = self.tags or self.spans
        return self.ids[int(part.example[unit]) if part else unit]

    def with_tokens(self, tokens: Ragged) -> Encoded:
        """The same examples under other token numbers (the active vocabulary)."""
        return replace(self, tokens=tokens)


def _labels(examples: Sequence[PairExample | ChoiceExample]) -> np.ndarray:
    return np.asarray([NO_LABEL if e.label is None else e.label for e in examples], np.int32)


def _pairs(task: Task, examples: Sequence[PairExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
    first = [e.text_a for e in examples]
    if any(e.text_b is None for e in examples):
        tokens = single_rows(tokenizer, first, max_length)
    else:
        tokens = pair_rows(tokenizer, first, [str(e.text_b) for e in examples], max_length)
    return Encoded('pair', tokens, _labels(examples), _ids(examples))


def _choices(task: Task, examples: Sequence[ChoiceExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
    sizes = {len(e.choices) for e in examples}
    if len(sizes) != 1:
        raise TaskError(f'task {task.name!r}: examples have {sorted(sizes)} choices; one number is expected')
    group = sizes.pop()
    prompts = [e.prompt for e in examples for _ in e.choices]
    tokens = choice_rows(tokenizer, prompts, [c for e in examples for c in e.choices], max_length)
    return Encoded('choice', tokens, _labels(examples), _ids(examples), group)


def _tags(task: Task, examples: Sequence[TagExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
    rows = tag_rows(tokenizer, examples, max_length)
    return Encoded('tag', rows.tokens, np.zeros(0, np.int32), _ids(examples), tags=rows)


def _spans(task: Task, examples: Sequence[SpanExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
    rows = span_rows(tokenizer, examples, max_length)
    return Encoded('span', rows.tokens, np.zeros(0, np.int32), _ids(examples), spans=rows)


def _sentences(task: Task, examples: Sequence[SentenceExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
    texts = [e.text for e in examples]
    if any(e.context for e in examples):
        tokens = pair_rows(tokenizer, texts, [e.context for e in examples], max_length)
    else:
        tokens = single_rows(tokenizer, texts, max_length)
    return Encoded('retrieval', tokens, np.zeros(0, np.int32), _ids(examples))


def _texts(task: Task, examples: Sequence[SentenceExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
    tokens, ids = text_rows(tokenizer, examples, max_length)
    return Encoded('text', tokens, np.zeros(0, np.int32), ids)


def _ids(examples: Sequence[Example]) -> tuple[str, ...]:
    return tuple(e.id for e in examples)


_ENCODERS: dict[str, Callable[..., Encoded]] = {
    'pair': _pairs,
    'choice': _choices,
    'tag': _tags,
    'span': _spans,
    'retrieval': _sentences,
    'text': _texts,
}


def encode(task: Task, examples: Sequence[Example], tokenizer: Tokenizer, max_length: int) -> Encoded:
    """Encodes the examples of a task. Raises TaskError for no examples and for kinds without an encoding."""
    if not examples:
        raise TaskError(f'task {task.name!r}: no examples')
    if task.kind not in _ENCODERS:
        raise TaskError(f'task {task.name!r}: kind {task.kind!r} has no encoding yet')
    return cast(Encoded, _ENCODERS[task.kind](task, examples, tokenizer, max_length))
