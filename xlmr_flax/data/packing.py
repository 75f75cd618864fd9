"""Several examples in one row: which goes where, so that hardly a token is padding.

A packed row holds segments one behind the other, numbered from 1; attention stays within a segment and positions
restart in it (encoders/encoder.py), so that an example is computed as if it were alone (Krell et al. 2021, Efficient
sequence packing without cross-contamination). A head reads at the segments' starts. A segment's place among those of
its row is its slot.

Packing decides where the examples of a step lie and not which they are. It is a function of their lengths alone: of
neither hosts nor devices, on which only the number of empty rows at the end depends. Dropout's mask follows the place
(encoders/dropout.py), so that every mesh drops the same.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_TOKENS_A_SLOT = 8  # a row of T tokens has T / 8 slots: rows of shorter examples than that are not filled
_SHORTEST = 128  # rows of evaluation: below this attention costs next to nothing, and longer rows are filled better
_LEAST = 0.85  # of the rows that a batch of examples of mean length fills: fewer are rare
_SMALLER = 4  # last evaluation batches may have this part of the rows, and this part of that
_SPARE = 8  # of a last batch's rows one of so many may be empty before smaller ones are taken


def slots_of(length: int) -> int:
    """Segments that a row of so many tokens may hold."""
    return max(1, length // _TOKENS_A_SLOT)


def row_counts(most: int) -> tuple[int, ...]:
    """The numbers of rows that packed batches may have, ascending, up to the first that is `most` or more: 1 to 16,
    then eight in each octave (18, 20, ... 32, 36, ...), so that few programs are compiled and rounding up costs little.
    """
    found, step = [1], 1
    while found[-1] < most:
        if found[-1] >= 16 * step:
            step *= 2
        found.append(found[-1] + step)
    return tuple(found)


@dataclass(frozen=True)
class Layout:
    """Where n examples lie. row, slot int64 [n]; start int64 [n, N]: the first token of each of an example's N lines
    within its row (N choices, else 1). rows: of the batch, with empty ones at its end. length: tokens of a row, slots:
    its segments at most. tokens: those of the examples.
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
        """Share of the batch's tokens that are not padding."""
        return self.tokens / (self.rows * self.start.shape[1] * self.length)


@dataclass(frozen=True)
class Packing:
    """How the batches of a stream are packed.

    length: tokens of a row. mean: of the examples, tokens of their longest line: batches have at least 0.85 of the rows
    that so many fill, which saves programs for the few that would do with less. multiple: batches have a multiple of
    so many rows (devices along the batch axes). parts: micro-batches that are packed each by itself, because clipping
    looks at each one's gradient; 1 = examples may change places within a step.
    """

    length: int
    mean: float
    multiple: int = 1
    parts: int = 1

    @classmethod
    def of(cls, sizes: np.ndarray, lengths: Sequence[int], multiple: int = 1, parts: int = 1) -> Packing:
        """For examples with these tokens, int [n, N]. Rows become as long as the longest needs, rounded up to one of
        `lengths` (ascending)."""
        longest = sizes.max(axis=1, initial=1)
        length = lengths[bisect_left(lengths, int(longest.max(initial=1)))]
        return cls(length, float(longest.mean()) if len(longest) else 1.0, multiple, parts)

    def rows(self, need: int, examples: int) -> int:
        """Rows of a batch that needs so many; a part's, where there are several."""
        expected = math.ceil(_LEAST * examples * self.mean / self.length)
        need, most = (-(-n // self.multiple) for n in (max(need, expected), examples))
        counts = row_counts(need)
        return min(counts[bisect_left(counts, need)], most) * self.multiple

    def counts(self, examples: int) -> tuple[int, ...]:
        """Every number of rows that a batch of so many examples can have."""
        each = examples // self.parts
        return tuple(dict.fromkeys(self.parts * self.rows(need, each) for need in range(1, each + 1)))

    def layout(self, lengths: np.ndarray) -> Layout:
        """Of a batch: lengths int [B, N], B a multiple of `parts`."""
        slots = slots_of(self.length)
        packed = [best_fit(part, self.length, slots) for part in np.split(lengths, self.parts)]
        each = self.rows(max(int(row.max(initial=0)) + 1 for row, _, _ in packed), len(lengths) // self.parts)
        row, slot, start = (np.concatenate(values) for values in zip(*packed, strict=True))
        row = row + np.repeat(np.arange(self.parts) * each, len(lengths) // self.parts)
        return Layout(row, slot, start, each * self.parts, self.length, slots, int(lengths.sum()))


def best_fit(lengths: np.ndarray, capacity: int, slots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, slot [n], start [n, N]) of examples whose N lines have these lengths, int [n, N] in 1..capacity: from long
    to short, each into the fullest row that holds it on all N lines (best-fit decreasing), else into a new one.
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
    """A row of evaluation: `length` tokens of room; items: row numbers of the set, in the order of their slots."""

    length: int
    items: tuple[int, ...]


def pack_set(lengths: np.ndarray, classes: Sequence[int]) -> list[PackedRow]:
    """Packs a whole set, int [n]: every row is as long as its first, longest item needs (one of `classes`, ascending;
    those below 128 are not used, unless the last is one), and what is left of it takes shorter items, the longest that
    is still to be placed first. Rows come from long to short.
    """
    known = [n for n in classes if n >= min(_SHORTEST, classes[-1])]
    capacity, items = [], []
    # By the room that is left: numbers of rows; and a bit for each room that some row has, to find the least that fits.
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
    """Rows of evaluation that are computed together. size: rows of the batch, of which the last ones may be empty.
    item, row, slot, start int64 [n]: the set's rows in it, and where each lies."""

    size: int
    length: int
    item: np.ndarray
    row: np.ndarray
    slot: np.ndarray
    start: np.ndarray


def packed_batches(
    lengths: np.ndarray, classes: Sequence[int], batch_tokens: int, multiple: int = 1
) -> Iterator[PackedBatch]:
    """Every row of a set once. Batches of one row length have one size, batch_tokens // length rounded up to
    `multiple`, but the last ones, which may have a fourth or a sixteenth of it: what is left is cut into such parts, so
    that small sets are not mostly padding.
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
            first_of_row = np.searchsorted(row, row)  # the item that its row begins with
            start = ends - lengths[item] - (ends - lengths[item])[first_of_row]
            yield PackedBatch(size, length, item, row, np.arange(len(item)) - first_of_row, start)


def _next_size(left: int, sizes: Sequence[int]) -> int:
    """Which of these sizes (ascending) the next batch of so many rows has: the least that holds them all and is nearly
    full, else the largest that they fill."""
    at = bisect_left(sizes, left)
    if at < len(sizes) and (at == 0 or _SPARE * (sizes[at] - left) <= sizes[at]):
        return sizes[at]
    return sizes[at - 1]


def batch_sizes(length: int, batch_tokens: int, multiple: int = 1) -> tuple[int, ...]:
    """Rows that packed evaluation batches of rows of so many tokens may have, ascending."""
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
    """int32 `shape` [rows, T] with values[i] in row[i] from start[i] on, `fill` elsewhere. first: the number of the
    first row that is made; values of rows outside are left out."""
    out = np.full(shape, fill, np.int32)
    for value, at, begin in zip(values, (row - first).tolist(), start.tolist(), strict=True):
        if 0 <= at < shape[0]:
            out[at, begin : begin + len(value)] = value
    return out


def place_segments(
    lengths: np.ndarray, row: np.ndarray, slot: np.ndarray, start: np.ndarray, shape: tuple[int, int], first: int = 0
) -> np.ndarray:
    """int32 `shape` [rows, T]: slot + 1 on each token, 0 on padding."""
    out = np.zeros(shape, np.int32)
    spots = zip(lengths.tolist(), (row - first).tolist(), slot.tolist(), start.tolist(), strict=True)
    for length, at, number, begin in spots:
        if 0 <= at < shape[0]:
            out[at, begin : begin + length] = number + 1
    return out


def place_slots(
    values: np.ndarray, row: np.ndarray, slot: np.ndarray, shape: tuple[int, int], first: int = 0
) -> np.ndarray:
    """`shape` [rows, S] with values[i] at (row[i], slot[i]) and 0 elsewhere, in the dtype of `values`."""
    out = np.zeros(shape, values.dtype)
    own = (row >= first) & (row < first + shape[0])
    out[row[own] - first, slot[own]] = values[own]
    return out
