"""Names of runs: what changes them and what does not, and what a plan refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.config import Config, ConfigError
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.split import Split
from xlmr_flax.encoders.config import ModelError
from xlmr_flax.experiment.plan.arms import dev_metrics
from xlmr_flax.experiment.plan.runs import make_plan, resolve
from xlmr_flax.models.source import EncoderSource, open_source
from xlmr_flax.tasks import get_task

Configs = Callable[..., Config]


def ids(config: Config, source: EncoderSource | None = None) -> dict[str, str]:
    """Phase by name -> id."""
    runs = resolve(make_plan(config), source or open_source(config.encoder.source, config.seeds[0]))
    return {f'{r.intermediate}/{r.target}/{r.seed}': r.id for r in runs}


ALL = {'none/world_pairs', 'none/world_retrieval', 'world_nli/', 'world_nli/world_pairs', 'world_nli/world_retrieval'}
ARM = {'world_nli/', 'world_nli/world_pairs', 'world_nli/world_retrieval'}
PAIRS = {'none/world_pairs', 'world_nli/world_pairs'}


@pytest.mark.parametrize(
    ('change', 'changed'),
    [
        ({'recipe__steps': 4}, ALL - {'none/world_retrieval'}),
        ({'recipe__optimizer__learning_rate': 0.5}, ALL - {'none/world_retrieval'}),
        ({'recipes': {'world_nli': {'steps': 4}}}, ARM),
        ({'recipes': {'world_pairs': {'steps': 4}}}, PAIRS),
        ({'encoder__head': 'hf'}, ALL),
        ({'encoder__dtype': 'bfloat16'}, ALL),
        ({'encoder__dropout': 0.2}, ALL),
        ({'encoder__unroll': 1}, set()),
        ({'encoder__attention': 'xla', 'encoder__remat': 'full'}, set()),
        ({'mesh__fsdp': 1}, set()),
        ({'mesh__data': 1}, set()),
        ({'name': 'other', 'title': 'x', 'tensorboard': True}, set()),
        ({'evaluation__pooling': 'cls', 'evaluation__max_examples': 4}, set()),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else '',  # a set's order differs between processes
)
def test_what_changes_a_run(change: dict[str, Any], changed: set[str], config_of: Configs) -> None:
    before, after = ids(config_of()), ids(config_of(**change))
    assert before.keys() == after.keys() == {f'{name}/1' for name in ALL}
    assert {name[:-2] for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize(
    ('field', 'values'),
    [('evaluation__qa_decoding', ('offsets', 'reference')), ('recipe__dev_score', ('first', 'mean'))],
)
def test_how_dev_rows_are_scored_changes_runs_that_are_selected_by_them(
    field: str, values: tuple[str, str], config_of: Configs
) -> None:
    changed = []
    for keep in ('best', 'last'):
        common = {'targets': ('world_spans', 'world_nli'), 'intermediate': ('none',), 'evaluation__languages': {}}
        first, second = (ids(config_of(**common, recipe__keep=keep, **{field: value})) for value in values)
        changed.append([name for name in first if first[name] != second[name]])
    assert changed == [['none/world_spans/1'], []]


@pytest.mark.parametrize(
    ('task', 'metrics'),
    [
        ('squad_v1', ('f1', 'exact_match')),
        ('squad_v2', ('best_f1', 'best_exact_match')),
        ('mlqa', ('f1', 'exact_match')),
        ('qqp', ('accuracy', 'f1')),
        ('mnli', ('accuracy',)),
        ('panx', ('f1',)),
        ('hellaswag', ('accuracy',)),
    ],
)
def test_what_dev_rows_are_scored_by(task: str, metrics: tuple[str, ...]) -> None:
    assert dev_metrics(get_task(task), 'mean') == metrics
    assert dev_metrics(get_task(task)) == get_task(task).metrics[:1]


def test_ids_are_the_same_every_time_and_differ_within_a_plan(config_of: Configs) -> None:
    found = ids(config_of(seeds=(1, 2)))
    assert found == ids(config_of(seeds=(1, 2)))
    assert len(set(found.values())) == len(found) == 10
    assert {k: v for k, v in found.items() if k.endswith('/1')} == ids(config_of(seeds=(1,)))


def test_other_weights_are_another_run(config_of: Configs) -> None:
    source = open_source('random:tiny', 1)
    before = ids(config_of(), source)
    after = ids(config_of(), dataclasses.replace(source, digest='other'))
    assert not set(before.values()) & set(after.values())
    renamed = ids(config_of(), dataclasses.replace(source, name='hf:/somewhere/else'))
    assert renamed == before, 'where the weights lie does not matter'


def test_other_training_rows_are_another_run(config_of: Configs, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids(config_of())
    real = Split.digest
    monkeypatch.setattr(Split, 'digest', lambda split: real(split) + ('x' if split.task.name == 'world_nli' else ''))
    after = ids(config_of())
    assert {name[:-2] for name in before if before[name] != after[name]} == ARM


def test_parents_come_first_and_are_the_arms(config_of: Configs) -> None:
    runs = resolve(make_plan(config_of(seeds=(1, 2))), open_source('random:tiny', 1))
    seen: set[str] = set()
    for run in runs:
        assert run.parent == '' or run.parent in seen
        assert bool(run.parent) == (run.intermediate != 'none' and run.target != '')
        seen.add(run.id)
    by_id = {run.id: run for run in runs}
    for run in runs:
        if run.parent:
            assert (by_id[run.parent].intermediate, by_id[run.parent].seed) == (run.intermediate, run.seed)


def test_each_phase_has_its_recipe(config_of: Configs) -> None:
    config = config_of(recipes={'world_nli': {'steps': 5}, 'world_pairs': {'steps': 6}})
    for run in make_plan(config):
        if run.task:
            assert run.recipe is not None
            assert run.recipe.steps == {'world_nli': 5, 'world_pairs': 6}[run.task]


NO_LANGUAGES = {'evaluation__languages': {}}


@pytest.mark.parametrize(
    ('change', 'error', 'said'),
    [
        ({'targets': ('world_pair',)}, ConfigError, "targets: unknown task 'world_pair' (did you mean 'world_pairs'?)"),
        ({'intermediate': ('world_nl',)}, ConfigError, "'world_nl' is no arm or task (did you mean 'world_nli'?)"),
        (
            {'evaluation__languages': {'world_pairs': ('en', 'dee')}}, ConfigError,
            "evaluation.languages.world_pairs: task 'world_pairs' has no language 'dee' (did you mean 'de'?)",
        ),
        (
            {'evaluation__languages': {'world_pair': ('en',)}}, ConfigError,
            "evaluation.languages.world_pair: no such target (did you mean 'world_pairs'?)",
        ),
        (
            {'evaluation__split': {'world_retrieva': 'test'}}, ConfigError,
            "evaluation.split.world_retrieva: no such target (did you mean 'world_retrieval'?)",
        ),
        (
            {'evaluation__retrieval_layers': {'world_retrievl': 1}}, ConfigError,
            "evaluation.retrieval_layers.world_retrievl: no such target (did you mean 'world_retrieval'?)",
        ),
        (
            {'evaluation__retrieval_layers': {'world_retrieval': 3}}, ModelError,
            'evaluation.retrieval_layers.world_retrieval 3: the encoder has 2 layers',
        ),
        ({'evaluation__retrieval_layer': 5}, ModelError, 'evaluation.retrieval_layer 5: the encoder has 2 layers'),
        (
            {'evaluation__split': {'world_pairs': 'tets'}}, ConfigError,
            "evaluation.split.world_pairs: task 'world_pairs' has no split 'tets' (did you mean 'test'?)",
        ),
        (
            {'recipes': {'world_nly': {'steps': 1}}}, ConfigError,
            "recipes.world_nly: no such intermediate or target task in this plan (did you mean 'world_nli'?)",
        ),
        ({'intermediate': ('world_retrieval',)}, ConfigError,
        "intermediate: task 'world_retrieval' has no training rows"),
        (
            {'targets': ('xnli',), 'data_root': '/nowhere',
            **NO_LANGUAGES}, DataError, "data root '/nowhere' (from --data_root) is not a folder",
        ),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_a_plan_refuses(change: dict[str, Any], error: type[Exception], said: str, config_of: Configs) -> None:
    with pytest.raises(error) as caught:
        ids(config_of(**change))
    assert said in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_missing_test_file_is_found_before_anything_is_trained(config_of: Configs, tmp_path: Any) -> None:
    folder = tmp_path / 'xtreme' / 'pawsx' / 'x-final'
    for path in ('en/train.tsv', 'en/dev_2k.tsv', 'en/test_2k.tsv', 'fr/test_2k.tsv'):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text('id\tsentence1\tsentence2\tlabel\n1\ta\tb\t1\n')
    config = config_of(
        targets=('pawsx',), intermediate=('none',), data_root=str(tmp_path),
        evaluation__languages={'pawsx': ('en', 'fr', 'de')},
    )  # fmt: skip
    with pytest.raises(DataError, match=r"x-final/de/test_2k\.tsv: no such file, needed for task 'pawsx' in 'de'"):
        ids(config)


def test_entries_of_targets_that_the_plan_leaves_out_say_nothing(config_of: Configs) -> None:
    """--config.targets=... on a config that speaks of more; but a recipe of a mixture's part would be misunderstood."""
    fewer = {'targets': ('world_retrieval',), 'evaluation__languages': {'world_retrieval': ('de',)}}
    mentions = {
        'evaluation__languages': {'world_retrieval': ('de',), 'world_pairs': ('en',)},
        'evaluation__split': {'world_pairs': 'dev'}, 'evaluation__retrieval_layers': {'tatoeba': 1},
        'recipes': {'world_pairs': {'steps': 3}, 'mixed': {'steps': 3}},
        'arms': {'mixed': {'tasks': {'world_pos': {}}}},
        'training': {'world_pairs': {'tasks': {'world_pairs': {'languages': ('en', 'de')}}}},
    }  # fmt: skip
    assert ids(config_of(**{**fewer, **mentions})) == ids(config_of(**fewer))
    part = {'intermediate': ('mixed',), 'arms': mentions['arms'], 'recipes': {'world_pos': {'steps': 3}}}
    with pytest.raises(ConfigError, match=r'recipes\.world_pos: no such intermediate or target task in this plan'):
        ids(config_of(**part))


def test_where_the_data_lie_is_no_part_of_a_runs_name(config_of: Configs, tmp_path: Path) -> None:
    assert ids(config_of(data_root=str(tmp_path))) == ids(config_of())
