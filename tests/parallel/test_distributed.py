"""What processes of one job say to each other: results, outcomes, disagreements, and who is gone. Threads stand for the
processes, and a dict for the coordination service; test_distributed_run.py has real ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.parallel import distributed
from xlmr_flax.parallel.distributed import DistributedError, FailedElsewhere, ProcessGroup, ProcessLost
from xlmr_flax.parallel.mesh import make_mesh


class Shelf:
    """The coordination service's store. ended: it answers no more."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.changed = threading.Condition()
        self.ended = False

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        with self.changed:
            if key in self.values and not allow_overwrite:
                raise RuntimeError(f'ALREADY_EXISTS: {key}')
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        with self.changed:
            if self.ended:
                raise RuntimeError('UNAVAILABLE: connection refused\nmore of it')
            if not self.changed.wait_for(lambda: key in self.values, timeout_in_ms / 1000):
                raise RuntimeError(f'DEADLINE_EXCEEDED: GetKeyValue() timed out with key: {key}')
            return self.values[key]

    def key_value_try_get(self, key: str) -> str:
        with self.changed:
            if key not in self.values:
                raise RuntimeError(f'NOT_FOUND: {key}')
            return self.values[key]


class _Own(threading.local):
    group: ProcessGroup | None = None


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """together(function, count): what the function returned, or the exception that it raised, in each process."""
    own = _Own()
    monkeypatch.setattr(distributed, '_group', _Proxy(own))

    def run(function: Callable[[], Any], count: int = 3) -> list[Any]:
        shelf = Shelf()

        def process(index: int) -> Any:
            own.group = ProcessGroup(shelf, index, count)
            try:
                return function()
            except Exception as error:
                return error

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(process, range(count)))

    return run


class _Proxy:
    """The group of the thread that asks."""

    def __init__(self, own: _Own):
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own.group, name)


def test_one_process_needs_no_service() -> None:
    assert (distributed.process_count(), distributed.process_index(), distributed.is_leader()) == (1, 0, True)
    assert distributed.on_leader('work', lambda: (1, 2)) == (1, 2)
    assert distributed.gather('values', 5) == [5]
    distributed.require_equal({'config': 'a'})
    distributed.require_shared(Path('nowhere'))
    distributed.connect(make_mesh())
    error = ValueError('bad')
    assert distributed.agreed(error) is error
    distributed.leave(1, 'alone, so this returns')


def test_the_leader_works_and_all_have_the_result(together: Callable[..., list[Any]]) -> None:
    called: list[int] = []

    def work() -> list[Any]:
        first = distributed.on_leader('first', lambda: called.append(distributed.process_index()) or {'f1': 12.5})
        return [first, distributed.on_leader('second', lambda: None), distributed.is_leader()]

    assert together(work) == [[{'f1': 12.5}, None, index == 0] for index in range(3)]
    assert called == [0]


def test_an_error_of_the_leader_is_everybodys(together: Callable[..., list[Any]]) -> None:
    def work() -> Any:
        return distributed.on_leader('scores', lambda: [][0])

    own, *others = together(work)
    assert isinstance(own, IndexError)
    assert [(type(e), str(e)) for e in others] == [(FailedElsewhere, f'process 0: IndexError: {own}')] * 2


def test_values_come_by_process(together: Callable[..., list[Any]]) -> None:
    assert together(lambda: distributed.gather('steps', 10 * distributed.process_index()), 4) == [[0, 10, 20, 30]] * 4


def test_processes_at_different_places_notice(together: Callable[..., list[Any]]) -> None:
    def work() -> Any:
        return distributed.gather('evaluation' if distributed.process_index() == 1 else 'training', 1)

    found = together(work, 2)
    assert all(isinstance(e, DistributedError) for e in found)
    assert str(found[0]) == "process 1 is at 'evaluation' and process 0 at 'training': one of them failed"


@pytest.mark.parametrize('who', [0, 2])
def test_a_failure_of_one_is_agreed(together: Callable[..., list[Any]], who: int) -> None:
    def work() -> Any:
        return distributed.agreed(OSError('disk full') if distributed.process_index() == who else None)

    found = together(work)
    assert isinstance(found[who], OSError)
    others = [e for index, e in enumerate(found) if index != who]
    assert [(type(e), str(e)) for e in others] == [(FailedElsewhere, f'process {who}: OSError: disk full')] * 2


def test_work_that_nobody_failed_at(together: Callable[..., list[Any]]) -> None:
    assert together(lambda: distributed.agreed(None)) == [None] * 3


def test_who_failed_does_not_wait_for_who_hangs(
    together: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, '_ANSWER', 0.2)

    def work() -> Any:
        if distributed.process_index() == 1:  # it hangs in a collective
            return None
        return distributed.agreed(OSError('connection closed by peer'))

    started = time.monotonic()
    found = together(work, 2)[0]
    assert time.monotonic() - started < 5
    assert isinstance(found, ProcessLost)
    assert 'process 1 of 2 gave no answer' in str(found)
    assert 'process 0: OSError: connection closed by peer' in str(found)


def test_a_service_that_is_gone() -> None:
    shelf = Shelf()
    shelf.ended = True
    with pytest.raises(ProcessLost, match=r'process 0 of 2 cannot be reached: UNAVAILABLE: connection refused$'):
        ProcessGroup(shelf, 1, 2).gather('values', 1)


def test_facts_must_be_equal(together: Callable[..., list[Any]]) -> None:
    def work() -> None:
        own = 'b' if distributed.process_index() == 2 else 'a'
        distributed.require_equal({'package': '1', 'config': own})

    found = together(work)
    assert {str(e) for e in found} == {
        'process 2 differs from process 0 in config: b and a; all processes need the same command, package and data'
    }


def test_a_fact_that_only_one_has(together: Callable[..., list[Any]]) -> None:
    def work() -> None:
        distributed.require_equal({'package': '1'} | ({'run x': 'id'} if distributed.process_index() == 1 else {}))

    assert all('process 1 differs from process 0 in run x: id and None' in str(e) for e in together(work, 2))


def test_the_workdir_must_be_shared(together: Callable[..., list[Any]], tmp_path: Path) -> None:
    folders = [tmp_path / 'a', tmp_path / 'b']
    for folder in folders:
        folder.mkdir()
    assert together(lambda: distributed.require_shared(folders[0])) == [None] * 3
    found = together(lambda: distributed.require_shared(folders[distributed.process_index() == 2]))
    assert all('process 2 does not see what process 0 writes there' in str(e) for e in found)
    assert not [path for folder in folders for path in folder.iterdir()]


def test_who_leaves_takes_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: dict[int, int] = {}
    done = threading.Event()

    def end(group: ProcessGroup, code: int, text: str) -> None:
        ended[group.index] = code
        if len(ended) == 2:
            done.set()

    monkeypatch.setattr(ProcessGroup, 'end', end)
    monkeypatch.setattr(distributed, '_POLL', 0.05)
    monkeypatch.setattr(distributed, '_GRACE', 0.05)
    shelf = Shelf()
    groups = [ProcessGroup(shelf, index, 2) for index in range(2)]
    for group in groups:
        group.watch()
    groups[1].leave(143, 'asked to stop')
    assert done.wait(10)
    for group in groups:
        group.close()
    assert ended == {1: 143, 0: 143}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('host:1', 2, -1), 'give all three'),
        (('', 2, 0), 'give all three'),
        (('host', 2, 0), 'expected HOST:PORT'),
        (('host:1', 2, 2), 'expected 0 to 1'),
    ],
)
def test_flags_that_make_no_job(arguments: tuple[str, int, int], message: str) -> None:
    with pytest.raises(DistributedError, match=message):
        distributed.start(*arguments)


@pytest.mark.parametrize('arguments', [('', 0, -1), ('none', 0, -1), ('host:1', 1, 0)])
def test_a_process_may_be_alone(arguments: tuple[str, int, int]) -> None:
    distributed.start(*arguments)
    assert distributed.process_count() == 1


def test_slurm_is_recognised_by_a_step_of_several_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def initialize(*arguments: Any, **options: Any) -> None:
        assert not arguments  # JAX finds out coordinator, count and number itself, and keeps JAX_LOCAL_DEVICE_IDS
        asked.append(options)

    monkeypatch.setattr(distributed.jax.distributed, 'initialize', initialize)
    monkeypatch.setattr(distributed.jax.config, 'update', lambda name, value: None)
    step = {'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'n[1-2]', 'SLURM_PROCID': '1', 'SLURM_LOCALID': '0'}
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    for tasks, calls in (('1', 0), ('2', 1)):
        monkeypatch.setenv('SLURM_NTASKS', tasks)
        distributed.start()
        assert len(asked) == calls
    assert asked[0]['heartbeat_timeout_seconds'] < 60
    distributed.start('none')
    assert len(asked) == 1
