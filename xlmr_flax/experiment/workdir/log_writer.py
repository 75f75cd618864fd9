"""Writes log records in the background, so that a training does not wait for a slow file system.

On a mounted bucket a changed file is uploaded as a whole, and an object can be changed about once a second.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

INTERVAL = 10.0  # seconds between two writes

Append = Callable[[Path, str], None]  # appends text to a file; raises OSError


def append(path: Path, text: str) -> None:
    """Appends text to a file. Its OSError names the file, which that of write() and close() does not."""
    try:
        with path.open('a', encoding='utf-8') as file:
            file.write(text)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class LogWriter:
    """Appends lines to files: at once, or within `background` by a thread, at most every `interval` seconds.

    A failure of the thread is raised by the next call. Lines are written in the order of the calls, and none is written
    twice: those of a failed write are lost, as the write may have been carried out in part.
    """

    def __init__(self, interval: float = INTERVAL, write: Append = append):
        self._interval, self._write = interval, write
        self._lock, self._turn = threading.Lock(), threading.Lock()  # of the lines; of writing
        self._waiting: dict[Path, list[str]] = {}
        self._error: OSError | None = None
        self._wake, self._end = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, paths: Sequence[Path], line: str) -> None:
        """Queues a line for each of the files. Raises OSError."""
        self._raise()
        with self._lock:
            for path in paths:
                self._waiting.setdefault(path, []).append(line)
        if self._thread:
            self._wake.set()
        else:
            self.flush()

    def flush(self) -> None:
        """Writes all lines that were added so far. Raises OSError."""
        self._drain()
        self._raise()

    @contextlib.contextmanager
    def background(self) -> Iterator[None]:
        """Context in which a thread writes. All is written when it ends; a failure to write does not replace an
        exception of the block."""
        thread = threading.Thread(target=self._run, name='log', daemon=True)
        self._end.clear()
        thread.start()
        self._thread = thread
        try:
            yield
        except BaseException:
            self._stop()
            with contextlib.suppress(OSError):
                self.flush()
            raise
        self._stop()
        self.flush()

    def _stop(self) -> None:
        self._end.set()
        self._wake.set()
        if self._thread:
            self._thread.join(timeout=5 * self._interval)  # a file system may hang
            self._thread = None

    def _run(self) -> None:
        while not self._end.is_set():
            self._wake.wait()
            self._wake.clear()
            self._drain()
            self._end.wait(self._interval)

    def _drain(self) -> None:
        with self._turn:
            with self._lock:
                taken, self._waiting = self._waiting, {}
            try:
                for path, lines in taken.items():
                    self._write(path, ''.join(lines))
            except OSError as error:
                self._error = error

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error:
            raise error
