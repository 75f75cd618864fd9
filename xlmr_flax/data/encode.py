"""Examples -> encoded examples: tokens and labels as arrays, by task kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from xlmr_flax.data.tokenize import Ragged, Tokenizer, pair_rows, single_rows
from xlmr_flax.tasks.base import Example, PairExample, SentenceExample, Task, TaskError

NO_LABEL = -1


@dataclass(frozen=True)
class Encoded:
    """Encoded examples of one task and split.

    kind: as Task.kind. tokens: one row per example. label int32 [n], NO_LABEL where the file has none (empty for
    retrieval). ids: example ids in file order.
    """

    kind: str
    tokens: Ragged
    label: np.ndarray
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


def encode(task: Task, examples: Sequence[Example], tokenizer: Tokenizer, max_length: int) -> Encoded:
    """Encodes examples of a 'pair' or 'retrieval' task. Raises TaskError for kinds without an encoder."""
    ids = tuple(e.id for e in examples)
    if task.kind == 'retrieval':
        sentences = [cast(SentenceExample, e).text for e in examples]
        return Encoded('retrieval', single_rows(tokenizer, sentences, max_length), np.zeros(0, np.int32), ids)
    if task.kind == 'pair':
        pairs = cast(Sequence[PairExample], examples)
        if any(e.text_b is None for e in pairs):
            tokens = single_rows(tokenizer, [e.text_a for e in pairs], max_length)
        else:
            tokens = pair_rows(tokenizer, [e.text_a for e in pairs], [str(e.text_b) for e in pairs], max_length)
        label = np.asarray([NO_LABEL if e.label is None else e.label for e in pairs], np.int32)
        return Encoded('pair', tokens, label, ids)
    raise TaskError(f'task {task.name!r}: training and prediction of kind {task.kind!r} are not built yet')
