"""Checks that the PyTorch side supports a config, before anything is trained. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence

from xlmr_flax.config import NONE, Config, ConfigError
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tools.torch.torch_model import TRAINED


def check(config: Config) -> None:
    """Raises ConfigError, naming the field, if the PyTorch side does not support the config."""
    for name, arm in {**config.arms, **config.training}.items():
        for key, member in arm.tasks.items():
            _check_kinds(f'arms.{name}.tasks.{key}', (member.task or key).split('+'))
    for name in config.intermediate:
        if name != NONE and name not in config.arms and name in all_tasks():
            _check_kinds('intermediate', [name])
    for name in config.targets:
        if not get_task(name).embeds:
            _check_kinds('targets', [name])
    recipes = {'recipe': config.recipe} | {f'recipes.{name}': recipe for name, recipe in config.recipes.items()}
    for where, recipe in recipes.items():
        if recipe.optimizer.name != 'adamw':
            raise ConfigError(
                f"{where}.optimizer.name {recipe.optimizer.name!r}: the PyTorch side supports only 'adamw'"
            )
        if recipe.eval_every and (recipe.keep == 'best' or recipe.patience):
            raise ConfigError(
                f'{where}.eval_every {recipe.eval_every} with keep {recipe.keep!r} and patience {recipe.patience}: the '
                f"PyTorch side has no dev evaluation; compare with eval_every=0, or with keep='last' and patience=0"
            )


def _check_kinds(where: str, names: Sequence[str]) -> None:
    for name in names:
        if (kind := get_task(name).kind) not in TRAINED:
            trained = ', '.join(TRAINED)
            raise ConfigError(f'{where}: {name!r} is of kind {kind!r}; the PyTorch side trains {trained}')
