"""Stopped by SIGTERM, killed in a step, killed in a save, at any point: started again, the training has the losses, the
weights and the examples of one that nothing stopped. Real processes, real signals."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from resume_training import STEPS, STOPPED, Job

from xlmr_flax.train.phase import Trained

ROOT = Path(__file__).parents[2]
KILLED = -9


class Server:
    """Forks processes that train in a folder."""

    def __init__(self, log: Path):
        self.log = log
        env = os.environ | {
            'PYTHONPATH': str(ROOT),
            'OMP_NUM_THREADS': '1',
            # Every process of these tests compiles the same programs.
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        with log.open('w') as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / 'tests' / 'resume_training.py')],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=env,
            )  # fmt: skip

    def train(self, folder: Path, **faults: Any) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({'folder': str(folder), **faults}) + '\n')
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        assert code != 2, self.log.read_text()
        return code


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp('server') / 'log')
    with found.process:
        yield found
        found.process.kill()


@pytest.fixture(scope='module')
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Trained]:
    """A training that nothing stopped."""
    job = Job(tmp_path_factory.mktemp('whole'))
    trained = job.train()
    assert sorted(job.consumed()) == list(range(STEPS))
    assert sum('loss' in r for r in job.losses()) == STEPS
    assert {p.name for p in (job.folder / 'c').glob('*/*')} >= {'6', '9', '4'}, 'states, and the best weights'
    return job, trained


def assert_goes_on_as_whole(folder: Path, whole: tuple[Job, Trained]) -> int:
    """Starts the training again in this process; the step that it started from."""
    job, (want, trained) = Job(folder), whole
    found = job.train()
    jax.tree.map(np.testing.assert_array_equal, found.params, trained.params)
    if job.final is not None:  # else it had been stopped behind the last step
        jax.tree.map(np.testing.assert_array_equal, job.final, want.final)
    assert (found.step, found.metric) == (trained.step, trained.metric)
    assert job.losses() == want.losses()
    assert job.consumed() == want.consumed()
    assert not list((folder / 'c').glob('*/*tmp*'))
    return job.read('starts')[-1]


POINTS = [
    pytest.param({'stop': 4}, STOPPED, id='SIGTERM when step 4 begins'),
    pytest.param({'stop': 7, 'seconds': 0.004}, STOPPED, id='SIGTERM in step 7', marks=pytest.mark.slow),
    pytest.param({'kill': 5}, KILLED, id='SIGKILL when step 5 begins', marks=pytest.mark.slow),
    pytest.param({'kill': 9, 'seconds': 0.003}, KILLED, id='SIGKILL in step 9'),
    pytest.param({'save': 2, 'operation': 9}, KILLED, id='SIGKILL before a file operation of a save'),
    pytest.param({'save': 3, 'seconds': 0.03}, KILLED, id='SIGKILL at a time in a save', marks=pytest.mark.slow),
]


@pytest.mark.parametrize(('fault', 'code'), POINTS)
def test_after_any_stop_it_goes_on(
    fault: dict[str, Any], code: int, server: Server, whole: tuple[Job, Trained], tmp_path: Path
) -> None:
    assert server.train(tmp_path / 'w', **fault) == code
    start = assert_goes_on_as_whole(tmp_path / 'w', whole)
    if code == STOPPED:  # its state was saved right there
        assert start > max(fault['stop'], 3)
    else:
        assert start in (0, 3, 6, 9)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['stop', 'kill', 'save, operation', 'save, time'])
def test_after_stops_at_random(kind: str, server: Server, whole: tuple[Job, Trained], tmp_path: Path) -> None:
    """20 points of each kind (of those in a save, 10 of each). Each training is stopped up to three times."""
    draw, codes, starts = random.Random(kind), [], set()
    assert server.train(tmp_path / 'count') == 0
    counts = json.loads((tmp_path / 'count' / 'operations').read_text())[1:]
    while len(codes) < (10 if kind.startswith('save') else 20):
        folder = tmp_path / f'w{len(codes)}'
        for _ in range(draw.randrange(1, 4)):
            if kind == 'save, operation':
                save = draw.randrange(len(counts) - 1)
                operation = draw.randrange(1, counts[save + 1] - counts[save] + 1)
                fault = {'save': save + 1, 'operation': operation}
            elif kind == 'save, time':
                fault = {'save': draw.randrange(1, len(counts)), 'seconds': draw.uniform(0, 0.1)}
            else:
                fault = {kind: draw.randrange(STEPS), 'seconds': draw.uniform(0, 0.02)}
            codes.append(server.train(folder, **fault))
        starts.add(assert_goes_on_as_whole(folder, whole))
        shutil.rmtree(folder)
    # The point may lie behind the end of a training that had got further before; SIGTERM then ends the process.
    expected = STOPPED if kind == 'stop' else KILLED
    assert set(codes) <= {expected, 0, -15 if kind == 'stop' else KILLED}
    assert sum(code == expected for code in codes) > len(codes) // 2, codes
    assert len(starts) > 1


def test_a_disk_that_is_full(server: Server, whole: tuple[Job, Trained], tmp_path: Path) -> None:
    """A limit on the size of files makes real writes fail, in Orbax's threads."""
    folder = tmp_path / 'w'
    assert server.train(folder, save=3, limit=4000) == 1
    error = (folder / 'error').read_text()
    assert error.startswith(f'{folder}/c/last/6: cannot be saved: File too large (0.')
    assert ' MB needed, ' in error
    assert re.search(r' free\); [^;]*\bstep 3\b', error)
    assert not list((folder / 'c').glob('*/*tmp*'))
    assert 'ERROR' not in server.log.read_text(), 'said once, not by each of its threads'
    assert assert_goes_on_as_whole(folder, whole) == 3


def test_it_goes_on_on_another_mesh(server: Server, whole: tuple[Job, Trained], tmp_path: Path) -> None:
    """From one device to eight, cut in three ways, and back; in between it is stopped and killed."""
    folder, (want, trained) = tmp_path / 'w', whole
    assert server.train(folder, stop=3) == STOPPED
    assert server.train(folder, devices=8, mesh=[2, 2, 2], kill=7) == KILLED
    job = Job(folder)
    found = job.train()
    assert job.read('starts')[:2] == [0, 4]
    assert job.read('starts')[2] in (4, 6), 'a save may have been under way'
    for a, b in ((found.params, trained.params), (job.final, want.final)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)
    assert found.step == trained.step
    for a, b in zip(job.losses(), want.losses(), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert job.consumed() == want.consumed()


def test_a_stop_on_a_full_disk_says_that_nothing_is_saved(
    server: Server, whole: tuple[Job, Trained], tmp_path: Path
) -> None:
    folder = tmp_path / 'w'
    assert server.train(folder, stop=8, save=4, limit=4000) == 1
    error = (folder / 'error').read_text()
    # Which save fails first, that of step 6 in the background or that of the stop, is the disk's affair.
    found = re.fullmatch(
        r"stopped at step 9 of 12 of task 'two', but the state is not saved: .*/c/last/[69]: cannot be saved: "
        r'File too large .* free\); [^;]*\bstep ([36])\b.*',
        error,
    )
    assert found, error
    assert assert_goes_on_as_whole(folder, whole) == int(found[1])
