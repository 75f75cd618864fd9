"""Console output: lines, and a progress line with speed and time left."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_quiet = False  # of the process, as its standard output is


def be_quiet() -> None:
    """Turns the output of `say` and `Line` off: of several processes with one job, only one prints."""
    global _quiet
    _quiet = True


def duration(seconds: float) -> str:
    """'42s', '3m05s', '2h10m'."""
    s = round(seconds)
    if s < 60:
        return f'{s}s'
    return f'{s // 60}m{s % 60:02d}s' if s < 3600 else f'{s // 3600}h{s % 3600 // 60:02d}m'


def say(text: str) -> None:
    """One line on standard output, at once."""
    if _quiet:
        return
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


class Line:
    """Progress of one piece of work: call it as the work goes on, `close` it with the outcome."""

    def __init__(self, label: str, unit: str = 'examples', stream: TextIO | None = None):
        self.label, self.unit, self.stream = label, unit, stream or sys.stderr
        self.started = time.monotonic()
        self.drawn, self.open = self.started, False
        self.first: tuple[float, int, int] | None = None

    def __call__(self, done: int, total: int, examples: int, **values: float) -> None:
        """done of total steps; examples: seen so far. Draws at most twice a second (every 10 s where lines are
        kept).
        """
        if _quiet:
            return
        now = time.monotonic()
        if self.first is None:  # the first call is behind compilation: speed counts from here
            self.first = (now, done, examples)
        terminal = self.stream.isatty()
        if now - self.drawn < (0.5 if terminal else 10.0) and not (done == total and terminal):
            return
        self.drawn = now
        since, done0, examples0 = self.first
        elapsed = now - since
        text = f'{self.label}  {done}/{total}'
        if done > done0 and elapsed > 0:
            text += f'  {(examples - examples0) / elapsed:.1f} {self.unit}/s'
            text += f'  {duration((total - done) * elapsed / (done - done0))} left'
        text += ''.join(f'  {k} {v:.4g}' for k, v in values.items())
        if terminal:
            self.stream.write('\r\x1b[K' + text[:120])
            self.open = True
        else:
            self.stream.write(text + '\n')
        self.stream.flush()

    def close(self, text: str = '') -> None:
        """Ends the line with what came of the work and how long it took."""
        if _quiet:
            return
        took = duration(time.monotonic() - self.started)
        start = '\r\x1b[K' if self.open else ''
        self.stream.write(f'{start}{self.label}  {text}{"  " if text else ""}{took}\n')
        self.stream.flush()
        self.open = False
