"""Batches for training and evaluation: selects the rows of each step and builds padded or packed arrays.

The stream of training batches is a pure function of (seed, draw). A batch has a fixed number of units: a unit is what
training draws, an example or, for tags, spans and text, one row of tokens (`Encoded.__len__`). The number of array
shapes is small, because each shape compiles once: a padded batch has one of the recipe's row lengths, and a packed
batch has one of a few numbers of rows (data/packing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.packing import Layout, PackedBatch, packed_batches, place, place_segments, place_slots, slots_of
from xlmr_flax.data.tokenize import Ragged

Batch = dict[str, np.ndarray]
ALL = slice(None)  # selects every row of a batch
_LENGTHS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)


def row_lengths(max_length: int, lengths: Sequence[int] = ()) -> tuple[int, ...]:
    """The padded lengths in use, ascending; the last is max_length."""
    return tuple(sorted({n for n in (lengths or _LENGTHS) if n < max_length} | {max_length}))


def padded_length(longest: int, lengths: Sequence[int]) -> int:
    """The shortest of `lengths` that holds `longest` tokens."""
    return next(n for n in lengths if n >= longest)


@lru_cache(maxsize=64)  # holds the current and the next epoch of each stream of a mixture
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)


def units_at(draw: int, n: int, batch_size: int, seed: int) -> np.ndarray:
    """The numbers of the units in a dataset's batch number `draw`, from 0: int64 [batch_size]. Epochs over all n units
    follow one another without a gap, and each epoch has its own permutation."""
    position = np.arange(draw * batch_size, (draw + 1) * batch_size)
    epochs = position // n
    return np.concatenate([_permutation(seed, int(e), n)[position[epochs == e] % n] for e in np.unique(epochs)])


def pad_rows(tokens: Ragged, rows: Sequence[int] | np.ndarray, length: int, pad: int) -> Batch:
    """Pads token rows to {'ids', 'segments'} int32 [len(rows), length]; segment 1 = text, 0 = padding."""
    ids = np.full((len(rows), length), pad, np.int32)
    segments = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        tokens_i = tokens[int(row)]
        ids[i, : len(tokens_i)] = tokens_i
        segments[i, : len(tokens_i)] = 1
    return {'ids': ids, 'segments': segments}


def pad_values(values: Ragged, rows: Sequence[int] | np.ndarray, length: int, fill: int) -> np.ndarray:
    """Pads ragged rows at the end with `fill` to int32 [len(rows), length]."""
    out = np.full((len(rows), length), fill, np.int32)
    for i, row in enumerate(rows):
        values_i = values[int(row)]
        out[i, : len(values_i)] = values_i
    return out


def token_rows(data: Encoded, units: np.ndarray) -> np.ndarray:
    """The row numbers of these units, int64 [units, N]; N = number of choices, else 1."""
    return units[:, None] * data.group + np.arange(data.group)


def unit_lengths(data: Encoded, units: np.ndarray) -> np.ndarray:
    """Number of tokens in each of the N rows of these units, int64 [units, N]; N = number of choices, else 1."""
    rows = token_rows(data, units)
    return data.tokens.offsets[rows + 1] - data.tokens.offsets[rows]


def train_batch(
    data: Encoded,
    draw: int,
    batch_size: int,
    seed: int,
    lengths: Sequence[int],
    pad: int,
    own_rows: slice = ALL,
    layout: Layout | None = None,
) -> Batch:
    """Builds a dataset's training batch number `draw`, from 0, or only its rows `own_rows`. In a mixture, `draw` is
    not the step: a step draws from one of the datasets.

    Every batch has valid float32 [B]. The other arrays depend on the kind of the task:
      pair: ids, segments [B, T], label [B]
      choice: ids, segments [B, N, T], label [B]
      tag: ids, segments, labels [B, T]
      span: ids, segments [B, T], start, end [B]
      mlm: ids, segments [B, T]; data/masking.py adds the labels

    own_rows: T is the length of the whole batch, also when only some of its rows are built.
    layout: the positions of the batch's examples in packed rows [R, T] with S slots. With a layout the result is that
    of `packed_batch`.
    """
    units = units_at(draw, len(data), batch_size, seed)
    if layout is not None:
        return packed_batch(data, units, layout, pad, own_rows)
    rows = token_rows(data, units).reshape(-1)
    length = padded_length(int(data.tokens.lengths[rows].max()), lengths)
    units = units[own_rows]
    rows = token_rows(data, units).reshape(-1)
    batch = pad_rows(data.tokens, rows, length, pad)
    batch['valid'] = np.ones(len(units), np.float32)
    if len(data.label):
        batch['label'] = data.label[units]
    if data.group > 1:
        batch |= {k: batch[k].reshape(len(units), data.group, length) for k in ('ids', 'segments')}
    if data.tags is not None:
        batch['labels'] = pad_values(data.tags.labels, rows, length, IGNORED)
    if data.spans is not None:
        batch |= {'start': data.spans.start[rows], 'end': data.spans.end[rows]}
    return batch


def packed_batch(data: Encoded, units: np.ndarray, layout: Layout, pad: int, own_rows: slice = ALL) -> Batch:
    """Builds a packed batch of these units, or only its rows `own_rows`. The segment number of an example is its
    slot + 1. The arrays depend on the kind of the task:

    pair: ids, segments [R, T], starts, label [R, S], valid float32 [R, S]
    choice: ids, segments [R, N, T], starts [R, N, S], label, valid [R, S]; line n of a row holds the n-th choices of
      the row's examples, one after the other
    tag (and text, which has no labels): ids, segments, labels [R, T], valid [R]
    span: ids, segments [R, T], start, end (token positions in the row), valid [R, S]
    """
    first, stop, _ = own_rows.indices(layout.rows)
    rows, spots = (stop - first, layout.length), (stop - first, layout.slots)

    def slotted(values: np.ndarray) -> np.ndarray:
        return place_slots(values, layout.row, layout.slot, spots, first)

    def line(n: int) -> Batch:
        values, start = [data.tokens[int(u) * data.group + n] for u in units], layout.start[:, n]
        lengths = np.asarray([len(tokens) for tokens in values])
        return {
            'ids': place(values, layout.row, start, rows, pad, first),
            'segments': place_segments(lengths, layout.row, layout.slot, start, rows, first),
            'starts': slotted(start.astype(np.int32)),
        }

    if data.group > 1:
        lines = [line(n) for n in range(data.group)]
        batch = {name: np.stack([each[name] for each in lines], axis=1) for name in lines[0]}
    else:
        batch = line(0)
    if len(data.label):
        return batch | {'label': slotted(data.label[units]), 'valid': slotted(np.ones(len(units), np.float32))}
    starts = batch.pop('starts')
    if data.spans is not None:
        at = layout.start[:, 0]
        ends = {name: slotted((getattr(data.spans, name)[units] + at).astype(np.int32)) for name in ('start', 'end')}
        return batch | ends | {'valid': slotted(np.ones(len(units), np.float32))}
    if data.tags is not None:
        labels = [data.tags.labels[int(u)] for u in units]
        batch['labels'] = place(labels, layout.row, layout.start[:, 0], rows, IGNORED, first)
    return batch | {'valid': np.ones(len(starts), np.float32)}


def eval_batches(
    tokens: Ragged,
    lengths: Sequence[int],
    batch_tokens: int,
    pad: int,
    multiple: int = 1,
    own: Callable[[int], slice] = lambda size: ALL,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yields padded evaluation batches (row numbers, {'ids', 'segments'}) that contain every row once.

    All batches of one length have the same shape: batch_tokens // length rows, rounded up to `multiple` (the number of
    devices along the batch axes). Rows are sorted from long to short, and each batch is as long as its first row needs,
    so that only the last batch is not full. A batch may have more rows than there are row numbers; the rest is padding.
    own: maps the size of a batch to the rows that this process builds. The row numbers are those of the whole batch.
    """
    order = np.argsort(-tokens.lengths, kind='stable')
    start = 0
    while start < len(order):
        length = padded_length(int(tokens.lengths[order[start]]), lengths)
        size = eval_batch_size(length, batch_tokens, multiple)
        rows = order[start : start + size]
        start += size
        made = np.concatenate([rows, np.full(size - len(rows), -1, rows.dtype)])[own(size)]
        real = made[made >= 0]  # padding rows come last
        batch = pad_rows(tokens, real, length, pad)
        missing = len(made) - len(real)
        if missing:
            batch = {
                'ids': np.pad(batch['ids'], ((0, missing), (0, 0)), constant_values=pad),
                'segments': np.pad(batch['segments'], ((0, missing), (0, 0))),
            }
        yield rows, batch


# Tokens in a forward pass of evaluation.
_CPU_PASS = 1024  # more tokens were slower for rows of 128 (docs/benchmarks.md)
_ACCELERATOR_PASS = 8192  # on each device (docs/estimate.md)


def pass_tokens(wanted: int, platform: str, devices: int = 1) -> int:
    """Number of tokens in a forward pass over all devices.

    wanted: evaluation.batch_tokens. 0 means 1,024 on a CPU, and 8,192 for each device of an accelerator ('gpu', 'tpu').
    """
    return wanted or (_CPU_PASS if platform == 'cpu' else _ACCELERATOR_PASS * devices)


def eval_batch_size(length: int, batch_tokens: int, multiple: int = 1) -> int:
    """Number of rows in an evaluation batch whose rows have `length` tokens, a multiple of `multiple`."""
    return max(1, -(-(batch_tokens // length) // multiple)) * multiple


def packed_eval_batches(
    tokens: Ragged,
    lengths: Sequence[int],
    batch_tokens: int,
    pad: int,
    multiple: int = 1,
    own: Callable[[int], slice] = lambda size: ALL,
) -> Iterator[tuple[PackedBatch, Batch]]:
    """Yields packed evaluation batches that contain every row once: (positions of the rows, {'ids', 'segments'
    [size, T], 'starts' [size, S]}).

    Shapes are those of `packing.packed_batches`. own: maps the size of a batch to the rows that this process builds.
    """
    sizes = tokens.lengths
    for packed in packed_batches(sizes, lengths, batch_tokens, multiple):
        first, stop, _ = own(packed.size).indices(packed.size)
        shape = (stop - first, packed.length)
        values = [tokens[i] for i in packed.item.tolist()]
        starts = packed.start.astype(np.int32)
        yield (
            packed,
            {
                'ids': place(values, packed.row, packed.start, shape, pad, first),
                'segments': place_segments(sizes[packed.item], packed.row, packed.slot, packed.start, shape, first),
                'starts': place_slots(starts, packed.row, packed.slot, (shape[0], slots_of(packed.length)), first),
            },
        )
