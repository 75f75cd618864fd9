"""Sequence packing: places several examples in one row, so that few tokens are padding.

A packed row holds consecutive segments, numbered from 1. Attention is restricted to a segment and positions restart in
it (encoders/encoder.py), so that an example gives the same result as in a row of its own (Krell et al. 2021, Efficient
sequence packing without cross-contamination). A head reads the hidden states at the segments' starts. The index of a
segment within its row is its slot.

Packing determines the positions of a step's examples, not their selection. It depends only on the lengths of the
examples, not on hosts or devices; these change only the number of empty rows at the end. The dropout mask depends on
the position (encoders/dropout.py), so that it is the same on every mesh.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_TOKENS_A_SLOT = 8  # a row of T tokens has T / 8 slots; rows of examples shorter than this are not filled
_SHORTEST = 128  # minimum row length in evaluation: below it attention is cheap, and longer rows pack better
_LEAST = 0.85  # lower bound of the rows, as a fraction of what examples of mean length fill; fewer are rare
_SMALLER = 4  # the last evaluation batches may have 1/4 or 1/16 of the rows
_SPARE = 8  # up to 1/8 of the rows of a last batch may be empty; otherwise smaller batches are used


def slots_of(length: int) -> int:
    """Maximum number of segments in a row of `length` tokens."""
    return max(1, length // _TOKENS_A_SLOT)


def row_counts(most: int) -> tuple[int, ...]:
    """The allowed numbers of rows of packed batches, ascending, up to the first that is at least `most`.

    They are 1 to 16, then eight in each octave (18, 20, ... 32, 36, ...), so that few programs are compiled and
    rounding up adds few empty rows.
    """
    counts, step = [1], 1
    while counts[-1] < most:
        if counts[-1] >= 16 * step:
            step *= 2
        counts.append(counts[-1] + step)
    return tuple(counts)


@dataclass(frozen=True)
class Layout:
    """The positions of n examples in the rows of a packed batch.

    row, slot int64 [n]. start int64 [n, N]: the position in the row at which each of the N lines of an example starts
    (N is the number of choices, else 1). rows: number of rows of the batch, including empty rows at the end. length:
    number of tokens in a row. slots: maximum number of segments in a row. tokens: number of tokens of all examples.
    """

    row: np.ndarray
    slot: np.ndarray
    start: np.ndarray
    rows: int
    length: int
    slots: int
    tokens: int

    @property
    def efficiency(self) -> float:
        """Fraction of the batch's tokens that are not padding."""
        return self.tokens / (self.rows * self.start.shape[1] * self.length)


@dataclass(frozen=True)
class Packing:
    """Packing parameters of a stream.

    length: number of tokens in a row. mean: mean over the examples of the number of tokens in their longest line. A
      batch has at least 0.85 of the rows that examples of this length fill; this avoids compiling programs for the few
      batches that need fewer rows.
    multiple: the number of rows is a multiple of this (the number of devices along the batch axes).
    parts: number of micro-batches that are packed separately, because the running sum of gradients is clipped after
      each one; 1 = the whole step is packed together.
    """

    length: int
    mean: float
    multiple: int = 1
    parts: int = 1

    @classmethod
    def of(cls, sizes: np.ndarray, lengths: Sequence[int], multiple: int = 1, parts: int = 1) -> Packing:
        """Packing for examples with these numbers of tokens, int [n, N]. The row length is that of the longest example,
        rounded up to one of `lengths` (ascending)."""
        longest = sizes.max(axis=1, initial=1)
        length = lengths[bisect_left(lengths, int(longest.max(initial=1)))]
        return cls(length, float(longest.mean()) if len(longest) else 1.0, multiple, parts)

    def rows(self, need: int, examples: int) -> int:
        """Number of rows for a batch (of one part, if there are several) that needs at least `need` rows."""
        expected = math.ceil(_LEAST * examples * self.mean / self.length)
        need, most = (-(-n // self.multiple) for n in (max(need, expected), examples))
        counts = row_counts(need)
        return min(counts[bisect_left(counts, need)], most) * self.multiple

    def counts(self, examples: int) -> tuple[int, ...]:
        """Every possible number of rows of a batch with `examples` examples."""
        each = examples // self.parts
        return tuple(dict.fromkeys(self.parts * self.rows(need, each) for need in range(1, each + 1)))

    def layout(self, lengths: np.ndarray) -> Layout:
        """Packs a batch. lengths: int [B, N]; B is a multiple of `parts`."""
        slots = slots_of(self.length)
        packed = [best_fit(part, self.length, slots) for part in np.split(lengths, self.parts)]
        each = self.rows(max(int(row.max(initial=0)) + 1 for row, _, _ in packed), len(lengths) // self.parts)
        row, slot, start = (np.concatenate(values) for values in zip(*packed, strict=True))
        row = row + np.repeat(np.arange(self.parts) * each, len(lengths) // self.parts)
        return Layout(row, slot, start, each * self.parts, self.length, slots, int(lengths.sum()))


def best_fit(lengths: np.ndarray, capacity: int, slots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best-fit decreasing bin packing; returns (row [n], slot [n], start [n, N]).

    lengths: int [n, N] in 1..capacity, the lengths of the N lines of each example. From long to short, each example is
    placed in the fullest row that has room for it on all N lines, else in a new row.
    """
    n, lines = lengths.shape
    row, slot, start = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros((n, lines), np.int64)
    used, count = np.zeros((n, lines), np.int64), np.zeros(n, np.int64)
    rows = 0
    for i in np.argsort(-lengths.sum(axis=1), kind='stable'):
        after = used[:rows] + lengths[i]
        fits = (after <= capacity).all(axis=1) & (count[:rows] < slots)
        at = int(np.argmax(np.where(fits, after.sum(axis=1), -1))) if fits.any() else rows
        rows += at == rows
        row[i], slot[i], start[i] = at, count[at], used[at]
        used[at] += lengths[i]
        count[at] += 1
    return row, slot, start


@dataclass(frozen=True)
class PackedRow:
    """A packed evaluation row. length: its capacity in tokens. items: row numbers of the set, in the order of slots."""

    length: int
    items: tuple[int, ...]


def pack_set(lengths: np.ndarray, classes: Sequence[int]) -> list[PackedRow]:
    """Packs a whole evaluation set with these lengths, int [n].

    Items are placed from long to short, each in the row with the least room that fits it, else in a new row. The length
    of a new row is the smallest of `classes` (ascending) that holds this item. Classes below 128 are not used, unless
    the last one is below 128. Rows are returned from long to short.
    """
    known = [n for n in classes if n >= min(_SHORTEST, classes[-1])]
    capacity, items = [], []
    # by_room[r]: the rows with r free tokens. Bit r of `rooms` is set if there is such a row: finds the best fit fast.
    by_room: list[list[int]] = [[] for _ in range(known[-1] + 1)]
    rooms = 0
    for i in np.argsort(-lengths, kind='stable').tolist():
        length = int(lengths[i])
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            at = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            at, room = len(items), known[bisect_left(known, length)]
            capacity.append(room)
            items.append([])
        items[at].append(i)
        room -= length
        if room and len(items[at]) < slots_of(capacity[at]):
            by_room[room].append(at)
            rooms |= 1 << room
    return [PackedRow(n, tuple(held)) for n, held in zip(capacity, items, strict=True)]


@dataclass(frozen=True)
class PackedBatch:
    """A packed evaluation batch. size: number of rows, of which the last ones may be empty. length: tokens of a row.
    item int64 [n]: the set's rows in this batch. row, slot, start int64 [n]: the position of each."""

    size: int
    length: int
    item: np.ndarray
    row: np.ndarray
    slot: np.ndarray
    start: np.ndarray


def packed_batches(
    lengths: np.ndarray, classes: Sequence[int], batch_tokens: int, multiple: int = 1
) -> Iterator[PackedBatch]:
    """Yields packed batches that contain every row of a set once.

    Batches of one row length have the same size: batch_tokens // length rows, rounded up to `multiple`. Only the last
    batches may have a fourth or a sixteenth of it, so that small sets are not mostly padding.
    """
    rows = pack_set(lengths, classes)
    for length in dict.fromkeys(row.length for row in rows):
        alike = [row.items for row in rows if row.length == length]
        sizes = batch_sizes(length, batch_tokens, multiple)
        first = 0
        while first < len(alike):
            size = _next_size(len(alike) - first, sizes)
            part = alike[first : first + size]
            first += size
            item = np.asarray([i for items in part for i in items], np.int64)
            row = np.repeat(np.arange(len(part)), [len(items) for items in part])
            ends = np.cumsum(lengths[item])
            first_of_row = np.searchsorted(row, row)  # for each item: the first item of its row
            start = ends - lengths[item] - (ends - lengths[item])[first_of_row]
            yield PackedBatch(size, length, item, row, np.arange(len(item)) - first_of_row, start)


def _next_size(left: int, sizes: Sequence[int]) -> int:
    """Size of the next batch if `left` rows remain: the smallest of `sizes` (ascending) that holds them all, if it is
    nearly full; else the largest size that they fill."""
    at = bisect_left(sizes, left)
    if at < len(sizes) and (at == 0 or _SPARE * (sizes[at] - left) <= sizes[at]):
        return sizes[at]
    return sizes[at - 1]


def batch_sizes(length: int, batch_tokens: int, multiple: int = 1) -> tuple[int, ...]:
    """The allowed numbers of rows of packed evaluation batches with rows of `length` tokens, ascending."""
    sizes, full = set(), max(1, batch_tokens // length)
    for part in (1, _SMALLER, _SMALLER**2):
        sizes.add(-(-max(1, full // part) // multiple) * multiple)
    return tuple(sorted(sizes))


def place(
    values: Sequence[np.ndarray],
    row: np.ndarray,
    start: np.ndarray,
    shape: tuple[int, int],
    fill: int,
    first: int = 0,
) -> np.ndarray:
    """int32 `shape` [rows, T] with values[i] in row[i] from start[i] on and `fill` elsewhere. first: the number of the
    first row in the output; values of rows outside the output are skipped."""
    out = np.full(shape, fill, np.int32)
    for value, at, begin in zip(values, (row - first).tolist(), start.tolist(), strict=True):
        if 0 <= at < shape[0]:
            out[at, begin : begin + len(value)] = value
    return out


def place_segments(
    lengths: np.ndarray, row: np.ndarray, slot: np.ndarray, start: np.ndarray, shape: tuple[int, int], first: int = 0
) -> np.ndarray:
    """Segment numbers as int32 `shape` [rows, T]: slot + 1 on each token, 0 on padding."""
    out = np.zeros(shape, np.int32)
    spots = zip(lengths.tolist(), (row - first).tolist(), slot.tolist(), start.tolist(), strict=True)
    for length, at, number, begin in spots:
        if 0 <= at < shape[0]:
            out[at, begin : begin + length] = number + 1
    return out


def place_slots(
    values: np.ndarray, row: np.ndarray, slot: np.ndarray, shape: tuple[int, int], first: int = 0
) -> np.ndarray:
    """Places values by slot: `shape` [rows, S] with values[i] at (row[i], slot[i]) and 0 elsewhere, in the dtype of
    `values`. first: as in `place`."""
    out = np.zeros(shape, values.dtype)
    own = (row >= first) & (row < first + shape[0])
    out[row[own] - first, slot[own]] = values[own]
    return out
