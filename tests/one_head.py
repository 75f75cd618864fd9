"""The training step of a model with one head, called with a batch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xlmr_flax.train import step as module
from xlmr_flax.train.head_padding import ProgramHead


def make_train_step(model: Any, head: ProgramHead, optimizer: Any, **more: Any) -> Callable[..., Any]:
    """(state, batch, seed key) -> (state, metrics), as module.make_train_step has them for several heads."""
    step = module.make_train_step(model, {head.name: head}, optimizer, **more)
    return lambda state, batch, key: step(state, [(head.name, batch)], key)
