"""Child processes that end with a stop request, and with the process that started them."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from xlmr_flax.util.stopping import pause

_EVERY = 0.1  # seconds between two looks at a child
_LATE = 0.2  # seconds in which a signal to the whole group is heard of here, too


def run_child(command: Sequence[str], env: Mapping[str, str], out: IO[Any] | None = None) -> int:
    """Runs a process to its end and returns its exit code (negative: the signal that ended it).

    out: takes its standard output and standard error; None = those of this process. Its standard input is a pipe, which
    is closed when this process ends (`end_with_input`). Raises Stopped on a stop request, with the child ended.
    """
    # A session of its own: a terminal's Ctrl-C is a request to this process alone.
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
    )  # fmt: skip
    with process:
        try:
            while process.poll() is None:
                pause(_EVERY)
            hear_signals(process.returncode)
        except BaseException:
            process.kill()
            raise
    return process.returncode


def hear_signals(code: int) -> None:
    """Raises Stopped where a child's exit code says that it was ended by a signal that is a request to this process."""
    if code < 0:
        pause(_LATE)


def end_with_input() -> None:
    """From now on this process ends when its standard input does: with the process that has started it."""

    def listen() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when the interpreter ends
            pass
        os._exit(1)

    threading.Thread(target=listen, name='parent', daemon=True).start()
