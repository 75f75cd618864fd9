"""The data of a training: streams of batches, each with its head, and the mixture that decides which comes when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_flax.data.batches import ALL, Batch, padded_length, rows_at, train_batch, unit_lengths
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.masking import Masking, mask_batch, pack_masked
from xlmr_flax.data.mixture import Mixture, fixed_quotas, stream_seed
from xlmr_flax.data.packing import Layout, Packing
from xlmr_flax.kinds import HeadSpec


@dataclass(frozen=True)
class Stream:
    """The training rows of one dataset in one language.

    name: in logs. head_name: in params['heads']; streams may share one. lengths: row lengths that batches are padded
    to, ascending. seed: of its row order. masking: for kind 'text', else None. packing: how examples share rows, None
    = each has its own.
    """

    name: str
    head_name: str
    head: HeadSpec
    data: Encoded
    lengths: tuple[int, ...]
    seed: int
    masking: Masking | None = None
    packing: Packing | None = None

    def plan(self, draw: int, size: int) -> BatchPlan:
        """The batch of this stream's draw (0-based) of so many examples: a function of the seed and the draw alone."""
        lengths = unit_lengths(self.data, rows_at(draw, len(self.data), size, self.seed))
        return BatchPlan(self, draw, lengths, self.packing.layout(lengths) if self.packing else None)

    def batch(self, draw: int, size: int, pad: int, part: slice = ALL) -> Batch:
        """The host batch of a draw, or these rows of it."""
        return self.plan(draw, size).batch(pad, part)

    def example_ids(self, draw: int, size: int) -> list[str]:
        """The examples of a draw."""
        return [self.data.unit_id(int(row)) for row in rows_at(draw, len(self.data), size, self.seed)]


@dataclass(frozen=True)
class BatchPlan:
    """The batch of one draw of a stream, before its arrays are made. lengths: int [B, N], tokens of the N rows of each
    of its B examples. layout: their places in the rows, where they are packed."""

    stream: Stream
    draw: int
    lengths: np.ndarray
    layout: Layout | None

    @property
    def rows(self) -> int:
        """The number of rows; smaller than the number of examples where they are packed."""
        return self.layout.rows if self.layout else len(self.lengths)

    @property
    def efficiency(self) -> float:
        """Share of the batch's tokens that are not padding."""
        if self.layout:
            return self.layout.efficiency
        length = padded_length(int(self.lengths.max()), self.stream.lengths)
        return float(self.lengths.sum()) / (self.lengths.size * length)

    def batch(self, pad: int, part: slice = ALL) -> Batch:
        """The arrays, or these rows of them, as data/batches.train_batch says; of text as masking.mask_batch."""
        stream, size = self.stream, len(self.lengths)
        take = (stream.data, self.draw, size, stream.seed, stream.lengths, pad)
        if not stream.masking:
            return train_batch(*take, part, self.layout)
        # The masked tokens are drawn for the whole batch, so that they do not depend on `part`.
        found, key = train_batch(*take), (stream.seed, self.draw)
        if self.layout:
            found = pack_masked(found['ids'], found['segments'], key, stream.masking, self.layout, pad)
        else:
            found |= mask_batch(found['ids'], found['segments'], key, stream.masking)
        return {k: v[part] for k, v in found.items()}


@dataclass(frozen=True)
class TrainingData:
    """The streams of a training and their mixture. mix: 'step' (a draw is a step's batch) or 'micro_batch' (a step has
    several)."""

    streams: tuple[Stream, ...]
    mixture: Mixture
    mix: str = 'step'

    @property
    def heads(self) -> dict[str, HeadSpec]:
        """{name: shape} of every head."""
        return {stream.head_name: stream.head for stream in self.streams}

    def draws(self, step: int, parts: int) -> list[tuple[Stream, int]]:
        """(stream, its draw) of the batches of an optimizer step: one, or `parts` micro-batches."""
        per_step = parts if self.mix == 'micro_batch' else 1
        found = (self.mixture.at(step * per_step + i) for i in range(per_step))
        return [(self.streams[stream], draw) for stream, draw in found]

    def counts(self, steps: int, parts: int) -> dict[str, int]:
        """{stream: draws in the first `steps` steps}."""
        counts = self.mixture.counts(steps * (parts if self.mix == 'micro_batch' else 1))
        return dict(zip(self.mixture.names, (int(n) for n in counts), strict=True))


def single(name: str, head_name: str, head: HeadSpec, data: Encoded, lengths: Sequence[int], seed: int) -> TrainingData:
    """One dataset alone."""
    stream = Stream(name, head_name, head, data, tuple(lengths), stream_seed(seed, name, 1))
    return TrainingData((stream,), Mixture((name,), fixed_quotas(np.ones(1)), seed))
