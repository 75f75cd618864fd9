"""Profiler traces of training steps, for xprof and TensorBoard's profile plugin.

A process traces one window of steps, in the first training that is long enough. It leaves out the first steps, which
compile. Tracing changes nothing except the time of the traced steps.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from xlmr_flax.parallel import distributed
from xlmr_flax.util.errors import UserError

STEP, DATA, EVALUATE, SAVE = 'train', 'data', 'evaluate', 'save'  # names of the annotations in a trace
_FIRST, _COUNT = 10, 5  # the default window: first step and number of steps


class ProfileError(UserError, ValueError):
    """Raised for an invalid window of steps."""


@dataclass(frozen=True)
class Window:
    """The steps to trace: first to stop - 1, counted from 0 where this process starts to train.

    exact: whether the user gave these numbers; the default window moves to the front in a shorter training.
    """

    first: int = _FIRST
    stop: int = _FIRST + _COUNT
    exact: bool = False

    @classmethod
    def parse(cls, text: str) -> Window | None:
        """Parses --profile: '' and 'false' = None, 'true' = the default, '10:15' = these steps. Raises ProfileError."""
        if text in ('', 'false'):
            return None
        if text == 'true':
            return cls()
        match = re.fullmatch(r'(\d+):(\d+)', text)
        if not match or int(match[1]) >= int(match[2]):
            raise ProfileError(
                f'--profile={text}: expected FIRST:STOP, for steps FIRST to STOP - 1 counted from 0 where the training '
                f'begins, such as --profile={_FIRST}:{_FIRST + _COUNT}; or --profile alone'
            )
        return cls(int(match[1]), int(match[2]), exact=True)

    def within(self, steps: int) -> Window | None:
        """The window in a training with `steps` remaining steps; None if the training ends before the window."""
        if self.exact:
            return Window(self.first, min(self.stop, steps), exact=True) if self.first < steps else None
        stop = min(self.stop, steps)
        return Window(max(stop - _COUNT, min(1, stop - 1)), stop) if stop > 0 else None


@dataclass
class Profiler:
    """The profiler of a process, which writes one trace.

    folder: parent folder of each run's trace. say: called with a message that names the trace's path. taken: the path
    of the trace, None = none so far.
    """

    window: Window
    folder: Path
    say: Callable[[str], None]
    taken: Path | None = None

    def of(self, run: str) -> Trace:
        """Returns the Trace for the training of a run."""
        return Trace(self, self.folder / run)


@dataclass
class Trace:
    """Traces a window of one training. Every process must call `before` and `after` around each step."""

    profiler: Profiler
    folder: Path
    _window: Window | None = field(default=None, init=False)
    _start: int = field(default=-1, init=False)
    _open: bool = field(default=False, init=False)

    def begin(self, start: int, steps: int) -> None:
        """Chooses the window of a training from step `start` to `steps`."""
        if self.profiler.taken is None:
            self._window, self._start = self.profiler.window.within(steps - start), start

    def before(self, step: int, ready: Any) -> None:
        """Starts the trace before the window's first step. ready: arrays that the previous steps compute."""
        if self._window and step - self._start == self._window.first and not self._open:
            jax.block_until_ready(ready)
            self._open_trace()

    def after(self, step: int, ready: Any) -> None:
        """Ends the trace after the window's last step. ready: arrays that this step computes."""
        if self._open and self._window and step - self._start == self._window.stop - 1:
            jax.block_until_ready(ready)
            self.close()

    def _open_trace(self) -> None:
        # The hosts of a job write to one session, one file each. Two processes of one host would write the same file.
        hosts = distributed.gather('profile', socket.gethostname())
        session = distributed.on_leader('profile session', lambda: time.strftime('%Y_%m_%d_%H_%M_%S'))
        folder, own = self.folder, distributed.process_index()
        if hosts.count(hosts[own]) > 1 and own:
            folder = folder / f'process-{own}'
        options = jax.profiler.ProfileOptions()
        options.session_id = session
        options.python_tracer_level = 0  # otherwise every Python call is traced, which slows down the host
        jax.profiler.start_trace(str(folder), profiler_options=options)
        self._open, self.profiler.taken = True, folder / 'plugins' / 'profile' / session

    def close(self) -> None:
        """Writes the trace, if one is open."""
        if not self._open:
            return
        self._open = False
        jax.profiler.stop_trace()
        assert self._window is not None
        first, last = self._start + self._window.first, self._start + self._window.stop - 1
        self.profiler.say(
            f'profile: steps {first} to {last} in {self.profiler.taken}; to open it: pip install xprof && '
            f'xprof --logdir={self.folder} (or tensorboard --logdir={self.folder})'
        )
