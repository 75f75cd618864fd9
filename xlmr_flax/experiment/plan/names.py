"""Checks the names of arms, tasks and targets in a config."""

from __future__ import annotations

from xlmr_flax.config import NONE, Config, ConfigError
from xlmr_flax.experiment.plan.arms import arm_of, member_tasks
from xlmr_flax.experiment.plan.fields import task_named
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.train.optimizer import method_of
from xlmr_flax.util.errors import closest


def check_names(config: Config) -> None:
    """Raises ConfigError, which names the field, for an unknown, repeated or misplaced name."""
    for name, languages in config.evaluation.languages.items():
        if len(set(languages)) != len(languages):
            raise ConfigError(f'evaluation.languages.{name}: a language twice: {", ".join(languages)}')
    for name in config.arms:
        if name == NONE:
            raise ConfigError(f'arms.{NONE}: {NONE!r} is reserved for no intermediate training')
        if name in all_tasks():
            raise ConfigError(f'arms.{name}: the name of a task; give the mixture another')
    for name in config.intermediate:
        if name != NONE:
            arm_of(config, name)
    _check_recipe_names(config)
    of_targets = {
        'evaluation.languages': config.evaluation.languages,
        'evaluation.split': config.evaluation.split,
        'evaluation.retrieval_layers': config.evaluation.retrieval_layers,
        'training': config.training,
    }
    for where, names in of_targets.items():
        for name in names:  # a known task that this plan leaves out (--config.targets=...) is no error
            if name not in config.targets and name not in all_tasks():
                raise ConfigError(f'{where}.{name}: no such target{closest(name, {*config.targets, *all_tasks()})}')
    for name in config.training:
        if config.training[name].joint:
            raise ConfigError(f'training.{name}.joint: only an arm can be joint')
        if get_task(name).embeds:
            raise ConfigError(f'training.{name}: a retrieval target, which has no training')


def _check_recipe_names(config: Config) -> None:
    """Checks the names in `recipes`: phases of this plan, or arms and tasks that it leaves out. A dataset of a mixture
    has no recipe."""
    targets = [task_named(name, 'targets') for name in config.targets]
    known = {*config.intermediate, *config.targets, *(t.warmup_task for t in targets if t.warmup_task)}
    arms = [config.arms[name] for name in config.intermediate if name in config.arms]
    arms += [arm for name, arm in config.training.items() if name in config.targets]
    members = {t for arm in arms for name, member in arm.tasks.items() for t in (name, *member_tasks(name, member))}
    others = {*config.arms, *all_tasks()} - members
    method_of(config.recipe.optimizer)
    for name, recipe in config.recipes.items():
        method_of(recipe.optimizer, f'recipes.{name}')
        if name not in known | others:
            raise ConfigError(f'recipes.{name}: no such intermediate or target task in this plan{closest(name, known)}')
