"""The data of a training: streams of batches, each with its head, and the mixture that schedules them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xlmr_flax.data.batches import ALL, Batch, padded_length, train_batch, unit_lengths, units_at
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.masking import Masking, mask_batch, pack_masked
from xlmr_flax.data.mixture import Mixture
from xlmr_flax.data.packing import Layout, Packing
from xlmr_flax.kinds import HeadSpec


@dataclass(frozen=True)
class Stream:
    """The training rows of one dataset in one language.

    name: for logs. head_name: its head in params['heads']; streams may share one. row_lengths: numbers of
    tokens to which rows are padded, ascending. seed: of the row order. masking: for masked language modelling, else
    None. packing: how examples share rows, None = one example per row.
    """

    name: str
    head_name: str
    head: HeadSpec
    data: Encoded
    row_lengths: tuple[int, ...]
    seed: int
    masking: Masking | None = None
    packing: Packing | None = None

    def plan(self, draw: int, size: int) -> BatchPlan:
        """Plans the batch of a draw (0-based) of `size` examples. It depends only on the seed and the draw."""
        counts = unit_lengths(self.data, units_at(draw, len(self.data), size, self.seed))
        return BatchPlan(self, draw, counts, self.packing.layout(counts) if self.packing else None)

    def example_ids(self, draw: int, size: int) -> list[str]:
        """Returns the ids of the examples of a draw."""
        return [self.data.unit_id(int(unit)) for unit in units_at(draw, len(self.data), size, self.seed)]


@dataclass(frozen=True)
class BatchPlan:
    """The plan of one batch: the draw of a stream, before its arrays are made.

    token_counts: int64 [B, N], tokens of the N rows of each of the B examples. layout: the positions of the examples in
    packed rows, None = not packed.
    """

    stream: Stream
    draw: int
    token_counts: np.ndarray
    layout: Layout | None

    @property
    def rows(self) -> int:
        """The number of rows; smaller than the number of examples when packed."""
        return self.layout.rows if self.layout else len(self.token_counts)

    @property
    def efficiency(self) -> float:
        """The share of the batch's tokens that are not padding."""
        if self.layout:
            return self.layout.efficiency
        length = padded_length(int(self.token_counts.max()), self.stream.row_lengths)
        return float(self.token_counts.sum()) / (self.token_counts.size * length)

    def batch(self, pad: int, own_rows: slice = ALL) -> Batch:
        """Makes the arrays of data/batches.train_batch (masked LM: masking.mask_batch), or only some of their rows."""
        stream, size = self.stream, len(self.token_counts)
        take = (stream.data, self.draw, size, stream.seed, stream.row_lengths, pad)
        if not stream.masking:
            return train_batch(*take, own_rows, self.layout)
        # Masked tokens are sampled for the whole batch, so that they do not depend on `own_rows`.
        arrays, key = train_batch(*take), (stream.seed, self.draw)
        if self.layout:
            arrays = pack_masked(arrays['ids'], arrays['segments'], key, stream.masking, self.layout, pad)
        else:
            arrays |= mask_batch(arrays['ids'], arrays['segments'], key, stream.masking)
        return {k: v[own_rows] for k, v in arrays.items()}


@dataclass(frozen=True)
class TrainingData:
    """The streams of a training and their mixture.

    mix: 'step' (each draw is the batch of one step) or 'micro_batch' (a step has several draws).
    """

    streams: tuple[Stream, ...]
    mixture: Mixture
    mix: str = 'step'

    @property
    def heads(self) -> dict[str, HeadSpec]:
        """Returns {name: HeadSpec} of all heads."""
        return {stream.head_name: stream.head for stream in self.streams}

    def draws(self, step: int, micro_batches: int) -> list[tuple[Stream, int]]:
        """Returns (stream, its draw) of each batch of an optimizer step: one batch, or as many as `micro_batches`."""
        per_step = micro_batches if self.mix == 'micro_batch' else 1
        drawn = (self.mixture.at(step * per_step + i) for i in range(per_step))
        return [(self.streams[stream], draw) for stream, draw in drawn]

    def counts(self, steps: int, micro_batches: int) -> dict[str, int]:
        """Returns {stream name: number of its draws in the first `steps` steps}."""
        counts = self.mixture.counts(steps * (micro_batches if self.mix == 'micro_batch' else 1))
        return dict(zip(self.mixture.names, (int(n) for n in counts), strict=True))
