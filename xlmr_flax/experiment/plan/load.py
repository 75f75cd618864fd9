"""The batches of one dataset in a training, described by numbers: rows, row length, share of padding."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xlmr_flax.data.packing import Packing, best_fit, slots_of


@dataclass(frozen=True)
class Load:
    """The batches of one dataset in one training.

    dataset: its name. steps: optimizer steps on it (fractional if a step mixes datasets). parts: micro-batches per
    step. apart: whether each micro-batch is packed separately. packing: None = padded. draws: tokens of each example in
    some sampled steps, int [n, batch_size, N]. length: tokens of a row. whole_table: whether all rows of the word table
    are trained.
    """

    dataset: str
    steps: float
    parts: int
    apart: bool
    packing: Packing | None
    draws: np.ndarray
    length: int
    whole_table: bool = False

    @property
    def group(self) -> int:
        """Number of rows of tokens of an example (the choices of a choice task), else 1."""
        return self.draws.shape[2]

    @property
    def slots(self) -> int:
        """Number of examples that a packed row has room for; 0 = not packed."""
        return slots_of(self.length) if self.packing else 0

    @cached_property
    def _needs(self) -> list[int]:
        """For each sampled step, the packed rows of its examples (of the fullest micro-batch, if they are `apart`)."""
        slots, parts = slots_of(self.length), self.parts if self.apart else 1
        return [
            max(int(best_fit(part, self.length, slots)[0].max(initial=0)) + 1 for part in np.split(draw, parts))
            for draw in self.draws
        ]

    def rows(self, shards: int) -> int:
        """Typical number of rows of a step, over all its micro-batches. shards: devices over which each is sharded."""
        size = self.draws.shape[1]
        if self.packing is None:
            return size
        parts = self.parts if self.apart else 1
        packing = dataclasses.replace(self.packing, multiple=shards * (1 if self.apart else self.parts), parts=parts)
        each = packing.rows(round(float(np.mean(self._needs))), size // parts)
        return each * parts

    def useful(self, shards: int) -> float:
        """Share of a step's tokens that are not padding."""
        tokens = float(self.draws.sum(axis=(1, 2)).mean())
        return tokens / (self.rows(shards) * self.group * self.length)

    def fits(self, shards: int) -> bool:
        """Whether the rows of a micro-batch can be divided among this number of devices."""
        return self.packing is not None or self.draws.shape[1] // self.parts % shards == 0
