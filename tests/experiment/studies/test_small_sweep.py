"""The sweep that chose the preset `small`: what it trains, and that the preset is made of its variants."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from xlmr_flax.config import ConfigError, parse
from xlmr_flax.experiment.plan.arms import arm_of, datasets
from xlmr_flax.experiment.studies import logic
from xlmr_flax.experiment.studies.presets import preset
from xlmr_flax.experiment.studies.small_sweep import TASKS, VARIANTS, from_argument

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize('task', TASKS)
def test_every_variant_is_an_arm_that_reads_english_rows_of_the_task(task: str) -> None:
    config = parse(ConfigDict(from_argument(f'task={task}')).to_dict())
    assert config.intermediate == tuple(f'{task}-{name}' for name in VARIANTS)
    for name in config.intermediate:
        [dataset] = datasets(config, arm_of(config, name), config.recipe_for(name), 'x')
        assert (dataset.task.name, dataset.split, dataset.language) == (task, 'train', 'en')
    rates = {name: config.recipe_for(f'{task}-{name}').optimizer.learning_rate for name in VARIANTS}
    assert rates['batch8-rate2e-4'] == 2e-4 and rates['batch16-rate1e-4'] == 1e-4
    assert config.recipe_for(f'{task}-batch16-rate1e-4-warm30').optimizer.warmup == 0.3
    assert (config.targets, config.evaluation.max_examples) == (('tatoeba',), 8)


def test_the_preset_is_made_of_variants() -> None:
    variants = {'xnli': 'batch32-rate3e-4-beta98', 'sib200': 'batch8-rate2e-4-beta98', 'panx': 'batch8-rate2e-4-beta98'}
    swept = parse(ConfigDict(from_argument(f'task=mnli,variants={"+".join({*variants.values()})},seeds=1+2')).to_dict())
    small = parse(preset('small', tuple(variants)))
    assert swept.seeds == (1, 2) and swept.encoder.head == small.encoder.head
    for target, name in variants.items():
        chosen, recipe = small.recipe_for(target), swept.recipe_for(f'mnli-{name}')
        assert (chosen.optimizer, chosen.batch_size) == (recipe.optimizer, recipe.batch_size), target
    assert [small.recipe_for(name).batch_size for name in small.targets] == [32, 8, 8]
    assert [small.recipe_for(name).max_train for name in small.targets] == [6000, 0, 2400]
    assert [small.recipe_for(name).epochs for name in small.targets] == [1.0, 2.0, 1.0]


def test_the_arms_of_the_study_are_a_variant_of_the_mixture() -> None:
    study = parse(ConfigDict(logic.from_argument('size=small,where=core,seeds=3')).to_dict())
    names = 'batch16-rate15e-5-beta98', 'batch8-rate1e-4'
    swept = parse(ConfigDict(from_argument(f'task=logic,variants={"+".join(names)},seeds=3')).to_dict())
    chosen, other = (f'logic-{name}' for name in names)
    assert swept.intermediate == ('none', chosen, other)
    assert (swept.arms[chosen], swept.recipe_for(chosen)) == (study.arms['logic'], study.recipe_for('logic'))
    assert (swept.recipe_for(other).steps, swept.arms[other].block) == (500, 500)
    for target in swept.targets:
        assert swept.recipe_for(target) == study.recipe_for(target)
    assert swept.evaluation.languages == {'xnli_plus': ('en',), 'sib200': ('en',)}


def test_the_config_file_and_unknown_names() -> None:
    get_config = runpy.run_path(str(ROOT / 'configs' / 'small_sweep.py'))['get_config']
    assert parse(get_config('task=sib200').to_dict()).name == 'small_sweep_sib200'
    with pytest.raises(ConfigError, match='not one of batch8-rate5e-5'):
        from_argument('variants=batch9')
    with pytest.raises(ConfigError, match=r"did you mean 'mnli'"):
        from_argument('task=mnly')
