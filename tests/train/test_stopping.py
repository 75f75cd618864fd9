"""Stop requests: answered, too late, twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from xlmr_flax.train.stopping import Stopped, stop_requests

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture
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
    with pytest.raises(Stopped), stop_requests() as asked:
        assert not asked()
        send(number)
        assert asked()
        raise Stopped('state saved')
    assert outer == []
    assert signal.getsignal(number) is before


@pytest.mark.parametrize('number', SIGNALS)
def test_a_request_that_came_too_late_is_handed_on(number: int, outer: list[int]) -> None:
    """Else a launcher would wait for the end of a process that goes on with its next run."""
    with stop_requests():
        send(number)
        assert outer == []
    assert outer == [number]


def test_a_request_beside_a_failure(outer: list[int]) -> None:
    with pytest.raises(FloatingPointError), stop_requests():
        send(signal.SIGTERM)
        raise FloatingPointError
    assert outer == [signal.SIGTERM]


def test_a_failure_is_heard_of_where_nobody_handles_the_signal() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(FloatingPointError), stop_requests():
            send(signal.SIGTERM)
            raise FloatingPointError
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_signal_acts_at_once(outer: list[int]) -> None:
    with stop_requests() as asked:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert outer == [signal.SIGTERM]
        send(signal.SIGINT)
        assert outer == [signal.SIGTERM]
        assert asked()
    assert outer == [signal.SIGTERM]
