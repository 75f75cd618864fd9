"""Console output: single lines, and a progress line with the speed and the time left."""

from __future__ import annotations

import sys
import time

_quiet = False  # one value per process, since standard output is one per process


def be_quiet() -> None:
    """Turns off the output of `say`, `warn` and `Line`: in a multi-process job, only one process prints."""
    global _quiet
    _quiet = True


def duration(seconds: float) -> str:
    """Formats a duration: '42s', '3m05s' or '2h10m'."""
    s = round(seconds)
    if s < 60:
        return f'{s}s'
    return f'{s // 60}m{s % 60:02d}s' if s < 3600 else f'{s // 3600}h{s % 3600 // 60:02d}m'


def say(text: str) -> None:
    """Prints one line on standard output and flushes it."""
    if _quiet:
        return
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def warn(text: str) -> None:
    """Writes one line 'warning: ...' on standard error."""
    if not _quiet:
        sys.stderr.write(f'warning: {text}\n')
        sys.stderr.flush()


class Line:
    """Progress line of one task: call it after each step, and `close` it with the result."""

    def __init__(self, label: str, unit: str = 'examples'):
        self.label, self.unit, self.stream = label, unit, sys.stderr
        self.started = time.monotonic()
        self.drawn, self.open = self.started, False
        self.first: tuple[float, int, int] | None = None

    def __call__(self, done: int, total: int, examples: int, **values: float) -> None:
        """Shows that `done` of `total` steps are complete. examples: number processed so far.

        Updates a terminal at most twice a second, and any other stream at most every 10 s.
        """
        if _quiet:
            return
        now = time.monotonic()
        if self.first is None:  # the first call comes after compilation: the speed is measured from here
            self.first = (now, done, examples)
        terminal = self.stream.isatty()
        if now - self.drawn < (0.5 if terminal else 10.0) and not (done == total and terminal):
            return
        self.drawn = now
        since, done0, examples0 = self.first
        elapsed = now - since
        text = f'{self.label}  {done}/{total}'
        if done > done0 and elapsed > 0:
            rate = (examples - examples0) / elapsed
            text += f'  {rate:.{1 if rate >= 1 else 2}f} {self.unit}/s'
            text += f'  {duration((total - done) * elapsed / (done - done0))} left'
        text += ''.join(f'  {k} {v:.4g}' for k, v in values.items())
        if terminal:
            self.stream.write('\r\x1b[K' + text[:120])
            self.open = True
        else:
            self.stream.write(text + '\n')
        self.stream.flush()

    def close(self, text: str = '') -> None:
        """Ends the line with `text` (the result) and the elapsed time."""
        if _quiet:
            return
        took = duration(time.monotonic() - self.started)
        start = '\r\x1b[K' if self.open else ''
        self.stream.write(f'{start}{self.label}  {text}{"  " if text else ""}{took}\n')
        self.stream.flush()
        self.open = False
