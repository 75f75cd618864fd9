"""Stop requests: SIGTERM and Ctrl-C set a flag, and the work checks the flag where it can stop without losing results.

    with requests():                 # installs the handlers; if nested, only the outermost does
        for piece in work:
            check()                  # raises Stopped after a signal
        with deferred():             # check() does nothing here: the block calls asked() and saves first

The handler only records the signal. It does not raise: Python drops an exception that is raised in a callback of the
garbage collector, in a __del__ and in some other places, and the request would be lost.

A second signal ends the process at once, with exit code 128 + signal. Results and checkpoints are written atomically,
so that this damages none of them; a log to which lines are appended may lose its last line. Python runs its handlers
only between two instructions of the main thread, which can be late while XLA compiles. The interpreter therefore also
writes each signal to a pipe at once (signal.set_wakeup_fd), and a thread reads the pipe.

Work that does not check the flag is in a `raised` block, in which a signal raises Interrupted. The entry point calls
`end_at_once`, so that a signal at any time is one line and exit code 128 + signal.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A further signal within these seconds belongs to the same request: timeout(1) sends its signal to the process and to
# its group, and with Ctrl-C a process may receive the terminal's signal and that of a script that forwards it.
SAME_REQUEST = 0.5
_END = b'\0'  # written to the pipe to end the thread


class Stopped(BaseException):
    """Raised when the work has stopped on request. Finished results, and what the message names, are saved.

    Like KeyboardInterrupt it is not an Exception, so that `except Exception` does not treat it as a failure.
    code: the exit code, 128 + signal.
    """

    def __init__(self, text: str):
        super().__init__(text)
        self.code = 128 + (_now.number or signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Raised by a signal in a `raised` block. code: the exit code, 128 + signal."""

    def __init__(self, number: int):
        super().__init__()
        self.code = 128 + number


class _Now:
    """The state of this process. number: the signal of the request, 0 = none. arrived: set by the listener thread when
    a signal arrives. deferred: check() does nothing. listener: that of the outermost `requests`. raised_at: when a
    signal raised Interrupted, by time.monotonic(); 0 = never."""

    number = 0
    deferred = False
    raised_at = 0.0
    listener: _Listener | None = None
    arrived = threading.Event()


_now = _Now()  # one per process, as signal handlers are


class _Listener:
    """Installs the handlers of both signals and a thread that notices a second one; `close` restores the old state."""

    def __init__(self) -> None:
        self.before: dict[int, Any] = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._pipe_before = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name='signals', daemon=True)
        self._thread.start()
        self.install()

    def install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, _note)

    def close(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._pipe_before)
        os.write(self._writes, _END)
        self._thread.join()
        os.close(self._reads)
        os.close(self._writes)

    def _listen(self) -> None:
        first = 0.0
        while True:
            for number in os.read(self._reads, 64):
                if number == _END[0]:
                    return
                if number not in SIGNALS:  # belongs to other handlers
                    continue
                if not first:
                    first = time.monotonic()
                    _note(number)
                    _now.arrived.set()  # not in the handler: it may interrupt code that holds the event's lock
                elif time.monotonic() - first > SAME_REQUEST:
                    _end_process(number, 'second ')


def _note(number: int, frame: Any = None) -> None:
    _now.number = _now.number or number


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _take_over(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Installs a handler of both signals and returns the previous ones; a signal that is ignored stays so (nohup).

    A forked child does not react as its parent does: there, the signal has its default effect.
    """
    owner = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() == owner:
            handler(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    found: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: each for number, each in found.items() if each not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handle)
    return before


def _end(number: int, frame: Any = None) -> None:
    if _now.raised_at and time.monotonic() - _now.raised_at <= SAME_REQUEST:
        return
    _end_process(number)


def _end_process(number: int, which: str = '') -> NoReturn:
    """Ends the process with one line and exit code 128 + number. which: 'second ' for a second signal."""
    with contextlib.suppress(OSError):  # standard error may be closed, or a pipe without a reader
        os.write(2, f'{which}{signal.Signals(number).name}: ended at once\n'.encode())
    os._exit(128 + number)


def end_at_once() -> None:
    """Lets SIGTERM and SIGINT end this process with one line, from now on, except in `requests` and `raised`."""
    before = _take_over(_end)

    def ignore() -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    # The interpreter's very end restores the default effect, which would replace the exit code of finished work.
    # Registered first, this runs last, when all threads have ended.
    atexit.register(ignore)


def _raise(number: int, frame: Any) -> None:
    # An import can lose an exception or replace it by another one: initializations of C modules do.
    while frame is not None and not frame.f_code.co_filename.startswith('<frozen importlib'):
        frame = frame.f_back
    if frame is not None or _now.raised_at:
        _end(number)
    else:
        _now.raised_at = time.monotonic()
        raise Interrupted(number)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Context in which SIGTERM and SIGINT raise Interrupted; during an import, and a second time, they end the process
    at once. Inside `requests` and outside the main thread it changes nothing.
    """
    if _now.listener or not _in_main_thread():
        yield
        return
    _now.raised_at = 0.0
    before = _take_over(_raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def renew() -> None:
    """Installs the handlers of `requests` again, since a C library may have replaced them. Only inside `requests`."""
    if _now.listener and _in_main_thread():
        _now.listener.install()


@contextlib.contextmanager
def requests(*, hand_on: bool = True) -> Iterator[None]:
    """Context in which SIGTERM and SIGINT are stop requests. Outside the main thread it changes nothing.

    The code inside reacts to a request by raising Stopped. hand_on: if it does not (the request came too late, or
    another exception was raised), raise the signal again for the previous handler.
    """
    renew()
    if _now.listener or not _in_main_thread():
        yield
        return
    _now.listener = listener = _Listener()
    answered = failed = False
    try:
        yield
    except Stopped:
        answered = True
        raise
    except BaseException:
        failed = True
        raise
    finally:
        listener.close()
        _now.listener = None
        number, _now.number = _now.number, 0
        _now.arrived.clear()
        # After a failure, the default action (SIG_DFL) would end the process before the failure is reported.
        if hand_on and number and not answered and not (failed and listener.before[number] is signal.SIG_DFL):
            signal.raise_signal(number)


@contextlib.contextmanager
def deferred(on: bool = True) -> Iterator[None]:
    """Context in which `check` does nothing; on=False makes it work again inside such a context."""
    before, _now.deferred = _now.deferred, on
    try:
        yield
    finally:
        _now.deferred = before


def asked() -> bool:
    """Returns whether a stop was requested."""
    return _now.number != 0


def check(text: str = 'stopped; what is finished is saved') -> None:
    """Raises Stopped with the text if a stop was requested, unless stopping is `deferred`."""
    if _now.number and not _now.deferred:
        raise Stopped(text)


def pause(seconds: float) -> None:
    """Sleeps, but at most until a stop is requested; then raises Stopped as `check` does."""
    _now.arrived.wait(seconds)
    check()
