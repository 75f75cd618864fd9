"""A plan's hours: which programs its runs need, how often, and the table of it."""

from __future__ import annotations

import dataclasses
import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from xlmr_flax.config import Arm, Config, Member, Recipe, parse
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.experiment.plan.cost import Estimator, Work, forward_flops
from xlmr_flax.tools.estimate.chips import parse_topology
from xlmr_flax.tools.estimate.plan import (
    EVALUATION,
    INTERMEDIATE,
    TARGET,
    PlanWork,
    concrete,
    estimate_plan,
    machine_on,
    mean_length,
)
from xlmr_flax.tools.estimate.programs import EMBED, EVALUATE, TRAIN
from xlmr_flax.tools.estimate.report import plan_dict, plan_table, plan_text

from .conftest import CYCLES

TINY = Path(__file__).parents[3] / 'configs' / 'tiny.py'
ONE, V5E, V5P = (parse_topology(text) for text in ('v5e:1x1', 'v5e:2x2', 'v5p:2x2x2'))


def tiny(**changes: object) -> Config:
    config = parse(runpy.run_path(str(TINY))['get_config']().to_dict())
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope='module')
def work() -> PlanWork:
    return PlanWork(tiny())


def quiet(text: str) -> None:
    pass


def test_parts(work: PlanWork) -> None:
    """One arm's training, two targets' (one trains nothing), and the forward passes of each; dev passes among them."""
    steps = [(p.phase, p.what, p.steps) for p in work.parts if p.program.does == TRAIN]
    assert steps == [(TARGET, 'world_pairs', 6.0), (INTERMEDIATE, 'world_nli', 6.0), (TARGET, 'world_pairs', 6.0)]
    assert {p.program.does for p in work.parts if p.phase == EVALUATION} == {EVALUATE, EMBED}
    train = next(p.program for p in work.parts if p.program.does == TRAIN)
    assert (train.rows, train.length, train.accumulation, train.choices, train.slots) == (0, 64, 1, 1, 8)
    expected = Estimator(work.plan, work.shape, work.tokenizer)
    for run in work.plan:
        codes = {'world_pairs': ('en', 'de', 'ru'), 'world_retrieval': ('de', 'ru')}.get(run.target, ())
        tokens = sum(expected.evaluation(run, code).tokens for code in codes)
        assert sum(p.tokens for p in work.parts if p.run == run.name and p.phase == EVALUATION) == tokens
        dev = sum(p.tokens for p in work.parts if p.run == run.name and p.phase != EVALUATION)
        assert dev == expected.training(run).dev.tokens


def test_steps_of_a_mixture_go_to_its_members() -> None:
    arm = Arm({'world_nli': Member(weight=3.0), 'world_pos': Member(weight=1.0, max_length=32)}, sampler='weights')
    config = tiny(arms={'both': arm}, intermediate=('both',), targets=('world_pairs',))
    evaluation = dataclasses.replace(config.evaluation, languages={'world_pairs': ('en',)})
    config = dataclasses.replace(config, evaluation=evaluation, recipe=Recipe(steps=40, batch_size=8))
    work = PlanWork(config, active_rows=500)
    mine = [p for p in work.parts if p.phase == INTERMEDIATE and p.program.does == TRAIN]
    # 3 to 1; a schedule by deadlines is exact to one draw.
    assert [(p.program.head.kind, p.steps) for p in mine] == [('pair', 31.0), ('tag', 9.0)]
    assert mine[1].program.length <= 32
    assert {p.program.model.config.vocab_size for p in work.parts if p.program.does == TRAIN} == {500}
    assert {p.program.model.config.vocab_size for p in work.parts if p.phase == EVALUATION} == {2048}


def test_micro_batches_of_several_tasks_are_parts_of_steps() -> None:
    arm = Arm({'world_nli': Member(), 'world_pairs': Member()}, sampler='uniform', mix='micro_batch')
    config = tiny(arms={'both': arm}, intermediate=('both',), targets=('world_retrieval',))
    languages = {'world_retrieval': ('de',)}
    recipe = Recipe(steps=10, batch_size=8, accumulation=2, max_length=64)
    config = dataclasses.replace(
        config, recipe=recipe, evaluation=dataclasses.replace(config.evaluation, languages=languages)
    )
    parts = [p for p in PlanWork(config).parts if p.program.does == TRAIN]
    assert sum(p.steps for p in parts) == 10
    assert {p.program.accumulation for p in parts} == {2}


def test_mean_length() -> None:
    shape = SIZES['base']
    for n in (32.0, 128.0, 512.0):
        assert mean_length(shape, Work(100.0, forward_flops(shape, 100.0, n))) == pytest.approx(n)
    assert mean_length(shape, Work()) == 1.0


def test_rows_follow_the_mesh(work: PlanWork) -> None:
    for topology in (ONE, V5E):
        defaults = work.defaults(machine_on(topology))
        for part, times in concrete(work, defaults):
            program = part.program
            if program.does == TRAIN:
                assert part.load is not None and program.rows == part.load.rows(defaults.shards)
                assert program.rows % (defaults.shards * program.accumulation) == 0
                assert times == part.steps
            else:
                assert program.rows % topology.chips == 0 and defaults.rows_only
                assert program.rows * program.length == 8192 * topology.chips
                assert times * program.tokens == pytest.approx(part.tokens)


def test_hours(work: PlanWork, no_compiler: Callable[..., object]) -> None:
    said: list[str] = []
    first, second = (estimate_plan(work, t, said.append) for t in (V5E, V5P))
    train = next(row for row in first.rows if row.phase == INTERMEDIATE)
    tokens = sum(
        times * part.program.tokens
        for part, times in concrete(work, work.defaults(machine_on(V5E)))
        if part.phase == INTERMEDIATE
    )
    assert train.seconds == pytest.approx(tokens * CYCLES / V5E.chip.clock)
    assert train.slowest > train.seconds and train.runs == 1 and train.steps == 6
    assert first.total().seconds == pytest.approx(sum(row.seconds for row in first.rows))
    assert first.total(TARGET).steps == 12
    assert sum(s for _, s in first.programs) == pytest.approx(first.total().seconds)
    assert first.total().seconds / second.total().seconds == pytest.approx(V5P.chip.clock / V5E.chip.clock)
    assert len(said) == 2 * len(first.programs) and said[0].startswith('v5e:2x2: 1 of ')

    table = plan_table([first, second]).splitlines()
    assert 'hours on v5e:2x2' in table[0] and 'chip-hours (8 chips)' in table[0]
    assert [line.split()[0] for line in table[2:]] == [*[row.phase for row in first.rows], 'evaluation', 'total']
    found = json.loads(json.dumps(plan_dict(second)))
    assert found['total']['chip_hours'] == pytest.approx(8 * second.total().seconds / 3600)
    assert found['total']['hours_with_collectives'] > found['total']['hours']
    assert sum(p['hours'] for p in found['programs']) == pytest.approx(found['total']['hours'])


def test_what_cannot_run_is_said_and_not_counted(no_compiler: Callable[..., object]) -> None:
    """world_pos needs a head of tags, which the stand-in compiler refuses; rows of 128 do not fit there."""
    config = tiny(targets=('world_pos', 'world_pairs'), intermediate=('none',))
    recipe = dataclasses.replace(config.recipe, max_length=128, lengths=(128,))
    evaluation = dataclasses.replace(config.evaluation, languages={'world_pos': ('en',), 'world_pairs': ('en',)})
    config = dataclasses.replace(config, recipes={'world_pairs': recipe}, evaluation=evaluation)
    found = estimate_plan(PlanWork(config), V5E, quiet)
    assert [row.what for row in found.rows if math.isnan(row.seconds)] == ['world_pos', 'world_pairs'] * 2
    assert any('cannot be cut' in text for text in found.refused)
    assert any('Ran out of memory' in text for text in found.refused)
    text = plan_text([found], every=True)
    assert 'Not possible on v5e:2x2:' in text and 'DOES NOT FIT' in text and 'Does not fit. The compiler:' in text
    total = plan_dict(found)['total']
    assert total['hours'] is None and total['chip_hours'] is None
