"""Encoded rows in a file that a process without JAX reads, and batches of them as transformers' collators make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xlmr_flax.data.labels import IGNORED

if TYPE_CHECKING:
    from xlmr_flax.data.encode import Encoded


@dataclass(frozen=True)
class Rows:
    """kind: of the task. flat int32, offsets int64 [rows + 1]: the tokens; `group` rows are a unit (choices). targets:
    by kind label [units]; start, end [units]; labels int32 like flat.
    """

    kind: str
    flat: np.ndarray
    offsets: np.ndarray
    group: int
    pad: int
    targets: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.group

    @property
    def lengths(self) -> np.ndarray:
        """int64 [units]: tokens of a unit's longest row."""
        return np.diff(self.offsets).reshape(-1, self.group).max(1)

    def batch(self, units: Sequence[int] | np.ndarray, length: int) -> dict[str, np.ndarray]:
        """int64 arrays of these units, padded to `length` tokens: ids, segments (1 = text), and the targets."""
        rows = [int(u) * self.group + i for u in units for i in range(self.group)]
        ids = np.full((len(rows), length), self.pad, np.int64)
        segments = np.zeros((len(rows), length), np.int64)
        labels = np.full((len(rows), length), IGNORED, np.int64)
        for at, row in enumerate(rows):
            first, end = self.offsets[row], self.offsets[row + 1]
            ids[at, : end - first] = self.flat[first:end]
            segments[at, : end - first] = 1
            if 'labels' in self.targets:
                labels[at, : end - first] = self.targets['labels'][first:end]
        found = {'ids': ids, 'segments': segments}
        if self.group > 1:
            found = {k: v.reshape(len(units), self.group, length) for k, v in found.items()}
        if 'labels' in self.targets:
            return found | {'labels': labels}
        return found | {k: v[np.asarray(units)].astype(np.int64) for k, v in self.targets.items()}


def write_rows(path: Path, data: Encoded, pad: int) -> None:
    """Keeps an encoded set for `read_rows`."""
    targets = {'label': data.label} if len(data.label) else {}
    if data.tags is not None:
        targets = {'labels': data.tags.labels.flat}
    if data.spans is not None:
        targets = {'start': data.spans.start, 'end': data.spans.end}
    arrays = {f'target_{k}': v for k, v in targets.items()}
    kind = np.asarray([ord(c) for c in data.kind], np.int32)
    about = np.asarray([data.group, pad], np.int64)
    np.savez(
        path, allow_pickle=False, flat=data.tokens.flat, offsets=data.tokens.offsets, kind=kind, about=about, **arrays
    )


def read_rows(path: Path) -> Rows:
    """What `write_rows` kept."""
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    kind = ''.join(map(chr, found['kind']))
    targets = {k.removeprefix('target_'): v for k, v in found.items() if k.startswith('target_')}
    group, pad = map(int, found['about'])
    return Rows(kind, found['flat'], found['offsets'], group, pad, targets)
