"""Training with one head: its step, called with a batch alone, and the data of one dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.mixture import Mixture, fixed_quotas, stream_seed
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.train import step as module
from xlmr_flax.train.head_padding import ProgramHead
from xlmr_flax.train.streams import Stream, TrainingData


def make_train_step(model: Any, name: str, head: ProgramHead, optimizer: Any, **more: Any) -> Callable[..., Any]:
    """(state, batch, seed key) -> (state, metrics), as module.make_train_step has them for several heads."""
    step = module.make_train_step(model, {name: head}, optimizer, **more)
    return lambda state, batch, key: step(state, [(name, batch)], key)


def single(name: str, head_name: str, head: HeadSpec, data: Encoded, lengths: Sequence[int], seed: int) -> TrainingData:
    """Makes the TrainingData of a single dataset."""
    stream = Stream(name, head_name, head, data, tuple(lengths), stream_seed(seed, name, 1))
    return TrainingData((stream,), Mixture((name,), fixed_quotas(np.ones(1)), seed))
