"""Traces of training steps that xprof and TensorBoard's profile plugin open.

One process traces one window of steps, of the first training that is long enough. The first steps compile and are
left out.
Nothing else changes by it but the time that the traced steps take.
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

STEP, DATA, EVALUATE, SAVE = 'train', 'data', 'evaluate', 'save'  # names of what is annotated in a trace
_FIRST, _COUNT = 10, 5  # the steps that are traced where nothing was asked for


class ProfileError(UserError, ValueError):
    """A window of steps that cannot be traced."""


@dataclass(frozen=True)
class Window:
    """Steps first to stop - 1, counted from 0 where this process begins to train. exact: as asked for; else they are
    moved to the front in a shorter training."""

    first: int = _FIRST
    stop: int = _FIRST + _COUNT
    exact: bool = False

    @classmethod
    def parse(cls, text: str) -> Window | None:
        """'' and 'false': None; 'true': the default; '10:15': these. Raises ProfileError."""
        if text in ('', 'false'):
            return None
        if text == 'true':
            return cls()
        found = re.fullmatch(r'(\d+):(\d+)', text)
        if not found or int(found[1]) >= int(found[2]):
            raise ProfileError(
                f'--profile={text}: expected FIRST:STOP, for steps FIRST to STOP - 1 counted from 0 where the training '
                f'begins, such as --profile={_FIRST}:{_FIRST + _COUNT}; or --profile alone'
            )
        return cls(int(found[1]), int(found[2]), exact=True)

    def within(self, steps: int) -> Window | None:
        """The window of a training that has so many steps left; None where it ends before."""
        if self.exact:
            return Window(self.first, min(self.stop, steps), exact=True) if self.first < steps else None
        stop = min(self.stop, steps)
        return Window(max(stop - _COUNT, min(1, stop - 1)), stop) if stop > 0 else None


@dataclass
class Profiler:
    """What a process was asked to trace. folder: each run's trace lies below it. say: told where that is. taken: the
    path of the trace, once there is one."""

    window: Window
    folder: Path
    say: Callable[[str], None]
    taken: Path | None = None

    def of(self, run: str) -> Trace:
        """For the training of a run."""
        return Trace(self, self.folder / run)


@dataclass
class Trace:
    """The window of one training: `before` and `after` are called around each of its steps, by every process."""

    profiler: Profiler
    folder: Path
    _window: Window | None = field(default=None, init=False)
    _start: int = field(default=-1, init=False)
    _open: bool = field(default=False, init=False)

    def begin(self, start: int, steps: int) -> None:
        """The training goes from step `start` to `steps`."""
        if self.profiler.taken is None:
            self._window, self._start = self.profiler.window.within(steps - start), start

    def before(self, step: int, ready: Any) -> None:
        """ready: arrays that are there when the steps before this one are done."""
        if self._window and step - self._start == self._window.first and not self._open:
            jax.block_until_ready(ready)
            self._open_trace()

    def after(self, step: int, ready: Any) -> None:
        """ready: arrays that are there when this step is done."""
        if self._open and self._window and step - self._start == self._window.stop - 1:
            jax.block_until_ready(ready)
            self.close()

    def _open_trace(self) -> None:
        # The hosts of a job write into one session, a file each; two processes of one host would write one file.
        hosts = distributed.gather('profile', socket.gethostname())
        session = distributed.on_leader('profile session', lambda: time.strftime('%Y_%m_%d_%H_%M_%S'))
        folder, own = self.folder, distributed.index()
        if hosts.count(hosts[own]) > 1 and own:
            folder = folder / f'process-{own}'
        options = jax.profiler.ProfileOptions()
        options.session_id = session
        options.python_tracer_level = 0  # every call of a Python function would be in it, and slow the host down
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
