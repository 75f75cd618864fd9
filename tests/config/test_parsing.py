"""The door: what a config may hold, what is refused and how, and what names a run."""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from xlmr_flax.config import (
    Config,
    ConfigError,
    EncoderSpec,
    OptimizerSpec,
    Recipe,
    defaults,
    digest,
    parse,
    parse_saved,
    to_dict,
)
from xlmr_flax.experiment.plan.arms import arm_tasks
from xlmr_flax.tasks import get_task

CONFIGS = sorted((Path(__file__).parents[2] / 'configs').glob('*.py'))
MINIMAL = {'targets': ('world_pairs',)}


def test_the_defaults_are_the_dataclasses_and_json() -> None:
    assert parse({**defaults(), **MINIMAL}) == dataclasses.replace(Config(), targets=('world_pairs',))
    assert json.loads(json.dumps(defaults()))['recipe']['optimizer']['learning_rate'] == 1e-5
    # What is filed as jiant's must not drift by accident.
    assert OptimizerSpec() == OptimizerSpec('adamw', 1e-5, 0.9, 0.999, 1e-8, 0.01, 0.1, -1, 'linear', 1.0, 'step', 1.0)


def test_a_config_goes_through_json_unchanged() -> None:
    config = parse(
        {**MINIMAL, 'recipes': {'world_pairs': {'steps': 3}}, 'evaluation': {'split': {'world_pairs': 'dev'}}}
    )
    assert parse(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ('raw', 'said'),
    [
        ({'sedes': (1,)}, "unknown config key 'sedes' (did you mean 'seeds'?)"),
        ({'recipe': {'stpes': 3}}, "unknown config key 'recipe.stpes' (did you mean 'steps'?)"),
        (
            {'recipe': {'optimizer': {'learning_rte': 1.0}}},
            "unknown config key 'recipe.optimizer.learning_rte' (did you mean 'learning_rate'?)",
        ),
        ({'evaluation': {'poolling': 'cls'}}, "unknown config key 'evaluation.poolling' (did you mean 'pooling'?)"),
        ({'recipes': {'x': {'epoch': 3}}}, "unknown config key 'recipes.x.epoch' (did you mean 'epochs'?)"),
        (
            {'recipes': {'x': {'optimizer': {'beta': 3}}}},
            "unknown config key 'recipes.x.optimizer.beta' (did you mean 'beta",
        ),
        ({'mesh': {'zzz': 1}}, "unknown config key 'mesh.zzz' (known: data, fsdp, model, slices)"),
        ({'recipe': {'steps': 2.0}}, 'recipe.steps: expected int, got 2.0 (float)'),
        ({'recipe': {'steps': True}}, 'recipe.steps: expected int, got True (bool)'),
        ({'recipe': {'epochs': True}}, 'recipe.epochs: expected float, got True (bool)'),
        ({'encoder': {'remat': 1}}, 'encoder.remat: expected str, got 1 (int)'),
        ({'name': 3}, 'name: expected str, got 3 (int)'),
        ({'seeds': 1}, 'seeds: expected a tuple of int, got 1'),
        ({'seeds': (1, True)}, 'seeds[1]: expected int, got True (bool)'),
        ({'targets': 'world_pairs'}, "targets: expected a tuple of str, got 'world_pairs'"),
        ({'evaluation': {'languages': {'t': ('en', 5)}}}, 'evaluation.languages.t[1]: expected str, got 5 (int)'),
        ({'evaluation': {'languages': ('en',)}}, "evaluation.languages: expected a mapping, got ('en',)"),
        ({'recipe': 3}, 'recipe: expected a mapping, got 3'),
        ({'recipes': 3}, 'recipes: expected a mapping of task names to recipes, got 3'),
        ({'recipes': {'x': 3}}, 'recipes.x: expected a mapping, got 3'),
        ({'encoder': {'head': 'bert'}}, "encoder.head: 'bert' is not one of jiant, hf"),
        ({'encoder': {'dtype': 'float16'}}, "encoder.dtype: 'float16' is not one of auto, float32, bfloat16"),
        (
            {'encoder': {'attention': 'flash'}},
            "encoder.attention: 'flash' is not one of auto, xla_cpu, xla, cudnn, triton",
        ),
        ({'encoder': {'remat': 'all'}}, "encoder.remat: 'all' is not one of auto, none, dots, full"),
        ({'encoder': {'kept': 'layers'}}, 'encoder.kept is now encoder.remat ('),
        ({'encoder': {'remat': True}}, "encoder.remat is now one of auto, none, dots, full; True means 'full'"),
        ({'evaluation': {'pooling': 'max'}}, "evaluation.pooling: 'max' is not one of mean, cls, e5, labse"),
        ({'recipe': {'keep': 'first'}}, "recipe.keep: 'first' is not one of best, last"),
        ({'recipe': {'optimizer': {'schedule': 'cosine'}}}, "recipe.optimizer.schedule: 'cosine'"),
        ({'recipes': {'x': {'optimizer': {'clip_per': 'batch'}}}}, "recipes.x.optimizer.clip_per: 'batch'"),
        ({'recipe': {'batch_size': 0}}, 'recipe.batch_size 0 is not a positive multiple of accumulation 1'),
        ({'recipe': {'batch_size': 6, 'accumulation': 4}}, 'recipe.batch_size 6 is not a positive multiple'),
        (
            {'recipes': {'x': {'accumulation': 5}}},
            'recipes.x.batch_size 32 is not a positive multiple of accumulation 5',
        ),
        ({'recipe': {'max_length': 7}}, 'recipe: max_length 7 is below 8'),
        ({'recipe': {'max_length': 64, 'lengths': (32, 96)}}, 'below one of lengths (32, 96)'),
        ({'recipe': {'log_every': 0}}, 'recipe.log_every 0 is below 1'),
        ({'recipes': {'x': {'patience': -1}}}, 'recipes.x.patience -1 is below 0'),
        ({'recipe': {'optimizer': {'layer_decay': 0.0}}}, 'recipe.optimizer.layer_decay 0.0'),
        ({'recipe': {'optimizer': {'learning_rate': -1.0}}}, 'recipe.optimizer.learning_rate -1.0'),
        ({'recipes': {'x': {'optimizer': {'warmup': 3.0}}}}, 'recipes.x.optimizer.warmup 3.0'),
        ({'recipe': {'optimizer': {'warmup_steps': -2}}}, 'recipe.optimizer.warmup_steps -2'),
        ({'recipe': {'optimizer': {'beta2': 1.0}}}, 'recipe.optimizer.beta2 1.0'),
        ({'encoder': {'dropout': 1.5}}, 'encoder.dropout 1.5'),
        ({'evaluation': {'max_examples': -5}}, 'evaluation.max_examples -5 is below 0'),
        ({'evaluation': {'batch_tokens': -3}}, 'evaluation.batch_tokens -3 is below 0'),
        ({'evaluation': {'retrieval_layer': -7}}, 'evaluation.retrieval_layer -7 is below -1'),
        ({'evaluation': {'retrieval_layers': {'tatoeba': -2}}}, 'evaluation.retrieval_layers.tatoeba -2 is below -1'),
        ({'arms': {'a': {'tasks': {'mnli': {}}, 'cap': 9}}}, "arms.a.cap is used only by the sampler 'capped'"),
        ({'arms': {'a': {'tasks': {'mnli': {}}, 'temperature': 2.0}}}, 'arms.a.temperature is used only by'),
        ({'recipe': {'epochs': 0}}, 'recipe: epochs 0.0 and steps 0 train nothing'),
        ({'seeds': ()}, 'seeds: expected at least one entry'),
        ({'seeds': (1, 2, 1)}, 'no entry twice, got (1, 2, 1)'),
        ({'targets': ()}, 'targets: expected at least one entry'),
        ({'intermediate': ('none', 'none')}, 'intermediate: expected at least one entry and no entry twice'),
    ],
)
def test_what_is_refused_and_how(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({**MINIMAL, **raw})
    assert said in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('field', ['arms', 'training'])
def test_a_mixture_of_micro_batches_that_clips_each_is_refused_where_it_is_set(field: str) -> None:
    mixed = {'tasks': {'world_nli': {}, 'world_pos': {}}, 'mix': 'micro_batch'}
    recipes = {'world_pairs': {'optimizer': {'clip_per': 'micro_batch'}}}
    parse({**MINIMAL, field: {'world_pairs': mixed}})
    with pytest.raises(ConfigError) as caught:
        parse({**MINIMAL, field: {'world_pairs': mixed}, 'recipes': recipes})
    assert str(caught.value).startswith(f"{field}.world_pairs: mix 'micro_batch'")


def test_an_int_serves_as_a_float_and_a_list_as_a_tuple() -> None:
    config = parse({'targets': ['world_pairs'], 'recipe': {'epochs': 2}, 'seeds': [3]})
    assert isinstance(config.recipe.epochs, float)
    assert (config.targets, config.seeds) == (('world_pairs',), (3,))


def test_an_entry_of_recipes_changes_what_it_names_and_nothing_else() -> None:
    plan = {'steps': 7, 'batch_size': 16, 'optimizer': {'learning_rate': 0.5, 'epsilon': 0.25}}
    config = parse({**MINIMAL, 'recipe': plan, 'recipes': {'mnli': {'steps': 9, 'optimizer': {'epsilon': 0.125}}}})
    assert config.recipe == Recipe(steps=7, batch_size=16, optimizer=OptimizerSpec(learning_rate=0.5, epsilon=0.25))
    changed = Recipe(steps=9, batch_size=16, optimizer=OptimizerSpec(learning_rate=0.5, epsilon=0.125))
    assert config.recipe_for('mnli') == changed
    assert config.recipe_for('world_pairs') == config.recipe


def test_a_digest_is_of_the_content_and_the_same_in_another_process() -> None:
    value = {'b': (1, 2.5), 'a': {'y': 'é', 'x': None}}
    assert digest(value) == digest({'a': {'x': None, 'y': 'é'}, 'b': [1, 2.5]})
    assert digest(value) != digest({**value, 'b': (1, 2.25)})
    assert digest(Config()) == digest(to_dict(Config()))
    # A field that is added may not change the ids of runs that leave it at its default.
    assert digest(Config()) == 'c5f889141ecc'
    assert digest(Config()) != digest(Config(recipe=Recipe(optimizer=OptimizerSpec(layer_decay=0.5))))
    code = "from xlmr_flax.config import digest; print(digest({'b': (1, 2.5), 'a': {'y': 'é', 'x': None}}))"
    other = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, 'PYTHONHASHSEED': '7'},
    )
    assert other.stdout.strip() == digest(value) == '2e5bd67a00e6'


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.name)
def test_a_config_file_parses_and_its_tasks_exist(path: Path) -> None:
    raw = runpy.run_path(str(path))['get_config']()
    assert isinstance(raw, ConfigDict)
    config = parse(raw.to_dict())
    assert config.name
    assert config.title
    tasks = [task for name in config.intermediate for task in arm_tasks(config, name)]
    for name in (*tasks, *config.targets):
        get_task(name)
    for name, languages in config.evaluation.languages.items():
        assert name in config.targets
        for language in languages:
            get_task(name).local_code(language)
    assert set(config.recipes) <= {*config.intermediate, *config.targets}


@pytest.mark.parametrize(
    ('old', 'remat'),
    [
        ({'remat': False, 'kept': 'auto'}, 'auto'),
        ({'remat': False, 'kept': 'all'}, 'none'),
        ({'remat': False, 'kept': 'products'}, 'dots'),
        ({'remat': False, 'kept': 'layers'}, 'full'),
        ({'remat': True, 'kept': 'all'}, 'full'),
        ({'remat': False}, 'auto'),
        ({'remat': 'none'}, 'none'),
    ],
)
def test_a_config_that_an_earlier_version_saved(old: dict, remat: str) -> None:
    saved = to_dict(Config(targets=('world_pairs',)))
    saved['encoder'] = {k: v for k, v in saved['encoder'].items() if k != 'remat'} | old
    assert parse_saved(saved) == Config(targets=('world_pairs',), encoder=EncoderSpec(remat=remat))
