"""Encoded examples: tokens and labels as arrays. The encoders of the task kinds are in kinds/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xlmr_flax.data.spans import SpanRows
from xlmr_flax.data.tagging import TagRows
from xlmr_flax.data.tokenize import Ragged

NO_LABEL = -1
NO_LABELS = np.zeros(0, np.int32)


@dataclass(frozen=True)
class Encoded:
    """Encoded examples of one task and split.

    kind: as Task.kind. tokens: the token rows. Pair and retrieval have one row per example; choice has `group`
      consecutive rows per example; tag, span and text have one or more rows per example (parts of a long sentence,
      windows of a context, parts of a long text, which have ids of their own).
    label int32 [examples], NO_LABEL where the file has no label; empty for kinds without a class label.
    ids: example ids in file order. tags, spans: additional arrays of these kinds.
    """

    kind: str
    tokens: Ragged
    label: np.ndarray
    ids: tuple[str, ...]
    group: int = 1
    tags: TagRows | None = None
    spans: SpanRows | None = None

    def __len__(self) -> int:
        """Number of training units: examples, or rows for tags, spans and text (as in the reference scripts)."""
        return len(self.tokens) // self.group

    def unit_id(self, unit: int) -> str:
        """The id of the example that a unit belongs to."""
        part = self.tags or self.spans
        return self.ids[int(part.example[unit]) if part else unit]

    def with_tokens(self, tokens: Ragged) -> Encoded:
        """The same examples with other token ids (after the vocabulary was reduced to the active tokens)."""
        return replace(self, tokens=tokens)


def label_array(labels: Sequence[int | None]) -> np.ndarray:
    """Labels as int32 [examples], NO_LABEL where the file has none."""
    return np.asarray([NO_LABEL if label is None else label for label in labels], np.int32)
