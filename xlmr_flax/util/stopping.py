"""Stop requests: SIGTERM and Ctrl-C set a flag, and the work looks at it where it can stop without a loss.

    with requests():                 # the handlers are in place; of nested ones the outermost counts
        for piece in work:
            check()                  # raises Stopped once a signal has come
        with deferred():             # check() does nothing in here: what is inside looks at asked() and saves first

A handler that raises is not reliable: Python drops an exception in a callback of the garbage collector, in a __del__,
and in other places, and the request with it. The handler therefore only notes the signal.

A second signal ends the process at once, with exit code 128 + signal; every file is written whole or not at all, so
that this damages nothing. Python calls its handlers between two instructions of the main thread alone, which come late
while a program is compiled. The interpreter also writes each signal to a pipe at once (signal.set_wakeup_fd), and a
thread reads it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds in which a further signal belongs to the same request: timeout(1) sends its signal to the process and to its
# group, and a terminal's Ctrl-C reaches a process beside what a script hands on.
SAME_REQUEST = 0.5
_END = b'\0'  # in the pipe: the thread is to end


class Stopped(BaseException):
    """The work was asked to stop and has stopped. What is finished, and what the message says, is saved.

    Like KeyboardInterrupt it is no Exception, so that no handler of failures takes it for one. code: the exit code,
    128 + signal.
    """

    def __init__(self, text: str):
        super().__init__(text)
        self.code = 128 + (_now.number or signal.SIGTERM)


class _Now:
    """What this process knows. number: the signal of the request, 0 = none. arrived: set with it, by the thread.
    deferred: check() does nothing. listener: of the outermost `requests`."""

    number = 0
    deferred = False
    listener: _Listener | None = None
    arrived = threading.Event()


_now = _Now()  # of the process, as its signal handlers are


class _Listener:
    """The handlers of both signals, and the thread that hears a second one; `close` puts back what was there."""

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
                if number not in SIGNALS:  # of other handlers
                    continue
                if not first:
                    first = time.monotonic()
                    _note(number)
                    _now.arrived.set()  # not in the handler, which may interrupt what holds the event's lock
                elif time.monotonic() - first > SAME_REQUEST:
                    os.write(2, f'second {signal.Signals(number).name}: ended at once\n'.encode())
                    os._exit(128 + number)


def _note(number: int, frame: Any = None) -> None:
    _now.number = _now.number or number


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def renew() -> None:
    """Inside of `requests`, installs its handlers again: a C library may have put its own in their place."""
    if _now.listener and _in_main_thread():
        _now.listener.install()


@contextlib.contextmanager
def requests(*, hand_on: bool = True) -> Iterator[None]:
    """While inside, SIGTERM and SIGINT are stop requests; outside the main thread, signals stay as they are.

    What is inside answers a request with Stopped. hand_on: a request that is not answered, since it came too late or
    something failed, reaches whoever handled the signals before.
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
        # The system's own way of handling it would end the process before the failure is heard of.
        if hand_on and number and not answered and not (failed and listener.before[number] is signal.SIG_DFL):
            signal.raise_signal(number)


@contextlib.contextmanager
def deferred(on: bool = True) -> Iterator[None]:
    """While inside, `check` does nothing, or with on=False does its work again."""
    before, _now.deferred = _now.deferred, on
    try:
        yield
    finally:
        _now.deferred = before


def asked() -> bool:
    """Whether a stop was requested."""
    return _now.number != 0


def check(text: str = 'stopped; what is finished is saved') -> None:
    """Raises Stopped with the text where a stop was requested, unless it is deferred."""
    if _now.number and not _now.deferred:
        raise Stopped(text)


def pause(seconds: float) -> None:
    """Waits, and no longer than until a stop is requested; raises Stopped as `check` does."""
    _now.arrived.wait(seconds)
    check()
