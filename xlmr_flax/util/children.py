"""Runs child processes that end on a stop request, and when their parent process ends."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from xlmr_flax.util.stopping import pause

_EVERY = 0.1  # seconds between two polls of a child
_LATE = 0.2  # seconds to wait for a signal that was sent to the whole process group to arrive here, too


def with_package(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with this package in PYTHONPATH, so that a child can import it without installation."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(p for p in (root, environment.get('PYTHONPATH')) if p)
    return {**environment, 'PYTHONPATH': path}


def run_child(command: Sequence[str], env: Mapping[str, str], out: IO[Any] | None = None) -> int:
    """Runs a child process to its end and returns its exit code (negative: the signal that ended it).

    out: the file that receives its standard output and standard error; None = those of this process. Its standard
    input is a pipe, which closes when this process ends (`end_with_input`). On a stop request, kills the child and
    raises Stopped.
    """
    # The child has its own session, so that Ctrl-C in a terminal reaches this process only.
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
    )  # fmt: skip
    with process:
        try:
            while process.poll() is None:
                pause(_EVERY)
            check_after_signal(process.returncode)
        except BaseException:
            process.kill()
            raise
    return process.returncode


def check_after_signal(code: int) -> None:
    """Raises Stopped if a signal ended the child (code < 0) and this process receives a stop request, too.

    It waits a short time for the request.
    """
    if code < 0:
        pause(_LATE)


def end_with_input() -> None:
    """Ends this process, from now on, when its standard input closes, that is when its parent process ends."""

    def listen() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when the interpreter ends
            pass
        os._exit(1)

    threading.Thread(target=listen, name='parent', daemon=True).start()
