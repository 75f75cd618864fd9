"""How a walk through a plan stops: between two runs, in one, while it claims or waits, and with a failure."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
from claim_files import claims_of
from faked_runner import PLAN, Faked

from xlmr_flax.experiment.workdir.scheduling import Share
from xlmr_flax.train.checkpoint import CheckpointError
from xlmr_flax.util.stopping import Stopped, pause


def test_a_stop_is_no_failure_and_lets_go(walk: Callable[..., Faked]) -> None:
    first = walk()
    first.fails = {PLAN[1]: Stopped('stopped at step 2')}
    with pytest.raises(Stopped):
        first.run()
    assert not (first.workdir.path / 'failed').exists()
    assert [c['released'] for c in claims_of(first.claims.directory, first.plan[1].name)] == ['stopped']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('during_run', [True, False], ids=['during the run', 'after the run'])
def test_a_signal_stops_and_lets_go(walk: Callable[..., Faked], number: int, during_run: bool) -> None:
    before, first = signal.getsignal(number), walk()

    def send(name: str) -> None:
        if name == PLAN[1]:
            os.kill(os.getpid(), number)
            if during_run:
                pause(60)

    first.before = send
    with pytest.raises(Stopped, match='what is finished is saved') as found:
        first.run()
    assert found.value.code == 128 + number
    assert first.did == PLAN[: 1 if during_run else 2]
    assert not (first.workdir.path / 'failed').exists()
    assert [c['released'] for c in claims_of(first.claims.directory, first.plan[1].name)] == [
        'stopped' if during_run else 'finished'
    ]
    assert signal.getsignal(number) is before


def test_a_signal_while_a_run_is_claimed(walk: Callable[..., Faked], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the start of the thread that gives the signs of life, where a handler that raises leaves half a thread."""
    first, real, sent = walk(), threading.Thread.start, []

    def start(self: threading.Thread) -> None:
        if self.name == 'claims' and not sent:
            sent.append(self)
            os.kill(os.getpid(), signal.SIGTERM)
        real(self)

    monkeypatch.setattr(threading.Thread, 'start', start)
    with pytest.raises(Stopped):
        first.run()
    (thread,) = sent
    thread.join(30)
    assert not thread.is_alive()
    assert [first.claims.holder(run.name) for run in first.plan] == [None] * len(PLAN)
    assert walk().run() == walk().results() != []


def test_a_signal_while_it_waits_for_another_process(walk: Callable[..., Faked]) -> None:
    first, other = walk(Share(1, 2)), walk(Share(2, 2))
    for run in other.plan:
        assert other.claims.take(run.name)
    threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGTERM]).start()
    with pytest.raises(Stopped):
        first.run()
    assert first.did == []


def test_a_run_that_fails_while_it_stops_is_a_failure(walk: Callable[..., Faked]) -> None:
    """Of a plan of several runs, too: the exit code is not that of a stop after which all is saved."""
    first = walk()
    first.before = lambda name: os.kill(os.getpid(), signal.SIGTERM)
    first.fails = {PLAN[0]: CheckpointError('the state is not saved')}
    with pytest.raises(CheckpointError, match='the state is not saved'):
        first.run()
    assert first.did == PLAN[:1]
    failure = first.workdir.failure(first.plan[0])
    assert failure is not None
    assert failure['type'] == 'CheckpointError'
