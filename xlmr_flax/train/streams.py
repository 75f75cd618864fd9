"""What a phase trains on: streams of batches, each with its head, and the mixture that says which is drawn when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlmr_flax.data.batches import ALL, Batch, rows_at, train_batch
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.masking import Masking, mask_batch
from xlmr_flax.data.mixture import Mixture, fixed_quotas, stream_seed
from xlmr_flax.models.model import HeadSpec


@dataclass(frozen=True)
class Stream:
    """The training rows of one dataset in one language.

    name: in logs. head_name: in params['heads']; streams may share one. lengths: row lengths that batches are padded
    to, ascending. seed: of its row order. masking: for kind 'text', else None.
    """

    name: str
    head_name: str
    head: HeadSpec
    data: Encoded
    lengths: tuple[int, ...]
    seed: int
    masking: Masking | None = None

    def batch(self, draw: int, size: int, pad: int, part: slice = ALL) -> Batch:
        """The host batch of this stream's draw (0-based), or these rows of it: a function of the seed and the draw
        alone.
        """
        if not self.masking:
            return train_batch(self.data, draw, size, self.seed, self.lengths, pad, part)
        # Which tokens are masked is drawn for the whole batch: its rows are cut out behind that.
        found = train_batch(self.data, draw, size, self.seed, self.lengths, pad)
        found |= mask_batch(found['ids'], found['segments'], (self.seed, draw), self.masking)
        return {k: v[part] for k, v in found.items()}

    def example_ids(self, draw: int, size: int) -> list[str]:
        """The examples of a draw."""
        return [self.data.unit_id(int(row)) for row in rows_at(draw, len(self.data), size, self.seed)]


@dataclass(frozen=True)
class Blend:
    """Streams and their mixture. mix: 'step' (a draw is a step's batch) or 'micro_batch' (a step has several)."""

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


def single(name: str, head_name: str, head: HeadSpec, data: Encoded, lengths: Sequence[int], seed: int) -> Blend:
    """One dataset alone."""
    stream = Stream(name, head_name, head, data, tuple(lengths), stream_seed(seed, name, 1))
    return Blend((stream,), Mixture((name,), fixed_quotas(np.ones(1)), seed))
