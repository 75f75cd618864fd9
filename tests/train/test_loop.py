"""The loop: going on after a stop anywhere as if there had been none, dev selection, patience, losses that are no
numbers.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from one_head import single

from xlmr_flax.config import OptimizerSpec, Recipe
from xlmr_flax.data.batches import units_at
from xlmr_flax.data.encode import Encoded
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.train import streams
from xlmr_flax.train.checkpoint import CheckpointError
from xlmr_flax.train.loop import train
from xlmr_flax.train.phase import NonFiniteLoss, Phase, Trained, total_steps
from xlmr_flax.util.stopping import Stopped

LENGTHS = (12,)
RECIPE = Recipe(
    steps=12, batch_size=6, max_length=12, lengths=(12,), log_every=5, eval_every=4, checkpoint_every=3,
    optimizer=OptimizerSpec(learning_rate=1e-2),
)  # fmt: skip


class Crash(Exception):
    """What a machine does."""


class Bench:
    """A phase on a folder, and what it logged. dev: metric by evaluation number, over all starts."""

    def __init__(
        self, tiny: Any, data: Encoded, folder: Path, recipe: Recipe = RECIPE, run_hash: str = 'h', dev: Any = None
    ):
        self.records: list[dict[str, Any]] = []
        self.folder, self.tiny, self.dev, self.params = folder, tiny, dev, tiny.params
        self.phase = Phase(
            task='toy', model=tiny.model, recipe=recipe, data=single('toy', 'x', tiny.head, data, LENGTHS, 7),
            steps=total_steps(recipe, len(data)), seed=7, pad=1, mesh=make_mesh(), directory=folder, run_hash=run_hash,
            evaluate=self.evaluate, log=self.records.append, on_start=self.forget,
        )  # fmt: skip

    def evaluate(self, params: Any) -> dict[str, float]:
        """A number that the weights decide, unless the test says which."""
        if self.dev is not None:
            return {'dev_metric': self.dev.pop(0)}
        return {'dev_metric': float(np.abs(np.asarray(params['heads']['x']['out']['kernel'])).sum())}

    def forget(self, step: int, evaluated: bool) -> None:
        kept = [r for r in self.records if r['step'] <= step]
        self.records[:] = [r for r in kept if evaluated or r['step'] < step or 'best' not in r]

    def train(self) -> Trained:
        trained = train(self.phase, self.params)
        return dataclasses.replace(trained, params=jax.device_get(trained.params))

    def rows(self) -> list[dict[str, Any]]:
        """What was logged, without what the clock decides."""
        return [{k: v for k, v in r.items() if k != 'examples_per_s'} for r in self.records]


def at_step(monkeypatch: pytest.MonkeyPatch, when: int, what: Callable[[], None]) -> None:
    """Calls `what` once, when the batch of a step is asked for."""
    real, pending = streams.train_batch, [when]

    def train_batch(data: Encoded, step: int, *rest: Any) -> Any:
        if pending and step == pending[0]:
            pending.clear()
            what()
        return real(data, step, *rest)

    monkeypatch.setattr(streams, 'train_batch', train_batch)


def crash() -> None:
    raise Crash


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def assert_same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope='module', params=['last', 'best'])
def whole(request: pytest.FixtureRequest, tiny: Any, data: Encoded, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(recipe, result, rows) of a run that nothing stopped."""
    recipe = dataclasses.replace(RECIPE, keep=request.param)
    bench = Bench(tiny, data, tmp_path_factory.mktemp('whole') / 'c', recipe)
    return recipe, bench.train(), bench.rows()


@pytest.mark.parametrize('step', [2, 7, 11])
def test_after_a_crash_it_goes_on_from_the_last_state(
    step: int, whole: Any, tiny: Any, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, want, rows = whole
    bench = Bench(tiny, data, tmp_path / 'c', recipe)
    at_step(monkeypatch, step, crash)
    with pytest.raises(Crash):
        bench.train()
    starts: list[int] = []
    bench.phase = dataclasses.replace(bench.phase, on_start=lambda s, e: (starts.append(s), bench.forget(s, e))[0])
    found = bench.train()
    assert starts == [step // 3 * 3]
    assert_same(found.params, want.params)
    assert (found.step, found.metric) == (want.step, want.metric)
    assert bench.rows() == rows


@pytest.mark.parametrize('step', [0, 4, 6, 11])
def test_asked_to_stop_it_saves_and_goes_on_from_there(
    step: int, whole: Any, tiny: Any, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between two log lines, and in the last step."""
    recipe, want, rows = whole
    bench = Bench(tiny, data, tmp_path / 'c', recipe)
    at_step(monkeypatch, step, terminate)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=f"stopped at step {step + 1} of 12 of task 'toy'; state saved"):
        bench.train()
    assert signal.getsignal(signal.SIGTERM) is before
    calls: list[int] = []
    at_step(monkeypatch, step, lambda: calls.append(step))
    found = bench.train()
    assert not calls, 'no step is made twice'
    assert_same(found.params, want.params)
    assert (found.step, found.metric) == (want.step, want.metric)
    assert bench.rows() == rows


def test_the_best_weights_by_dev_are_kept(tiny: Any, data: Encoded, tmp_path: Path) -> None:
    best = dataclasses.replace(RECIPE, keep='best')
    bench = Bench(tiny, data, tmp_path / 'a', best, dev=[10.0, 30.0, 20.0])
    found = bench.train()
    assert (found.step, found.metric) == (8, 30.0)
    # A run of the same schedule that is stopped by patience right there has the weights of step 8 in hand.
    seen: list[Any] = []
    other = Bench(tiny, data, tmp_path / 'b', best)

    def evaluate(params: Any) -> dict[str, float]:
        seen.append(jax.device_get(params))
        return {'dev_metric': 0.0}

    other.phase = dataclasses.replace(other.phase, evaluate=evaluate)
    other.train()
    assert_same(found.params, seen[1])
    assert np.abs(seen[1]['heads']['x']['out']['kernel'] - seen[2]['heads']['x']['out']['kernel']).max() > 1e-4
    assert [(r['step'], r['best']) for r in bench.records if 'best' in r] == [(4, True), (8, True), (12, False)]


def test_the_last_weights_come_with_their_own_metric(tiny: Any, data: Encoded, tmp_path: Path) -> None:
    found = Bench(tiny, data, tmp_path / 'c', dev=[10.0, 30.0, 20.0]).train()
    assert (found.step, found.metric) == (12, 20.0)


@pytest.mark.parametrize(('keep', 'want'), [('best', (2, 5.0)), ('last', (8, 3.0))])
def test_patience_stops(
    keep: str, want: tuple[int, float], tiny: Any, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, keep=keep, patience=3, eval_every=2)
    bench = Bench(tiny, data, tmp_path / 'c', recipe, dev=[5.0, 4.0, 5.0, 3.0])
    found = bench.train()
    assert (found.step, found.metric) == want
    assert bench.records[-1]['step'] == 8
    # Asked to stop in the very step that patience ends, it does not train on when it is started again.
    bench = Bench(tiny, data, tmp_path / 'd', recipe, dev=[5.0, 4.0, 5.0, 3.0])
    at_step(monkeypatch, 7, terminate)
    with pytest.raises(Stopped):
        bench.train()
    again = bench.train()
    assert (again.step, again.metric) == want
    assert_same(again.params, found.params)


def test_without_a_dev_set_there_is_no_metric(tiny: Any, data: Encoded, tmp_path: Path) -> None:
    bench = Bench(tiny, data, tmp_path / 'c')
    bench.phase = dataclasses.replace(bench.phase, evaluate=None)
    found = bench.train()
    assert found.step == 12
    assert math.isnan(found.metric)
    assert [r['step'] for r in bench.records] == [3, 5, 6, 9, 10, 12]


def test_a_loss_that_is_no_number_names_step_task_and_examples(tiny: Any, data: Encoded, tmp_path: Path) -> None:
    bench = Bench(tiny, data, tmp_path / 'c')
    head = {**tiny.params['heads']['x'], 'out': {k: v * np.nan for k, v in tiny.params['heads']['x']['out'].items()}}
    bench.params = {**tiny.params, 'heads': {'x': head}}
    with pytest.raises(NonFiniteLoss) as caught:
        bench.train()
    message = str(caught.value)
    assert message.startswith("loss nan, gradient norm nan at step 0 of task 'toy'; examples: row-")
    for row in units_at(0, 50, 6, seed=7):
        assert f'row-{row}' in message
    assert bench.records == []
    assert not list((tmp_path / 'c' / 'last').glob('[0-9]*')), 'a state that is no number is never saved'


def test_asked_to_stop_it_saves_no_state_that_is_no_number(
    tiny: Any, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two log lines, where nothing has been looked at yet."""
    bench = Bench(tiny, data, tmp_path / 'c')
    bench.params = jax.tree.map(lambda x: x * np.float32(np.nan), tiny.params)
    at_step(monkeypatch, 1, terminate)
    with pytest.raises(NonFiniteLoss, match='at step 0 of task'):
        bench.train()
    assert not list((tmp_path / 'c' / 'last').glob('[0-9]*'))


def test_a_loss_that_explodes_later(tiny: Any, data: Encoded, tmp_path: Path) -> None:
    """The state saved before it stays."""
    recipe = dataclasses.replace(
        RECIPE, steps=40, optimizer=OptimizerSpec(learning_rate=1e36, warmup_steps=20, clip_norm=0.0)
    )
    bench = Bench(tiny, data, tmp_path / 'c', recipe)
    with pytest.raises(NonFiniteLoss, match=r"at step \d+ of task 'toy'; examples: row-"):
        bench.train()


def test_a_state_of_another_run_is_refused(
    tiny: Any, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 4, crash)
    with pytest.raises(Crash):
        Bench(tiny, data, tmp_path / 'c', run_hash='one').train()
    with pytest.raises(CheckpointError, match=r'c/last/3: belongs to run one, this is other; use another workdir'):
        Bench(tiny, data, tmp_path / 'c', run_hash='other').train()


@pytest.mark.parametrize('what', ['tree', 'facts', 'everything'])
def test_a_state_that_was_cut_names_its_file(
    what: str, tiny: Any, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 4, crash)
    with pytest.raises(Crash):
        Bench(tiny, data, tmp_path / 'c').train()
    step = tmp_path / 'c' / 'last' / '3'
    files = [p for p in step.rglob('*') if p.is_file() and what in ('everything', p.relative_to(step).parts[0])]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError) as caught:
        Bench(tiny, data, tmp_path / 'c').train()
    assert str(step) in str(caught.value)
    assert f'delete {tmp_path / "c"} to train this run from its start' in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('recipe', 'n', 'want'),
    [(Recipe(epochs=3, batch_size=32), 100, 10), (Recipe(epochs=0.5, batch_size=8), 8, 1), (Recipe(steps=7), 1000, 7)],
)
def test_total_steps(recipe: Recipe, n: int, want: int) -> None:
    """jiant: ceil of epochs * examples / batch."""
    assert total_steps(recipe, n) == want
