"""Several real processes on this machine, over gloo: they compute what one process with as many devices does, stop
together, and notice when one of them dies."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_devices import environment

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.intermediate=('none',)",
    "--config.targets=('world_pairs',)",
    "--config.evaluation.languages={'world_pairs': ('en', 'de')}",
    '--config.recipe.max_train=64',
    '--config.recipe.steps=4',
)
# Rows that no number of devices divides; losses of every step; selection in the middle, so that the best is kept apart.
UNEVEN = (
    '--config.evaluation.max_examples=13',
    '--config.recipe.eval_examples=21',
    '--config.recipe.log_every=1',
    '--config.recipe.eval_every=2',
)


class Process(subprocess.Popen):
    """One process. log: what it has said."""

    def __init__(self, command: list[str], log: Path, **options: Any):
        super().__init__(command, **options)
        self.log = log


class Processes:
    """Starts processes of one job; those that are left are killed in the end."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._all: list[Process] = []

    def start(self, count: int, program: list[str], flags: tuple[str, ...], devices: int = 1) -> list[Process]:
        """count processes with so many devices each."""
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        env = environment(devices) | {'OMP_NUM_THREADS': '1'}
        started = []
        for index in range(count):
            together = (f'--coordinator=127.0.0.1:{port}', f'--num_processes={count}', f'--process_id={index}')
            command = [sys.executable, *program, *flags, *(together if count > 1 else ())]
            path = self.folder / f'log-{len(self._all)}'
            with path.open('w') as log:
                started.append(Process(command, path, cwd=ROOT, env=env, stdout=log, stderr=log))
            self._all.append(started[-1])
        return started

    def end(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()


def said(process: Process) -> str:
    return process.log.read_text(encoding='utf-8')


def finish(processes: list[Process], seconds: float = 300) -> list[int]:
    """The exit codes."""
    until = time.monotonic() + seconds
    return [process.wait(max(0.1, until - time.monotonic())) for process in processes]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    yield found
    found.end()


def run_flags(workdir: Path, *more: str) -> tuple[str, ...]:
    return (f'--config={ROOT / "configs" / "tiny.py"}', f'--workdir={workdir}', *more)


def jsonl(path: Path, *without: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
    return [{k: v for k, v in row.items() if k not in without} for row in rows]


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def check_equal(processes: Processes, count: int, flags: tuple[str, ...]) -> None:
    """The same run and mining by `count` processes and by one process with `count` devices."""
    folder = processes.folder
    worker = str(Path(__file__).with_name('distributed_worker.py'))
    many = processes.start(count, [worker, str(folder / 'many.npz')], run_flags(folder / 'many', *flags))
    one = processes.start(1, [worker, str(folder / 'one.npz')], run_flags(folder / 'one', *flags), devices=count)
    codes = finish([*many, *one])
    assert codes == [0] * (count + 1), '\n'.join(said(process) for process in [*many, *one])

    many_log, one_log = (jsonl(folder / name / 'metrics.jsonl', 'examples_per_s') for name in ('many', 'one'))
    assert [sorted(r) for r in many_log] == [sorted(r) for r in one_log]
    assert sum('loss' in r for r in one_log) >= 4
    for a, b in zip(many_log, one_log, strict=True):
        assert {k: v for k, v in a.items() if isinstance(v, str)} == {k: v for k, v in b.items() if isinstance(v, str)}
        for name, value in b.items():
            if isinstance(value, float):
                assert a[name] == pytest.approx(value, abs=1e-6), (name, b['step'])
    assert jsonl(folder / 'many' / 'results.jsonl', 'command') == jsonl(folder / 'one' / 'results.jsonl', 'command')
    predictions = files(folder / 'one' / 'predictions')
    assert predictions
    assert files(folder / 'many' / 'predictions') == predictions
    assert set(files(folder / 'many')) == set(files(folder / 'one'))  # nobody but process 0 left a file
    with np.load(folder / 'many.npz') as found, np.load(folder / 'one.npz') as want:
        assert len(want['x']) > 100
        for name in want:
            np.testing.assert_array_equal(found[name], want[name], name)
    for follower in many[1:]:
        assert 'train' not in said(follower)


def test_two_processes_compute_what_one_does(processes: Processes) -> None:
    check_equal(processes, 2, (*SMALL, *UNEVEN))


@pytest.mark.slow
def test_four_processes_with_parameters_cut_over_them_compute_what_one_does(processes: Processes) -> None:
    # Retrieval, too, an intermediate task, and a target that starts from it.
    check_equal(processes, 4, (*UNEVEN, '--config.recipe.max_train=64', '--config.mesh.fsdp=2'))


@pytest.mark.slow
def test_two_processes_retrieve_by_layer_as_one_does(processes: Processes) -> None:
    folder = processes.folder
    asked = ('--encoder=random:tiny', '--task=world_retrieval', '--languages=de,sw', '--max_examples=20')
    one, many = (
        processes.start(count, ['-m', 'xlmr_flax', 'retrieval'], (*asked, f'--out={folder / name}'), 2 // count)
        for count, name in ((1, 'one'), (2, 'many'))
    )
    assert finish([*one, *many]) == [0, 0, 0], '\n'.join(map(said, [*one, *many]))
    found, want = (jsonl(folder / name / 'retrieval.jsonl', 'command') for name in ('many', 'one'))
    assert found == want and 'many_to_many' in want[0]
    assert set(files(folder / 'many')) == set(files(folder / 'one'))


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, 'nothing happened'
        time.sleep(0.2)


def long_run(processes: Processes, workdir: Path, steps: int = 1000000, count: int = 2) -> list[Process]:
    """Processes in the middle of a training, with two devices together."""
    flags = run_flags(workdir, *SMALL, f'--config.recipe.steps={steps}', '--config.recipe.log_every=5')
    found = processes.start(count, ['-m', 'xlmr_flax'], ('run', *flags), 2 // count)
    wait_for(lambda: (workdir / 'metrics.jsonl').is_file() or any(p.poll() is not None for p in found))
    assert [p.poll() for p in found] == [None] * count, '\n'.join(map(said, found))
    return found


@pytest.mark.slow
@pytest.mark.parametrize('asked', [0, 1])
def test_a_stop_request_to_one_stops_all_at_one_step(processes: Processes, asked: int) -> None:
    workdir = processes.folder / 'w'
    found = long_run(processes, workdir)
    found[asked].send_signal(signal.SIGTERM)
    assert finish(found, 60) == [143, 143]
    lines = [line for p in found for line in said(p).splitlines() if line.startswith('stopped at step')]
    assert len(lines) == 2
    assert lines[0] == lines[1]
    (saved,) = (workdir / 'runs').glob('*/checkpoints/last/*')
    assert f'stopped at step {saved.name} of' in lines[0]
    assert not (workdir / 'failed').exists()


@pytest.mark.slow
@pytest.mark.parametrize(('before', 'after'), [(2, 1), (1, 2)])
def test_what_some_processes_began_others_end_as_if_never_stopped(
    processes: Processes, before: int, after: int
) -> None:
    """All of them go on from the step that process 0 found, on as many devices."""
    workdir, straight = processes.folder / 'w', processes.folder / 'straight'
    found = long_run(processes, workdir, 400, before)
    found[0].send_signal(signal.SIGTERM)
    assert finish(found, 60) == [143] * before
    more = (*SMALL, '--config.recipe.steps=400', '--config.recipe.log_every=5')
    rest = processes.start(after, ['-m', 'xlmr_flax'], ('run', *run_flags(workdir, *more)), 2 // after)
    alone = processes.start(1, ['-m', 'xlmr_flax'], ('run', *run_flags(straight, *more)), 2)
    assert finish([*rest, *alone]) == [0] * (after + 1), '\n'.join(map(said, [*rest, *alone]))
    again, want = (jsonl(w / 'metrics.jsonl', 'examples_per_s') for w in (workdir, straight))
    assert [r['step'] for r in again] == [r['step'] for r in want]
    for a, b in zip(again, want, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert files(workdir / 'predictions') == files(straight / 'predictions')


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize('who', [0, 1])
def test_a_process_that_dies_or_hangs_ends_the_other_within_a_minute(
    processes: Processes, who: int, how: signal.Signals
) -> None:
    found = long_run(processes, processes.folder / 'w')
    found[who].send_signal(how)
    other = found[1 - who]
    started = time.monotonic()
    code = other.wait(60)
    assert code in (134, -signal.SIGABRT), said(other)  # by its own hand, or by JAX's health check
    text = said(other)
    assert f'process {who} of 2' in text or 'another task died' in text
    assert time.monotonic() - started < 60
    assert not (processes.folder / 'w' / 'failed').exists()  # no failure of the run: it goes on when started again


# The first process computes while the second is still busy, with its compiler say: gloo alone waits for 30 seconds.
LATE = """
import sys, time
import jax, numpy as np
from xlmr_flax.parallel import distributed
from xlmr_flax.parallel.mesh import make_mesh, put_batch

address, count, index = (flag.split('=')[1] for flag in sys.argv[1:])
distributed.start(address, int(count), int(index))
mesh = make_mesh()
distributed.connect(mesh)
time.sleep(40 * int(index))
found = jax.jit(lambda x: x.sum())(put_batch({'x': np.arange(8.0)}, mesh)['x'])
print('sum', float(found), flush=True)
distributed.barrier('end')
"""


@pytest.mark.slow
def test_a_process_waits_for_one_that_compiles_longer(processes: Processes) -> None:
    found = processes.start(2, ['-c', LATE], ())
    assert finish(found, 120) == [0, 0], '\n'.join(map(said, found))
    assert all('sum 28.0' in said(process) for process in found)


@pytest.mark.slow
def test_two_processes_trace_their_own_hosts_into_one_session(processes: Processes) -> None:
    workdir = processes.folder / 'w'
    found = processes.start(2, ['-m', 'xlmr_flax'], ('run', *run_flags(workdir, *SMALL), '--profile=1:3'))
    assert finish(found) == [0, 0], '\n'.join(map(said, found))
    traces = sorted(p.relative_to(workdir / 'profile').parts[1:-1] for p in workdir.rglob('*.xplane.pb'))
    session = traces[0][-1]
    # Two processes of one machine would write one file, which is named after the host.
    assert traces == [('plugins', 'profile', session), ('process-1', 'plugins', 'profile', session)]
    assert 'profile: steps 1 to 2 in' in said(found[0])
    assert 'profile:' not in said(found[1])


@pytest.mark.slow
def test_processes_that_differ_say_in_what(processes: Processes) -> None:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    found = []
    for index in range(2):
        flags = run_flags(processes.folder / 'w', *SMALL, f'--config.recipe.batch_size={8 + 8 * index}')
        job = (f'--coordinator={address}', '--num_processes=2', f'--process_id={index}')
        found += processes.start(1, ['-m', 'xlmr_flax'], ('run', *flags, *job))
    assert finish(found, 120) == [1, 1]
    assert all('error: process 1 differs from process 0 in config' in said(p) for p in found)
