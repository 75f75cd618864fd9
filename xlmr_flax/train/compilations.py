"""Counts the training programs that a process has compiled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_EVENT = '/jax/core/compile/backend_compile_duration'


class Compilations:
    """Number and seconds of the compilations inside `counted`. A program that is read from the compilation cache
    counts as compiled."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        self._inside = threading.local()  # other threads, which write checkpoints, may compile, too
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A context for the call of a training program: compilations inside are counted."""
        self._inside.program = True
        try:
            yield
        finally:
            self._inside.program = False

    def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _EVENT and getattr(self._inside, 'program', False):
            self.count += 1
            self.seconds += duration_secs


# One per process, like compiled programs; JAX cannot remove a listener.
compilations = Compilations()
