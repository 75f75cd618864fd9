"""Checkpoints: written beside the training, whole or not at all, checked before they are read, refused where they are
another run's.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_flax.train import checkpoint
from xlmr_flax.train.checkpoint import CheckpointError, changed_settings
from xlmr_flax.train.training_checkpoints import TrainingCheckpoints, newest_decides
from xlmr_flax.util.manifest import ManifestError


def state_of(step: int) -> dict[str, Any]:
    """Arrays of which one is large enough for a file of its own."""
    return {
        'w': jnp.arange(300_000, dtype=jnp.float32) + step,
        'b': jnp.full(3, step, jnp.bfloat16),
        'step': jnp.int32(step),
    }


def assert_same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[TrainingCheckpoints]:
    found = make(tmp_path)
    yield found
    found.close()


def make(folder: Path, keep: int = 2, run_hash: str = 'h', **decides: Any) -> TrainingCheckpoints:
    said: list[str] = []
    found = TrainingCheckpoints(folder, run_hash, decides, keep, said.append)
    found.said = said  # type: ignore[attr-defined]
    return found


def save(saved: TrainingCheckpoints, *steps: int, best: int = 0) -> None:
    for step in steps:
        saved.save_last(step, state_of(step), best_step=best)
    saved.wait()


def files(folder: Path) -> list[Path]:
    """All that is checked: without Orbax's notes, which it writes behind the list and does not need."""
    unchecked = {'_CHECKPOINT_METADATA', folder / 'commit_success.txt'}
    return sorted(p for p in folder.rglob('*') if p.is_file() and not {p, p.name} & unchecked)


class Gate:
    """Holds a save in the background right before it is whole."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.reached, self.open, real = threading.Event(), threading.Event(), checkpoint.write_manifest

        def write_manifest(*args: Any, **more: Any) -> None:
            self.reached.set()
            assert self.open.wait(60)
            real(*args, **more)

        monkeypatch.setattr(checkpoint, 'write_manifest', write_manifest)


def test_steps_go_on_while_it_is_written(saved: TrainingCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays are donated and overwritten before anything is on disk, and what is read is what was saved."""
    gate = Gate(monkeypatch)
    step = jax.jit(lambda state: jax.tree.map(lambda x: x * 3 + 1, state), donate_argnums=0)
    state, want = state_of(4), jax.device_get(state_of(4))
    saved.save_last(4, state, best_step=0)
    for _ in range(20):
        state = step(state)
    jax.block_until_ready(state)
    assert gate.reached.wait(60)
    assert saved.last.steps() == [], 'it is not whole yet'
    gate.open.set()
    saved.wait()
    assert saved.last.steps() == [4]
    assert_same(saved.restore(4, state_of(0)), want)


def test_the_next_save_and_the_end_wait_for_one_that_is_under_way(
    saved: TrainingCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    saved.save_last(4, state_of(4), best_step=0)
    assert gate.reached.wait(60)
    threading.Timer(0.2, gate.open.set).start()
    saved.save_last(5, state_of(5), best_step=0)
    assert saved.last.steps() == [4]
    saved.close()
    assert saved.last.steps() == [4, 5]


@pytest.mark.parametrize('keep', [1, 3])
def test_the_last_so_many_stay(keep: int, tmp_path: Path) -> None:
    saved = make(tmp_path, keep)
    save(saved, 2, 4, 6, 8, 10)
    assert saved.last.steps() == [2, 4, 6, 8, 10][-keep:]
    saved.close()


def test_best_weights_stay_as_long_as_a_state_names_them(saved: TrainingCheckpoints) -> None:
    """A run that goes on from an older state needs the best weights that there were then."""
    weights = {'w': jnp.ones(3)}
    saved.save_best(2, weights, 1.0)
    save(saved, 3, best=2)
    saved.save_best(4, weights, 2.0)
    saved.save_best(5, weights, 3.0)
    save(saved, 6, best=5)
    assert (saved.last.steps(), saved.best.steps()) == ([3, 6], [2, 5])
    save(saved, 9, best=5)
    assert (saved.last.steps(), saved.best.steps()) == ([6, 9], [5])
    again = make(saved.directory)
    facts = again.start()
    assert facts is not None
    assert (facts['step'], facts['best_step']) == (9, 5)
    params, metric = again.restore_best(5, weights)
    assert_same(params, weights)
    assert metric == 3.0
    again.close()


@pytest.mark.parametrize('how', ['flipped', 'cut', 'lost'])
def test_every_file_that_is_damaged_is_named(how: str, saved: TrainingCheckpoints) -> None:
    save(saved, 4)
    names = files(saved.directory / 'last' / '4')
    assert len(names) > 8
    for path in names:
        whole = path.read_bytes()
        if how == 'lost':
            path.unlink()
        else:
            broken = bytearray(whole[: len(whole) // 2] if how == 'cut' else whole)
            broken[len(whole) // 3] ^= how == 'flipped'
            path.write_bytes(broken)
        with pytest.raises(CheckpointError) as caught:
            make(saved.directory).start()
        assert path.name == 'manifest.json' or str(caught.value).startswith(f'{path} ')
        assert str(caught.value).endswith(f'delete {saved.directory} to train this run from its start')
        path.write_bytes(whole)
    assert make(saved.directory).start() is not None


def damage(folder: Path) -> Path:
    path = max(files(folder / 'tree'), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    return path


def test_an_older_one_is_taken_where_the_newest_is_damaged(saved: TrainingCheckpoints) -> None:
    save(saved, 3, 6)
    path = damage(saved.directory / 'last' / '6')
    again = make(saved.directory)
    facts = again.start()
    assert facts is not None
    assert facts['step'] == 3
    (message,) = again.said  # type: ignore[attr-defined]
    assert message.startswith(f'{path} is damaged: ') and 'step 3' in message
    assert_same(again.restore(3, state_of(0)), state_of(3))
    assert again.last.steps() == [3], 'what is damaged is of no use'
    again.close()


def test_a_state_whose_best_weights_are_damaged_is_passed_over(saved: TrainingCheckpoints) -> None:
    saved.save_best(2, {'w': jnp.ones(3000)}, 1.0)
    save(saved, 3, best=2)
    saved.save_best(5, {'w': jnp.ones(3000)}, 2.0)
    save(saved, 6, best=5)
    damage(saved.directory / 'best' / '5')
    again = make(saved.directory)
    facts = again.start()
    assert facts is not None
    assert facts['step'] == 3
    assert again.best.steps() == [2]


def test_best_weights_that_are_damaged_during_the_training(saved: TrainingCheckpoints) -> None:
    saved.save_best(2, {'w': jnp.ones(3000)}, 1.0)
    saved.wait()
    path = damage(saved.directory / 'best' / '2')
    with pytest.raises(CheckpointError, match=f'^{path} is damaged.*; delete {saved.directory} to train'):
        saved.restore_best(2, {'w': jnp.zeros(3000)})


@pytest.mark.parametrize('before', [True, False])
def test_a_disk_that_is_full(before: bool, saved: TrainingCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the list of files here; tests/train/test_resume_points.py has it in Orbax's own threads."""
    if before:
        save(saved, 3)

    def write_manifest(directory: Path, **more: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory / 'manifest.json'))

    monkeypatch.setattr(checkpoint, 'write_manifest', write_manifest)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(10**12, 10**12, 5000))  # type: ignore[attr-defined]
    saved.save_last(6, state_of(6), best_step=0)
    with pytest.raises(CheckpointError) as caught:
        saved.wait()
    what, left = str(caught.value).split('; ')
    assert what == f'{saved.directory}/last/6: cannot be saved: No space left on device (1.20 MB needed, 0.01 MB free)'
    assert ('step 3' in left) == bool(before)
    assert [p.name for p in (saved.directory / 'last').iterdir()] == ['3'] * before
    saved.wait()  # raised once
    monkeypatch.undo()
    save(saved, 6)
    assert saved.last.steps() == [3, 6][not before :]


def test_what_a_killed_process_left_is_deleted(saved: TrainingCheckpoints) -> None:
    save(saved, 3)
    left = saved.directory / 'last' / '6.orbax-checkpoint-tmp' / 'tree'
    left.mkdir(parents=True)
    facts = make(saved.directory).start()
    assert facts is not None
    assert facts['step'] == 3
    assert not left.parent.exists()


def test_best_weights_of_a_training_without_a_state_are_forgotten(saved: TrainingCheckpoints) -> None:
    saved.save_best(2, {'w': jnp.ones(3)}, 1.0)
    saved.wait()
    assert make(saved.directory).start() is None
    assert saved.best.steps() == []


@pytest.mark.parametrize('content', [b'', b'[]', b'{}', b'\xff', b'{"run_hash": 5}', b'[' * 9999])
def test_facts_that_cannot_be_read(content: bytes, saved: TrainingCheckpoints) -> None:
    save(saved, 3)
    path = saved.last.path(3)
    (path / 'facts' / 'metadata').write_bytes(content)
    with pytest.raises(ManifestError, match='facts/metadata'):
        checkpoint.saved_facts(path)
    assert newest_decides(saved.directory) == {}


RECIPE = {'steps': 100, 'lengths': (64, 128), 'optimizer': {'learning_rate': 1e-5}, 'keep': 'best'}


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    one = make(tmp_path, run_hash='one', recipe=RECIPE, seed=1)
    save(one, 3, 6)
    one.close()
    other = RECIPE | {'steps': 200, 'lengths': (64,), 'optimizer': {'learning_rate': 2e-5}}
    with pytest.raises(CheckpointError) as caught:
        make(tmp_path, run_hash='other', recipe=other, seed=1).start()
    assert str(caught.value) == (
        f'{tmp_path}/last/6: belongs to run one, this is other; use another workdir (recipe.steps: 100 in the '
        'checkpoint, 200 now; recipe.lengths[1]: 128 in the checkpoint, nothing now; '
        'recipe.optimizer.learning_rate: 1e-05 in the checkpoint, 2e-05 now)'
    )
    assert one.last.steps() == [3, 6], 'nothing of it is touched'


def test_differences_of_which_there_are_many(tmp_path: Path) -> None:
    one = make(tmp_path, run_hash='one', **{f'k{i}': i for i in range(20)})
    save(one, 3)
    one.close()
    with pytest.raises(CheckpointError) as caught:
        make(tmp_path, run_hash='other', **{f'k{i}': i + (i > 2) for i in range(20)}).start()
    assert str(caught.value).endswith('k10: 10 in the checkpoint, 11 now; and 9 more)')


def test_differences() -> None:
    assert changed_settings({'a': (1, 2), 'b': {}, 'c': None}, {'a': [1, 2], 'b': {}, 'c': None}) == []
    assert changed_settings({'a': {'x': 1}}, {'a': 'none', 'd': True}) == [
        'a.x: 1 in the checkpoint, nothing now',
        'a: nothing in the checkpoint, "none" now',
        'd: nothing in the checkpoint, true now',
    ]
