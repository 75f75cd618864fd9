"""The count of training programs that a process has compiled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_EVENT = '/jax/core/compile/backend_compile_duration'


class Compilations:
    """The number of programs that were compiled, or read from the compilation cache, inside `counted`, and the seconds
    that this took."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        self._inside = threading.local()  # checkpoints are written by other threads, which may compile, too
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Around the call of a training program: what is compiled inside counts."""
        self._inside.program = True
        try:
            yield
        finally:
            self._inside.program = False

    def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _EVENT and getattr(self._inside, 'program', False):
            self.count += 1
            self.seconds += duration_secs


# One a process, as compiled programs are; JAX has no way to remove a listener.
compilations = Compilations()
