"""What a process needs to share a plan, by itself: its share, waiting, stopping."""

from __future__ import annotations

import time

import pytest

from xlmr_flax.config import ConfigError
from xlmr_flax.experiment.workdir.claims import Holder
from xlmr_flax.experiment.workdir.scheduling import Share, Waiting, parse_shard


@pytest.mark.parametrize(('text', 'found'), [('', (1, 1)), ('1/1', (1, 1)), ('3/4', (3, 4))])
def test_shares_count_from_one(text: str, found: tuple[int, int]) -> None:
    assert parse_shard(text) == found


@pytest.mark.parametrize('text', ['0/2', '3/2', '1', 'a/b', '-1/2', '1/0', '1/2/3'])
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=f'--shard={text}: expected NUMBER/COUNT, counted from 1'):
        parse_shard(text)
    with pytest.raises(ConfigError, match='--claim_timeout=0'):
        Share(claim_timeout=0)


def test_waiting_takes_longer_and_says_a_thing_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr('xlmr_flax.experiment.workdir.scheduling.pause', slept.append)
    wait, holder = Waiting(), Holder('h', 1, '', 0, '', time.time())
    for _ in range(10):
        wait({'a': holder}, 2)
    wait({'a': holder, 'b': holder}, 2)
    assert slept[:3] == [0.5, 0.75, 1.125]
    assert max(slept) == slept[-1] == 10.0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == ['a', 'a', 'b']
    wait.reset()
    wait({}, 2)
    assert slept[-1] == 0.5
