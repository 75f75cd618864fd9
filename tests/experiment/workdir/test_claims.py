"""Claims: exactly one of several processes gets a run, and what a dead one held is free again."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claim_files import claims_of

from xlmr_flax.experiment.workdir import claims
from xlmr_flax.experiment.workdir.claims import Claim, ClaimLost, Claims, Holder

HOLD = """
import sys, time
from pathlib import Path
from xlmr_flax.experiment.workdir.claims import Claims
assert Claims(Path(sys.argv[1]), shard='2/2').take('run')
print('taken', flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'claims'


def held_by(folder: Path, age: float = 0.0, **changes: Any) -> Path:
    """Claim 1 of 'run', as another process has written it."""
    holder = dataclasses.replace(Holder('elsewhere', 7, 'another boot', 123, '', time.time() - age), **changes)
    path = folder / 'run.1.json'
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(holder)))
    os.utime(path, (time.time() - age,) * 2)
    return path


def race(folder: Path, count: int = 12) -> list[Claim]:
    """What so many processes get that ask at once."""
    start, got = threading.Barrier(count), []

    def ask() -> None:
        mine = Claims(folder)
        start.wait()
        if claim := mine.take('run'):
            got.append(claim)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_one_holds_until_it_lets_go(folder: Path) -> None:
    first, second = Claims(folder, '1/2'), Claims(folder, '2/2')
    claim = first.take('run')
    assert claim
    assert second.take('run') is None
    assert first.take('run') is None, 'not twice by the same process either'
    assert second.take('run.1') and second.take('ru'), 'other runs are free, whatever their names'
    holder = second.holder('run')
    assert holder is not None
    assert (holder.pid, holder.shard, holder.released) == (os.getpid(), '1/2', '')
    assert str(holder).endswith(f'process {os.getpid()}, shard 1/2')
    claim.release('finished')
    assert second.holder('run') is None
    assert second.take('run')
    assert [(c['shard'], c['released']) for c in claims_of(folder, 'run')] == [('1/2', 'finished'), ('2/2', '')]


def test_leaving_lets_go_of_everything(folder: Path) -> None:
    with pytest.raises(KeyError), Claims(folder) as mine:
        assert mine.take('a') and mine.take('b')
        raise KeyError
    assert [Claims(folder).holder(name) for name in 'ab'] == [None, None]
    assert mine._thread is None


def test_one_of_many_gets_a_free_run(folder: Path) -> None:
    assert len(race(folder)) == 1
    assert sorted(p.name for p in folder.iterdir()) == ['run.1.json'], 'nothing is left lying about'


def test_one_of_many_takes_over_what_a_dead_process_held(folder: Path) -> None:
    for age, space in ((2000.0, 'another boot'), (0.0, claims._space())):
        path = held_by(folder, age, space=space, began=5, pid=os.getpid())
        assert len(race(folder)) == 1
        (folder / 'run.2.json').unlink()
        path.unlink()


def test_a_killed_process_of_this_machine_is_noticed_at_once(folder: Path) -> None:
    command = [sys.executable, '-c', HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout and process.stdout.readline() == 'taken\n'
        os.utime(folder / 'run.1.json', (0, 0))  # however long it gave no sign, it is there
        mine = Claims(folder)
        holder = mine.holder('run')
        assert holder and (holder.pid, holder.shard) == (process.pid, '2/2')
        assert mine.take('run') is None
        os.kill(process.pid, signal.SIGKILL)
        while claims._began(process.pid)[1] not in ('Z', ''):
            time.sleep(0.01)
        assert mine.take('run'), 'not even its parent has looked'
    assert [c['pid'] for c in claims_of(folder, 'run')] == [process.pid, os.getpid()]


def test_a_process_number_that_was_given_again(folder: Path) -> None:
    held_by(folder, space=claims._space(), pid=os.getpid(), began=claims._began(os.getpid())[0])
    assert Claims(folder).take('run') is None
    held_by(folder, space=claims._space(), pid=os.getpid(), began=1)
    assert Claims(folder).take('run')


def test_of_another_machine_only_the_silence_counts(folder: Path) -> None:
    mine = Claims(folder, timeout=100)
    path = held_by(folder, age=90)
    assert mine.take('run') is None
    path.write_text('')  # as before its content is there, where there are no hard links
    os.utime(path, (time.time() - 90,) * 2)
    assert mine.take('run') is None
    assert str(mine.holder('run')).startswith('an unknown host')
    os.utime(path, (time.time() - 110,) * 2)
    assert mine.take('run')


@pytest.mark.parametrize(
    'content', [b'[]', b'{', b'\xff', b'{}', b'[' * 9999, {'pid': '7'}, {'pid': -1}, {'pid': 10**12}, {'space': None}]
)
def test_a_damaged_claim_counts_by_its_age(folder: Path, content: bytes | dict[str, Any]) -> None:
    path = held_by(folder)
    changed = content if isinstance(content, bytes) else json.dumps(json.loads(path.read_text()) | content).encode()
    path.write_bytes(changed)
    claims = Claims(folder, timeout=60)
    assert str(claims.holder('run')).startswith('an unknown host')
    assert claims.take('run') is None
    os.utime(path, (time.time() - 100,) * 2)
    assert claims.holder('run') is None
    assert claims.take('run') is not None


def test_the_age_is_by_the_clock_of_the_file_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_by(folder, age=10)
    monkeypatch.setattr(claims.time, 'time', lambda: 1e12)
    assert Claims(folder, timeout=100).take('run') is None


def test_signs_of_life_are_given_while_a_run_is_held(folder: Path) -> None:
    with Claims(folder, timeout=0.2) as mine:
        claim = mine.take('run')
        assert claim
        os.utime(claim.path, (0, 0))
        until = time.monotonic() + 10
        while not list(folder.glob('run.1.beat-*')) and time.monotonic() < until:
            time.sleep(0.02)
        claim.check()
        assert len(list(folder.glob('run.1.beat-*'))) <= 2, 'the one before is deleted'
    assert {p.name for p in folder.iterdir()} == {'run.1.json', 'run.1.released'}


@pytest.fixture
def cached_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's mount that keeps for ever what it has once read of a file; listings are fresh."""
    for name in ('_modified', '_read'):
        monkeypatch.setattr(claims, name, functools.cache(getattr(claims, name)))


@pytest.mark.usefixtures('cached_mount')
def test_a_cached_mount_shows_life_death_and_release(folder: Path) -> None:
    path, other = held_by(folder, age=50), Claims(folder, timeout=100)
    assert other.take('run') is None, 'and the mount keeps the time of the claim'
    own = Claim(path, claims._NOBODY, folder / 'run.2.json')
    for _ in range(3):
        own.beat()
        os.utime(path, (time.time() - 5000,) * 2)  # without the heartbeats it would be long dead
        assert other.take('run') is None
    beat = next(folder.glob('run.1.beat-*'))
    assert beat.name == 'run.1.beat-3'
    gone = beat.rename(folder / 'run.1.beat-4')  # the last one it sends: a name that the mount has not seen
    os.utime(gone, (time.time() - 101,) * 2)
    assert other.holder('run') is None and other.take('run')


@pytest.mark.usefixtures('cached_mount')
def test_a_cached_mount_shows_a_release(folder: Path) -> None:
    path, other = held_by(folder), Claims(folder)
    assert other.take('run') is None
    Claim(path, claims._NOBODY, folder / 'run.2.json').release('finished')
    assert other.take('run')


@pytest.mark.parametrize('how', ['taken over', 'deleted'])
def test_who_was_taken_for_gone_learns_it(folder: Path, how: str) -> None:
    claim = Claims(folder).take('run')
    assert claim
    if how == 'deleted':
        claim.path.unlink()
    else:
        held = json.loads(claim.path.read_text()) | {'space': 'another boot', 'host': 'elsewhere'}
        claim.path.write_text(json.dumps(held))
        os.utime(claim.path, (0, 0))
        other = Claims(folder).take('run')
        assert other
    claim.beat()
    with pytest.raises(ClaimLost, match=claim.path.name):
        claim.check()
    claim.release('finished')
    if how == 'taken over':
        assert Claims(folder).holder('run') == other.holder, 'the new holder is not disturbed'
    else:
        assert not claim.path.exists()


def linked_but_unheard(real: Callable[..., None]) -> Callable[..., None]:
    def link(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, 'exists', str(target))

    return link


def no_links(real: Callable[..., None]) -> Callable[..., None]:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, 'not here', str(source))

    return link


@pytest.mark.parametrize('broken', [linked_but_unheard, no_links])
def test_file_systems_that_are_not_ext4(folder: Path, monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    monkeypatch.setattr(claims.os, 'link', broken(os.link))
    got = race(folder)
    assert len(got) == 1
    assert Claims(folder).holder('run') == got[0].holder
    assert sorted(p.name for p in folder.iterdir()) == ['run.1.json']


def test_a_folder_that_cannot_be_written_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device', str(target))

    monkeypatch.setattr(claims.os, 'link', full)
    with pytest.raises(OSError, match='No space left'):
        Claims(folder).take('run')


def test_looking_writes_nothing(folder: Path) -> None:
    looking = Claims(folder, look_only=True)
    assert looking.holder('run') is None
    assert not folder.exists()
    held_by(folder, age=10)
    before = folder.stat().st_mtime_ns
    assert looking.holder('run') is not None
    assert (folder.stat().st_mtime_ns, [p.name for p in folder.iterdir()]) == (before, ['run.1.json'])
