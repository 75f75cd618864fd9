"""Encoded rows in a file that a process without JAX can read, and batches as transformers' collators make them."""

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
    """Encoded rows of a set.

    flat int32 and offsets int64 [rows + 1]: the tokens. `group` rows form a unit (the choices of
    an example). targets, depending on the kind: label [units]; start and end [units]; or labels, int32 like flat.
    """

    flat: np.ndarray
    offsets: np.ndarray
    group: int
    pad: int
    targets: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.group

    @property
    def lengths(self) -> np.ndarray:
        """int64 [units]: number of tokens in the longest row of each unit."""
        return np.diff(self.offsets).reshape(-1, self.group).max(1)

    def batch(self, units: Sequence[int] | np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The batch of these units, padded to `length` tokens: int64 arrays ids, segments (1 = text) and targets."""
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
        batch = {'ids': ids, 'segments': segments}
        if self.group > 1:
            batch = {k: v.reshape(len(units), self.group, length) for k, v in batch.items()}
        if 'labels' in self.targets:
            return batch | {'labels': labels}
        return batch | {k: v[np.asarray(units)].astype(np.int64) for k, v in self.targets.items()}


def write_rows(path: Path, data: Encoded, pad: int) -> None:
    """Writes an encoded set to an .npz file, for `read_rows`."""
    targets = {'label': data.label} if len(data.label) else {}
    if data.tags is not None:
        targets = {'labels': data.tags.labels.flat}
    if data.spans is not None:
        targets = {'start': data.spans.start, 'end': data.spans.end}
    arrays = {f'target_{k}': v for k, v in targets.items()}
    about = np.asarray([data.group, pad], np.int64)
    np.savez(path, allow_pickle=False, flat=data.tokens.flat, offsets=data.tokens.offsets, about=about, **arrays)


def read_rows(path: Path) -> Rows:
    """Reads a file that `write_rows` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    targets = {k.removeprefix('target_'): v for k, v in arrays.items() if k.startswith('target_')}
    group, pad = map(int, arrays['about'])
    return Rows(arrays['flat'], arrays['offsets'], group, pad, targets)
