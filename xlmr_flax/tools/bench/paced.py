"""A training of the package, let go on block by block: its own loop, with whatever the loop does between steps."""

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
    """Runs `work(log)` in a thread. Each call lets it go on until it next logs a training loss, which the loop does
    when the step behind it is computed, and returns that record; in between it stands still inside `log`.
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
        """The next record. Raises what the training raised."""
        self._go.release()
        found = self._records.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def stop(self) -> None:
        """Ends the training where it stands; its arrays are free then."""
        self._ended = True
        self._go.release()
        with contextlib.suppress(RuntimeError):
            self._thread.join()
