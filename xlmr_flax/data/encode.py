"""Encoded examples: tokens and labels as arrays. The task kinds make them (kinds/)."""

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


def label_array(labels: Sequence[int | None]) -> np.ndarray:
    """int32 [examples], NO_LABEL where the file has none."""
    return np.asarray([NO_LABEL if label is None else label for label in labels], np.int32)
