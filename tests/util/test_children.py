"""Children: their exit codes, their end with a stop request and with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xlmr_flax.util.children import check_after_signal, run_child
from xlmr_flax.util.stopping import Stopped, requests

ROOT = Path(__file__).parents[2]
ENV = os.environ | {'PYTHONPATH': str(ROOT)}
WAITS = 'import os, sys, time; print(os.getpid(), flush=True); time.sleep(600)'


def written(path: Path) -> str:
    """What a process has written to a file, once there is something."""
    for _ in range(600):
        if path.is_file() and (text := path.read_text(encoding='utf-8')).endswith('\n'):
            return text.strip()
        time.sleep(0.05)
    raise AssertionError(path)


def ends(pid: int) -> bool:
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = Path(f'/proc/{pid}/stat')
        if state.is_file() and state.read_text(encoding='utf-8').rpartition(') ')[2].startswith('Z'):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ('code', 'expected'), [('', 0), ('raise SystemExit(3)', 3), ('import os; os.kill(os.getpid(), 9)', -9)]
)
def test_exit_codes_and_output(code: str, expected: int, tmp_path: Path) -> None:
    with (tmp_path / 'log').open('w') as log:
        assert run_child([sys.executable, '-c', f'print("said", flush=True); {code}'], ENV, log) == expected
    assert (tmp_path / 'log').read_text(encoding='utf-8') == 'said\n'


def test_a_stop_request_ends_the_child(tmp_path: Path) -> None:
    out = tmp_path / 'log'

    def stop() -> None:
        written(out)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with out.open('w') as log, pytest.raises(Stopped) as found, requests():
        run_child([sys.executable, '-c', WAITS], ENV, log)
    thread.join()
    assert found.value.code == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):  # ended, and waited for
        os.kill(int(written(out)), 0)


def test_a_child_that_the_same_signal_ended_is_no_failure() -> None:
    """A signal to a whole group of processes may end the child before this process hears of it."""
    with requests(hand_on=False):
        check_after_signal(-signal.SIGKILL)  # by something else, without a request
        os.kill(os.getpid(), signal.SIGTERM)
        check_after_signal(1)
        with pytest.raises(Stopped):
            check_after_signal(-signal.SIGTERM)


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    """The parent is killed; the child's standard input is then closed."""
    out = tmp_path / 'log'
    child = f'from xlmr_flax.util.children import end_with_input; end_with_input(); {WAITS}'
    parent = (
        'import os, sys; from xlmr_flax.util.children import run_child; '
        f'run_child([sys.executable, "-c", {child!r}], os.environ)'
    )
    with out.open('w') as log, subprocess.Popen([sys.executable, '-c', parent], env=ENV, stdout=log) as process:
        pid = int(written(out))
        assert pid != process.pid
        process.kill()
    assert ends(pid)
