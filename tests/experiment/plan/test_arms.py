"""Arms: which datasets with which heads, their names, and runs that train on several of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.config import Arm, Config, ConfigError, Member, Recipe
from xlmr_flax.data.mixture import SAMPLERS
from xlmr_flax.experiment.plan.arms import (
    arm_tasks,
    datasets,
    member_sizes,
    mixture_of,
    phase_steps,
    shuffled_labels,
    training_examples,
)
from xlmr_flax.experiment.plan.runs import Plan, make_plan, resolve
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.training import train_run
from xlmr_flax.models.source import open_source
from xlmr_flax.tasks import all_tasks
from xlmr_flax.tasks.base import ChoiceExample, PairExample, TagExample

Configs = Callable[..., Config]


def arm(**tasks: Any) -> dict[str, Any]:
    more = {k: tasks.pop(k) for k in ('sampler', 'cap', 'mix', 'joint', 'block') if k in tasks}
    return {'tasks': tasks, **more}


def plan_of(config: Config) -> Plan:
    return resolve(make_plan(config), open_source(config.encoder.source, config.seeds[0]))


def test_a_member_of_tasks_and_languages_is_so_many_datasets(config_of: Configs) -> None:
    parts = Arm(
        tasks={
            'both': Member(task='world_nli', languages=('en', 'de')),
            'world_pos': Member(),
            'nli': Member(task='world_nli+world_pairs', head='x', max_length=32),
        }
    )
    with pytest.raises(
        ConfigError, match=r"'nli/world_pairs' and 'nli/world_nli' share the head 'x', but not its kind"
    ):
        datasets(config_of(), parts, Recipe(), 'arms.a')
    parts.tasks['nli'] = Member(task='world_nli')  # type: ignore[index]
    found = datasets(config_of(), parts, Recipe(), 'arms.a')
    assert [(d.name, d.language, d.split, d.head) for d in found] == [
        ('both/en', 'en', 'train', 'world_nli'),
        ('both/de', 'de', 'translate_train', 'world_nli'),
        ('world_pos', 'en', 'train', 'world_pos'),
        ('nli', 'en', 'train', 'world_nli'),
    ]


def test_rates_of_members_are_divided_among_their_datasets(config_of: Configs) -> None:
    """Member a: 100 + 300 rows, b: 600. Uniform: half each, and a's half by 1 to 3, or alike with alpha 0."""
    for alpha, share in ((1.0, [0.125, 0.375]), (0.0, [0.25, 0.25])):
        parts = Arm(
            tasks={'a': Member(task='world_nli', languages=('en', 'de'), alpha=alpha), 'world_pos': Member()},
            sampler='uniform', block=1000,
        )  # fmt: skip
        found = datasets(config_of(), parts, Recipe(), 'arms.a')
        mixture = mixture_of(parts, found, [100, 300, 600], 0, 'arms.a')
        np.testing.assert_allclose(mixture.counts(1000) / 1000, [*share, 0.5], atol=0.002)
    capped = Arm(tasks=parts.tasks, sampler='capped', cap=500)
    assert member_sizes(capped, found, [100, 300, 600]) == {'a': (400, 400), 'world_pos': (600, 500)}
    np.testing.assert_allclose(
        mixture_of(capped, found, [100, 300, 600], 0, 'x').counts(9000) / 9000, [2 / 9, 2 / 9, 5 / 9], atol=1e-3
    )


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'intermediate': ('word_nli',)}, "'word_nli' is no arm or task .did you mean 'world_nli'"),
        ({'arms': {'world_nli': arm(world_pos={})}}, 'arms.world_nli: the name of a task'),
        ({'arms': {'none': arm(world_pos={})}}, "arms.none: 'none' is reserved"),
        (
            {'arms': {'a': arm(x={'task': 'world_nly'})}, 'intermediate': ('a',)},
            "arms.a.tasks.x: unknown task 'world_nly' .did you mean 'world_nli'",
        ),
        ({'training': {'world_pairs': arm(world_nly={})}}, 'training.world_pairs.tasks.world_nly: unknown task'),
        ({'training': {'world_pairs': arm(world_pairs={}, joint=True)}}, 'training.world_pairs.joint: '),
        ({'training': {'world_retrieval': arm(world_pairs={})}}, 'training.world_retrieval: a retrieval target'),
        ({'arms': {'a': {'tasks': {}}}}, 'arms.a.tasks: expected at least one entry'),
        (
            {'arms': {'a': arm(world_nli={}, sampler='uniforn')}, 'intermediate': ('a',)},
            "arms.a.sampler: 'uniforn' is not one of uniform",
        ),
        ({'arms': {'a': arm(world_nli={}, sampler='capped')}}, 'a cap for the sampler'),
        ({'arms': {'a': arm(world_nli={'fraction': 0.0})}}, 'arms.a.tasks.world_nli: fraction 0.0'),
        ({'arms': {'a': arm(world_nli={'langauges': ('en',)})}}, "arms.a.tasks.world_nli.langauges.*'languages'"),
        (
            {'arms': {'a': arm(world_nli={'languages': ('en', 'xx')})}, 'intermediate': ('a',)},
            "arms.a.tasks.world_nli: task 'world_nli' has no language 'xx'",
        ),
        (
            {'arms': {'a': arm(world_spans={'shuffle_labels': True})}, 'intermediate': ('a',)},
            "labels of kind 'span' cannot be shuffled",
        ),
        ({'training': {'world_par': arm(world_pairs={})}}, r"training.world_par: no such target .*'world_pairs'"),
        (
            {'arms': {'a': arm(world_nli={}, joint=True)}, 'intermediate': ('a',)},
            "'world_retrieval' has no training",
        ),
    ],
)  # fmt: skip
def test_an_arm_that_cannot_be_says_why(changes: dict[str, Any], message: str, config_of: Configs) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(config_of(**changes))


def test_a_sampler_is_one_line_of_the_registry(config_of: Configs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, 'square', lambda sizes, arm: sizes**2)
    parts = {'a': arm(world_nli={}, world_pos={}, sampler='square')}
    (run, *_) = plan_of(config_of(intermediate=('a',), arms=parts))
    assert run.arm is not None
    assert mixture_of(run.arm, run.datasets, [100, 300], 0, 'x').counts(1000).tolist() == [100, 900]


def test_rates_that_cannot_be_name_the_arm(config_of: Configs) -> None:
    parts = Arm(tasks={'world_nli': Member(rate='1'), 'world_pos': Member(rate='t +')}, sampler='time_dependent')
    with pytest.raises(ConfigError, match=r"arms.a: rate 't \+'"):
        mixture_of(parts, datasets(config_of(), parts, Recipe(), 'arms.a'), [10, 10], 0, 'arms.a')


def test_names_follow_what_an_arm_trains_on(config_of: Configs) -> None:
    """A task by its name and an arm of that task alone are one run; another language or sampler is another."""

    def identity(name: str, **arms: Any) -> str:
        return plan_of(config_of(intermediate=(name,), targets=('world_pairs',), arms=arms, evaluation__languages={}))[
            0
        ].id

    alone = identity('world_nli')
    assert identity('a', a=arm(world_nli={})) == alone
    others = {
        identity('a', a=arm(world_nli={'languages': ('en', 'de')})),
        identity('a', a=arm(world_nli={'fraction': 0.5})),
        identity('a', a=arm(world_nli={'shuffle_labels': True})),
        identity('a', a=arm(world_nli={}, world_pos={})),
        identity('a', a=arm(world_nli={}, world_pos={}, sampler='uniform')),
    }
    assert len(others) == 5 and alone not in others


def test_arm_tasks(config_of: Configs) -> None:
    config = config_of(arms={'a': arm(x={'task': 'world_nli+world_pairs'}, world_pos={})})
    assert arm_tasks(config, 'a') == ('world_nli', 'world_pairs', 'world_pos')
    assert arm_tasks(config, 'world_nli') == ('world_nli',)
    assert arm_tasks(config, 'none') == ()


def test_a_fraction_is_the_seeds_choice_and_shuffled_labels_are_the_same_labels(config_of: Configs) -> None:
    config = config_of()
    (whole,) = datasets(config, Arm(tasks={'world_nli': Member()}), Recipe(max_train=40), 'x')
    parts = Arm(tasks={'world_nli': Member(fraction=0.5, shuffle_labels=True)})
    (half,) = datasets(config, parts, Recipe(max_train=40), 'x')
    rows = [e for e in training_examples(whole, 1) if isinstance(e, PairExample)]
    some = [e for e in training_examples(half, 1) if isinstance(e, PairExample)]
    assert (len(rows), len(some)) == (40, 20)
    by_id = {e.id: e for e in rows}
    chosen = [by_id[e.id] for e in some]
    assert [e.text_a for e in chosen] == [e.text_a for e in some]
    assert Counter(e.label for e in chosen) == Counter(e.label for e in some)
    assert [e.label for e in chosen] != [e.label for e in some]
    assert [e.id for e in training_examples(half, 2)] != [e.id for e in some]


def test_shuffled_tags_and_choices_keep_their_counts() -> None:
    tags = [TagExample(str(i), ('a',) * (i + 1), tuple(range(i + 1))) for i in range(9)]
    found = [e for e in shuffled_labels(list(tags), 1) if isinstance(e, TagExample)]
    assert [e.words for e in found] == [e.words for e in tags]
    assert [len(e.tags or ()) for e in found] == [len(e.tags or ()) for e in tags]
    assert Counter(t for e in found for t in e.tags or ()) == Counter(t for e in tags for t in e.tags or ())
    assert [e.tags for e in found] != [e.tags for e in tags]
    choices = [ChoiceExample(str(i), 'p', ('a', 'b'), i % 2) for i in range(20)]
    labels = [e.label for e in shuffled_labels(list(choices), 1) if isinstance(e, ChoiceExample)]
    assert sorted(labels) == sorted(e.label for e in choices) and labels != [e.label for e in choices]


def test_a_warm_up_comes_first_and_its_head_goes_on(
    config_of: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As XCOPA: another task trains the target's head, then the target's own rows do."""
    tasks = dict(all_tasks())
    tasks['world_choices'] = dataclasses.replace(tasks['world_choices'], warmup_task='warm')
    tasks['warm'] = dataclasses.replace(tasks['world_choices'], name='warm', warmup_task=None)
    for module in ('arms', 'fields', 'names', 'runs'):
        monkeypatch.setattr(f'xlmr_flax.experiment.plan.{module}.get_task', lambda name: tasks[name])
    config = config_of(
        intermediate=('none',), targets=('world_choices',), recipes={'warm': {'steps': 2}}, evaluation__languages={}
    )
    runner = Runner.open(config, tmp_path, 'x')
    warm, target = runner.plan
    assert (warm.name[:29], warm.task, warm.target) == ('none--world_choices-warmup--s', 'warm', '')
    assert (target.parent, target.keeps_head, warm.recipe and warm.recipe.steps) == (warm.id, True, 2)
    train_run(runner.setting, warm)
    from xlmr_flax.experiment.training import initial_params

    saved = open_source(f'ckpt:{runner.workdir.run_dir(warm)}').load()
    start = initial_params(runner.setting, target)
    for name, value in saved['heads']['world_choices']['out'].items():
        np.testing.assert_array_equal(start['heads']['world_choices']['out'][name], value)
    with_own = config_of(
        intermediate=('none',), targets=('world_choices',), evaluation__languages={},
        training={'world_choices': arm(world_choices={})},
    )  # fmt: skip
    assert len(plan_of(with_own)) == 1, 'what a config says of a target is all that it is trained on'


def test_only_what_decides_a_training_is_in_its_name(config_of: Configs) -> None:
    """How often it logs and saves does not; two arms of one definition are one training, and the plan says so."""

    def identity(**recipe: Any) -> str:
        return plan_of(config_of(intermediate=('none',), recipes={'world_pairs': recipe}))[0].id

    assert identity() == identity(log_every=7, checkpoint_every=9, keep_checkpoints=2) != identity(steps=9)
    with pytest.raises(ConfigError, match="'a' and 'b'"):
        plan_of(config_of(intermediate=('a', 'b'), arms={'a': arm(world_nli={}), 'b': arm(world_nli={})}))


@pytest.mark.parametrize(
    ('training', 'message'),
    [
        ({'world_nli': {}}, "'world_nli' has another kind or other labels"),
        ({'world_spans': {}}, "'world_spans' has another kind"),
        ({'world_pairs': {'head': 'foo'}}, "no head 'world_pairs' as 'world_pairs' trains it: the heads are foo"),
    ],
)
def test_a_target_must_train_the_head_it_is_scored_with(
    training: dict[str, Any], message: str, config_of: Configs
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(config_of(training={'world_pairs': arm(**training)}))


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ({'arms': {'a/b': arm(world_nli={})}}, 'arms.a/b: a name may hold letters'),
        ({'arms': {'a': arm(world_nli={'head': 'n/l'})}}, 'arms.a.tasks.world_nli: name and head'),
        ({'arms': {'a': arm(world_nli={'max_length': 2})}}, 'max_length 2 is below 8'),
        ({'arms': {'a': arm(x={'task': 'world_nli+world_nli'})}}, "'x/world_nli' occurs twice"),
        ({'arms': {'a': arm(world_nli={'weight': 0.0}, sampler='weights')}}, 'arms.a: .*not all 0'),
        ({'arms': {'a': arm(world_nli={'rate': '1+'}, sampler='time_dependent')}}, "arms.a: rate '1\\+'"),
        (
            {'arms': {'a': arm(world_nli={'weight': 2.0})}},
            "arms.a.tasks.world_nli.weight .* 'weights'; .* 'proportional'",
        ),
        ({'arms': {'a': arm(world_nli={'rate': 't'}, sampler='weights')}}, "world_nli.rate .* 'time_dependent'"),
        (
            {
                'training': {'world_pairs': arm(world_pairs={}, mix='micro_batch')},
                'recipes': {'world_pairs': {'optimizer': {'clip_per': 'micro_batch'}}},
            },
            "training.world_pairs: mix 'micro_batch'",
        ),
        (
            {'evaluation__languages': {'world_pairs': ('en', 'en')}},
            'evaluation.languages.world_pairs: a language twice',
        ),
    ],
)
def test_bad_arms_are_found_before_anything_is_read(more: dict[str, Any], message: str, config_of: Configs) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(config_of(**({'intermediate': tuple(more['arms'])} if 'arms' in more else {}), **more))


def test_text_adds_steps_and_takes_none_from_the_task(config_of: Configs) -> None:
    """100 rows in batches of 10, 2 epochs: 20 steps; with 0.2 of text 25, of which 20 are the task's."""
    parts = Arm(tasks={'world_nli': Member(weight=0.8), 'mlm': Member(task='udhr', weight=0.2)}, sampler='weights')
    found, recipe = datasets(config_of(), parts, Recipe(), 'x'), Recipe(epochs=2.0, batch_size=10)
    assert phase_steps(parts, recipe, found, [100, 1_000_000]) == 25
    assert mixture_of(parts, found, [100, 1_000_000], 0, 'x').counts(25).tolist() == [20, 5]
    alone = Arm(tasks={'mlm': Member(task='udhr')})
    assert phase_steps(alone, recipe, datasets(config_of(), alone, Recipe(), 'x'), [100]) == 20


def test_a_rate_may_end_with_the_training(config_of: Configs) -> None:
    """1 - t/100 is no rate beyond step 100, and need not be. With micro-batches t is still the optimizer step."""
    parts = Arm(
        tasks={'world_nli': Member(rate='1 - t/100'), 'world_pos': Member(rate='t/100')},
        sampler='time_dependent',
        block=10,
    )
    found = datasets(config_of(), parts, Recipe(), 'x')
    mixture = mixture_of(parts, found, [9, 9], 0, 'x', steps=100)
    np.testing.assert_allclose(mixture.counts(100), [50.5, 49.5], atol=1)
    several = dataclasses.replace(parts, mix='micro_batch')
    mixture = mixture_of(several, found, [9, 9], 0, 'x', steps=100, parts=4)
    np.testing.assert_allclose(mixture.counts(400), [202, 198], atol=1)
    with pytest.raises(ConfigError, match="rate of 'world_nli', '1 - t/100': negative or not finite at step 101"):
        mixture_of(parts, found, [9, 9], 0, 'x', steps=150)


def test_a_task_in_two_members_is_selected_on_both_heads(config_of: Configs, tmp_path: Path) -> None:
    config = config_of(
        intermediate=('a',), targets=('world_pairs',), evaluation__languages={'world_pairs': ('en',)},
        arms={'a': arm(p={'task': 'world_nli', 'head': 'p'}, world_nli={'select': 3.0})}, recipe__steps=2,
    )  # fmt: skip
    runner = Runner.open(config, tmp_path, 'x')
    train_run(runner.setting, runner.plan[0])
    (dev,) = [r for r in runner.workdir.metrics() if 'dev_metric' in r]
    assert dev['dev_metric'] == pytest.approx((dev['dev/p'] + 3 * dev['dev/world_nli']) / 4)
