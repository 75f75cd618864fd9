"""Failed saves: messages state only what is on disk, and a training succeeds only if its final weights are saved."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from resume_training import STEPS, Job

from xlmr_flax.train.checkpoint import CheckpointError, Checkpoints, Handler
from xlmr_flax.train.phase import NonFiniteLoss


class Late(Job):
    """Its saves end, and fail, in the last evaluation alone; the dev metric falls."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **recipe: Any):
        super().__init__(folder, eval_every=STEPS - 1, **recipe)
        self.evaluations, self.over = 0, threading.Event()

        def finalize(handler: Handler, directory: Any) -> None:
            assert self.over.wait(60)
            raise OSError(errno.ENOSPC, 'No space left on device')

        monkeypatch.setattr(Handler, 'finalize', finalize)

    def evaluate(self, params: Any) -> dict[str, float]:
        self.evaluations += 1
        if self.evaluations == 2:
            self.over.set()
        return {'dev_metric': -float(self.evaluations)}


def test_the_last_state_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Late(tmp_path, monkeypatch, keep='last', checkpoint_every=STEPS - 1)
    assert job.train().step == STEPS
    assert f'{tmp_path}/c/last/{STEPS - 1}: cannot be saved: No space left on device' in job.said
    assert job.said.endswith('no checkpoint had been saved before; the training is finished without it')
    assert not list((tmp_path / 'c' / 'last').iterdir())


def test_the_best_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Late(tmp_path, monkeypatch, keep='best', checkpoint_every=0)
    with pytest.raises(CheckpointError, match=f'best/{STEPS - 1}: cannot be saved: No space left on device') as e:
        job.train()
    assert 'finished' not in str(e.value)
    assert 'delete' not in str(e.value)
    assert job.said == ''


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, real = Job(tmp_path, checkpoint_every=3, eval_every=0), Path.mkdir

    def mkdir(self: Path, *args: Any, **more: Any) -> None:
        if self.is_relative_to(tmp_path / 'c'):
            raise PermissionError(errno.EACCES, 'Permission denied', str(self))
        real(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            'mkdir',
            lambda self, *a, **k: mkdir(self, *a, **k) if self.is_relative_to(tmp_path) else real(self, *a, **k),
        )
        with pytest.raises(
            CheckpointError, match=r'last/3: cannot be saved: Permission denied .*no checkpoint had been saved'
        ):
            job.train()
    assert not (tmp_path / 'c').exists()


@pytest.mark.parametrize(('every', 'left'), [(0, 'No checkpoint'), (3, 'step 3')])
def test_a_loss_that_is_not_finite_names_the_state_that_is_there(
    every: int, left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xlmr_flax.train import loop

    job, real = Job(tmp_path, checkpoint_every=every, eval_every=0), loop._Loop.batches

    def batches(self: Any, step: int) -> Any:
        if step == 4:
            self.saved.wait()
            function = self.step_function

            def broken(*arguments: Any) -> Any:
                state, metrics = function(*arguments)
                return state, metrics | {'loss': float('nan')}

            self.step_function = broken
        return real(self, step)

    monkeypatch.setattr(loop._Loop, 'batches', batches)
    with pytest.raises(NonFiniteLoss, match=rf'step 4 of .*\. .*{left}'):
        job.train()
    assert (tmp_path / 'c' / 'last' / '3').exists() == bool(every)


def test_a_disk_that_takes_no_more_is_one_message(tmp_path: Path) -> None:
    """Several arrays are being written when the first write fails. The limit is the system's, on the size of a file."""
    pytest.importorskip('resource')
    code = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        import numpy as np
        from xlmr_flax.train.checkpoint import CheckpointError, Checkpoints
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
        draw = np.random.default_rng(0)
        tree = {str(i): draw.random((400, 500), np.float32) for i in range(8)}
        for name in 'ab':
            checkpoints = Checkpoints(Path(sys.argv[1]) / name, 'h')
            try:
                checkpoints.save(1, tree)
                checkpoints.wait()
            except CheckpointError as e:
                print(e)
            checkpoints.close()
    """)
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert [line.partition(' (')[0] for line in done.stdout.splitlines()] == [
        f'{tmp_path}/{name}/1: cannot be saved: File too large' for name in 'ab'
    ]
    assert done.stderr == ''


def test_other_exceptions_that_nobody_can_catch_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, 'unraisablehook', reported.append)
    Checkpoints(tmp_path, 'h')
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as found:
        loop.call_soon_threadsafe(print)
    trace = found.value.__traceback__
    assert trace is not None and trace.tb_next is not None
    closed = {'exc_type': RuntimeError, 'exc_value': found.value, 'object': None, 'err_msg': None}
    hook: Any = sys.unraisablehook
    hook(SimpleNamespace(**closed, exc_traceback=trace.tb_next))
    assert reported == []
    others = [
        SimpleNamespace(**closed, exc_traceback=trace),  # called by Python code, this test
        SimpleNamespace(**closed, exc_traceback=None),
        SimpleNamespace(**closed | {'object': print}, exc_traceback=trace.tb_next),
        SimpleNamespace(**closed | {'exc_value': RuntimeError('another')}, exc_traceback=trace.tb_next),
    ]
    for other in others:
        hook(other)
    assert reported == others
