"""How a plan is walked: failures, shares, runs that other processes hold, and the files that several write."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claim_files import claims_of
from faked_runner import PLAN, Faked

from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.runner import PlanFailed, Runner
from xlmr_flax.experiment.workdir.claims import Holder
from xlmr_flax.experiment.workdir.scheduling import Share, order
from xlmr_flax.train.phase import NonFiniteLoss


def test_alone_it_goes_in_the_order_of_the_plan(walk: Callable[..., Faked], capsys: pytest.CaptureFixture[str]) -> None:
    first = walk()
    first.run()
    assert first.did == PLAN
    said = capsys.readouterr().out.splitlines()
    assert [line.rsplit('-', 1)[0] for line in said] == [f'[{i}/5] {name}' for i, name in enumerate(PLAN, 1)]
    again = walk()
    again.run()
    assert again.did == []
    assert [line.split('  ')[1] for line in capsys.readouterr().out.splitlines()] == ['finished'] * 5
    assert len(list((again.workdir.path / 'claims').glob('*.json'))) == 5, 'what is finished is not claimed'


def test_a_failed_run_stops_what_starts_from_it_and_nothing_else(
    walk: Callable[..., Faked], capsys: pytest.CaptureFixture[str]
) -> None:
    first = walk()
    first.fails = {PLAN[0]: NonFiniteLoss('loss nan at step 3'), PLAN[2]: MemoryError('no room')}
    with pytest.raises(PlanFailed, match=r'^2 of 5 runs failed, 2 that start from them were skipped; run --retry') as e:
        first.run()
    assert first.did == PLAN[:3]
    assert [line.split(':')[0].rsplit('-', 1)[0] for line in e.value.failures] == [PLAN[0], PLAN[2]]
    assert 'NonFiniteLoss: loss nan at step 3' in e.value.failures[0]
    said = capsys.readouterr().out
    assert '  failed: MemoryError: no room' in said
    assert said.count('  skipped: world_nli--intermediate--seed1-') == 2
    record = json.loads(next((first.workdir.path / 'failed').glob('none*.json')).read_text())
    assert (record['type'], record['error'], record['command']) == (
        'NonFiniteLoss', 'loss nan at step 3', 'the command',
    )  # fmt: skip
    assert 'Traceback' in record['traceback'] and '_fake' in record['traceback']
    assert record['run'].startswith(PLAN[0])
    assert len(first.workdir.results_path.read_text().splitlines()) == 1, 'the results of the others are there'


def test_failures_are_tried_again_on_request(walk: Callable[..., Faked], capsys: pytest.CaptureFixture[str]) -> None:
    first = walk()
    first.fails = {PLAN[2]: ValueError('once')}
    with pytest.raises(PlanFailed):
        first.run()
    second = walk()
    with pytest.raises(PlanFailed, match='1 of 5'):
        second.run()
    assert second.did == []
    assert 'failed before: ValueError: once' in capsys.readouterr().out
    third = walk(Share(retry_failed=True))
    third.fails = {PLAN[2]: ValueError('twice')}
    with pytest.raises(PlanFailed):
        third.run()
    assert third.did == [PLAN[2]], 'once, although it failed again'
    fourth = walk(Share(retry_failed=True))
    fourth.run()
    assert fourth.did == PLAN[2:]
    assert not list((fourth.workdir.path / 'failed').iterdir())


def test_another_process_that_tried_again_is_believed(walk: Callable[..., Faked]) -> None:
    """Both are to try again; the other one was faster and failed: that is a new failure."""
    first = walk()
    first.fails = {PLAN[2]: ValueError('once')}
    with pytest.raises(PlanFailed):
        first.run()
    mine, other = walk(Share(1, 2, retry_failed=True)), walk(Share(2, 2, retry_failed=True))
    other.fails = {PLAN[2]: ValueError('twice')}
    real = mine._claimed

    def claimed() -> Any:
        with pytest.raises(PlanFailed):
            other.run()
        yield from real()

    mine._claimed = claimed
    with pytest.raises(PlanFailed, match='1 of 5'):
        mine.run()
    assert (other.did, mine.did) == ([PLAN[2]], [])


def test_the_failure_of_a_plan_of_one_run_is_raised_as_it_is(walk: Callable[..., Faked]) -> None:
    only: dict[str, Any] = {'intermediate': ('none',), 'targets': ('world_pairs',), 'evaluation__languages': {}}
    first = walk(**only)
    first.fails = {PLAN[0]: NonFiniteLoss('loss nan')}
    with pytest.raises(NonFiniteLoss, match='loss nan'):
        first.run()
    assert first.workdir.failure(first.plan[0])
    with pytest.raises(PlanFailed):
        walk(**only).run()


def test_every_process_has_the_whole_plan_its_own_part_first(walk: Callable[..., Faked]) -> None:
    plan = walk(seeds=(1, 2)).plan
    names = [run.name for run in plan]
    for count in (1, 2, 3, 7):
        orders = [order(plan, Share(i + 1, count)) for i in range(count)]
        for each in orders:
            assert sorted(run.name for run in each) == sorted(names)
            ids = [run.id for run in each]
            assert all(ids.index(run.parent) < i for i, run in enumerate(each) if run.parent)
        assert len({each[0].name for each in orders}) == min(count, 6), 'they begin with different runs'
    assert [run.name for run in order(plan, Share())] == names
    of_one = [run.name.rsplit('-', 1)[0] for run in order(plan, Share(3, 3))[:3]]
    assert of_one == PLAN[2:], 'an arm and all that starts from it is of one part'


def test_where_times_are_known_what_lasts_longest_begins(walk: Callable[..., Faked]) -> None:
    """By the longest line of runs that start from a run; one process keeps the order of the plan."""
    plan = walk().plan
    names = [run.name for run in plan]
    seconds = dict(zip(names, (5.0, 40.0, 1.0, 2.0, 50.0), strict=True))  # of PLAN; its last two start from the third
    for number in (1, 2):
        found = order(plan, Share(number, 2), seconds)
        assert [names.index(run.name) for run in found] == [2, 4, 1, 0, 3]
    assert [run.name for run in order(plan, Share(), seconds)] == names
    assert order(plan, Share(2, 2), {}) == order(plan, Share(2, 2))
    assert order(plan, Share(2, 2), dict.fromkeys(names, 0.0)) == list(plan), 'a parent stays before its children'


def held_elsewhere(claims: Path, run: Run, age: float = 0.0) -> Path:
    path = claims / f'{run.name}.1.json'
    claims.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(Holder('elsewhere', 7, 'x', 1, '2/2', time.time() - age))))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_another_process_holds_is_waited_for(
    walk: Callable[..., Faked], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = walk(Share(1, 2))
    run = mine.plan[2]
    path = held_elsewhere(mine.workdir.path / 'claims', run, age=65)

    real = mine._held

    def look(left: list[Run]) -> dict[str, Holder]:
        found = real(left)
        mine.done_path(run).touch()  # and then the other one ends
        path.write_text(path.read_text().replace('"released": ""', '"released": "finished"'))
        return found

    mine._held = look
    mine.run()
    assert sorted(mine.did) == sorted(name for name in PLAN if name != PLAN[2])
    assert mine.did.index(PLAN[1]) < mine.did.index(PLAN[3]), 'what does not need it is done first'
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith('waiting')]
    assert said.startswith(f'waiting for {run.name}  elsewhere, process 7, shard 2/2, for 1m')
    assert said.endswith('(3 runs left)')


def test_what_a_silent_process_held_is_taken_over(walk: Callable[..., Faked]) -> None:
    mine = walk(Share(claim_timeout=60))
    held_elsewhere(mine.workdir.path / 'claims', mine.plan[0], age=61)
    mine.run()
    assert mine.did == PLAN
    assert [c['released'] for c in claims_of(mine.claims.directory, mine.plan[0].name)] == ['', 'finished']


def test_a_run_that_was_taken_over_is_left_to_the_other(walk: Callable[..., Faked]) -> None:
    mine = walk()
    run = mine.plan[0]

    def lose(name: str) -> None:
        if name == PLAN[0] and PLAN[0] not in mine.did:
            mine.did.append(name)
            other = mine.workdir.path / 'claims' / f'{run.name}.2.json'
            other.write_text(json.dumps(dataclasses.asdict(Holder('elsewhere', 7, 'x', 1, '', time.time()))))
            assert mine._claim
            mine._claim.beat()
            mine.done_path(run).parent.mkdir(exist_ok=True)
            threading.Timer(0.8, mine.done_path(run).touch).start()
            mine._log({'run': run.name, 'step': 1})

    mine.before = lose
    mine.run()
    assert sorted(mine.did) == sorted(PLAN)
    assert not (mine.workdir.path / 'failed').exists()
    assert not mine.workdir.metrics(), 'it wrote nothing more for that run'


def test_a_finish_between_the_look_and_the_claim_is_seen(walk: Callable[..., Faked]) -> None:
    mine = walk()
    real = mine.claims.take

    def late(name: str) -> Any:
        claim = real(name)
        if name.startswith(PLAN[0]):
            mine.done_path(mine.plan[0]).parent.mkdir(exist_ok=True)
            mine.done_path(mine.plan[0]).touch()
        return claim

    mine.claims.take = late
    mine.run()
    assert mine.did == PLAN[1:]
    assert [c['released'] for c in claims_of(mine.claims.directory, mine.plan[0].name)] == ['nothing left to do']


def test_weights_of_targets_may_go_when_all_is_evaluated(config_of: Any, tmp_path: Path) -> None:
    """keep_models='intermediate': the rows are the same; a further language trains the target again, to the same rows,
    and settings of retrieval do not.
    """
    changes = {'intermediate': ('none',), 'targets': ('world_pairs',), 'keep_models': 'intermediate'}
    one = {'evaluation__languages': {'world_pairs': ('en',)}}
    two = {'evaluation__languages': {'world_pairs': ('en', 'de')}}
    runner = Runner.open(config_of(**changes, **one), tmp_path, 'x')
    rows = runner.run()
    (run,) = runner.plan
    assert not runner.workdir.weights(run).exists()
    again = Runner.open(config_of(**changes, **one), tmp_path, 'x')
    assert again.run() == rows and not again.workdir.weights(run).exists(), 'nothing was left to do'
    pooled = Runner.open(config_of(**changes, **one, evaluation__pooling='cls'), tmp_path, 'x')
    assert not pooled.missing_languages(run)
    more = Runner.open(config_of(**changes, **two), tmp_path, 'x')
    found = more.run()
    assert [r for r in found if r['language'] == 'en'] == rows and len(found) == 2 * len(rows)


def test_what_a_killed_process_was_writing_goes_when_its_run_is_claimed_again(walk: Callable[..., Faked]) -> None:
    """Models and files that have not got their name; the state that the run goes on from stays."""
    first, seen = walk(), []
    folder = first.workdir.run_dir(first.plan[0])
    for path in (folder / '.model.x1' / 'model.safetensors', folder / '.model.old' / 'model.json'):
        path.parent.mkdir(parents=True)
        path.write_text('half')
    (folder / '.metrics.jsonl.1-a.tmp').write_text('half')
    (folder / 'checkpoints' / 'last' / '3').mkdir(parents=True)

    def look(name: str) -> None:
        if name == PLAN[0]:
            seen.extend(sorted(path.name for path in folder.iterdir()))

    first.before = look
    first.run()
    assert seen == ['checkpoints']
