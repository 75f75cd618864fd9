"""Stop requests: noted, raised where it is safe, answered, too late, twice."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlmr_flax.util import stopping
from xlmr_flax.util.stopping import SIGNALS, Stopped, asked, check, deferred, pause, requests

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def outer() -> Iterator[list[int]]:
    """The signals that reach whoever handled them before."""
    seen: list[int] = []
    before = {s: signal.signal(s, lambda number, frame: seen.append(number)) for s in SIGNALS}
    yield seen
    for s, old in before.items():
        signal.signal(s, old)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize('number', SIGNALS)
def test_a_request_that_is_answered(number: int, outer: list[int]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as found, requests():
        assert not asked()
        check()
        send(number)
        assert asked()
        check('state saved')
    assert (str(found.value), found.value.code) == ('state saved', 128 + number)
    assert outer == []
    assert not asked()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize('number', SIGNALS)
def test_a_request_that_came_too_late_is_handed_on(number: int, outer: list[int]) -> None:
    """Else a launcher would wait for the end of a process that goes on with its next run."""
    with requests():
        send(number)
        assert outer == []
    assert outer == [number]
    with requests(hand_on=False):
        send(number)
    assert outer == [number]


def test_a_request_beside_a_failure(outer: list[int]) -> None:
    with pytest.raises(FloatingPointError), requests():
        send(signal.SIGTERM)
        raise FloatingPointError
    assert outer == [signal.SIGTERM]


def test_a_failure_is_heard_of_where_nobody_handles_the_signal() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(FloatingPointError), requests():
        send(signal.SIGTERM)
        raise FloatingPointError


def test_no_handler_of_failures_takes_it_for_one() -> None:
    with pytest.raises(Stopped), requests():
        send(signal.SIGTERM)
        try:
            check()
        except Exception:
            pytest.fail('taken for a failure')


class _Collected:
    """Sends a signal when it is collected, where Python drops what a handler raises."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        send(signal.SIGTERM)


def test_a_request_in_a_finalizer_is_not_lost() -> None:
    with pytest.raises(Stopped), requests():
        _Collected()
        gc.collect()
        check()


def test_a_request_in_a_callback_of_the_garbage_collector_is_not_lost() -> None:
    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == 'start':
            gc.callbacks.remove(collected)
            send(signal.SIGTERM)

    with pytest.raises(Stopped), requests():
        gc.callbacks.append(collected)
        gc.collect()
        check()


def test_deferred_until_it_can_be_answered() -> None:
    with pytest.raises(Stopped, match='inside'), requests(), deferred():
        send(signal.SIGTERM)
        check('not now')
        assert asked()
        with deferred(False):
            check('inside')
    with pytest.raises(Stopped, match='after the block'), requests():
        with deferred():
            send(signal.SIGTERM)
        check('after the block')


def test_the_outermost_counts(outer: list[int]) -> None:
    with pytest.raises(Stopped), requests():
        with requests():
            send(signal.SIGINT)
        assert asked()
        assert outer == []
        check()


def test_handlers_that_a_library_replaced_are_put_back(outer: list[int]) -> None:
    with pytest.raises(Stopped), requests():
        signal.signal(signal.SIGTERM, lambda number, frame: outer.append(-number))
        stopping.renew()
        send(signal.SIGTERM)
        check()
    assert outer == []


def test_a_pause_ends_with_the_request() -> None:
    threading.Timer(0.2, send, [signal.SIGTERM]).start()
    began = time.monotonic()
    with pytest.raises(Stopped), requests():
        pause(60)
    assert time.monotonic() - began < 30
    pause(0)


def test_outside_the_main_thread_signals_stay_as_they_are() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def inside() -> None:
        with requests():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [before]


def deaf() -> subprocess.Popen[str]:
    """A process whose main thread is in C code, as in a compilation: Python calls no handler meanwhile."""
    code = textwrap.dedent("""
        import hashlib
        from xlmr_flax.util.stopping import requests
        with requests():
            print('ready', flush=True)
            hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)
    """)
    process = subprocess.Popen(
        [sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == 'ready\n'
    return process


@pytest.mark.parametrize('second', SIGNALS)
def test_a_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    with deaf() as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(2 * stopping.SAME_REQUEST)
        assert process.poll() is None
        process.send_signal(second)
        error = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + second
    assert error.splitlines() == [f'second {second.name}: ended at once']


def test_a_second_signal_ends_a_process_whose_standard_error_has_no_reader() -> None:
    with deaf() as process:
        assert process.stderr is not None
        process.stderr.close()
        process.send_signal(signal.SIGTERM)
        time.sleep(2 * stopping.SAME_REQUEST)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=30) == 128 + signal.SIGTERM
        finally:
            process.kill()


def test_a_signal_that_comes_twice_is_one_request() -> None:
    """As timeout(1) sends it: to the process and to its group."""
    with deaf() as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        time.sleep(2 * stopping.SAME_REQUEST)
        assert process.poll() is None
        process.kill()
