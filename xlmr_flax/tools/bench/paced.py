"""Runs the package's own training loop one block of steps at a time, so that each block can be timed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]


class _Enough(Exception):
    """Raised in the training's thread to end it."""


class Paced:
    """Runs the training `work(log)` in a thread, one block for each call.

    A call continues the training until it logs the next training loss, and returns that record. The loop logs a loss
    when its step has been computed. Between two calls the thread waits inside `log`.
    """

    def __init__(self, work: Callable[[Callable[[Record], None]], None]):
        self._go, self._records = threading.Semaphore(0), queue.SimpleQueue[Record | BaseException]()
        self._ended = False
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Callable[[Record], None]], None]) -> None:
        try:
            self._wait()
            work(self._log)
        except _Enough:
            return
        except BaseException as e:
            self._records.put(e)
            return
        self._records.put(RuntimeError('the training ended by itself'))

    def _wait(self) -> None:
        self._go.acquire()
        if self._ended:
            raise _Enough

    def _log(self, record: Record) -> None:
        if 'loss' in record:
            self._records.put(record)
            self._wait()

    def __call__(self) -> Record:
        """Returns the next record. An exception of the training is raised here."""
        self._go.release()
        record = self._records.get()
        if isinstance(record, BaseException):
            raise record
        return record

    def stop(self) -> None:
        """Stops the training at its current step and joins the thread, which frees its arrays."""
        self._ended = True
        self._go.release()
        with contextlib.suppress(RuntimeError):
            self._thread.join()
