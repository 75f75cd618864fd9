"""Presets: training recipes of three published code bases, and one for the embedded encoder, as configs.

    config = preset('jiant', targets=('xnli', 'tatoeba'))

preset_values.py has the numbers and their sources; docs/presets.md compares them and explains the default. `remarks`
lists the settings that a source leaves open and those that a config changes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_flax.config import NONE, Config, ConfigError, EncoderSpec, Recipe, defaults, parse, to_dict
from xlmr_flax.experiment.studies.preset_values import ALL_PRESETS, Fields, Preset
from xlmr_flax.kinds import kind_of
from xlmr_flax.tasks import get_task
from xlmr_flax.util.errors import closest

DEFAULT = 'jiant'
EMBEDDED, SMALL_ENCODER = EncoderSpec().source, 'small'  # the embedded encoder, and the preset for it
# Evaluation fields of plans that do not follow a published source.
OWN_EVALUATION: Fields = {
    'retrieval_layer': -1, 'retrieval_layers': {}, 'repeated_sentences': 'kept', 'qa_decoding': 'offsets',
    'qa_unaligned': (),
}  # fmt: skip


def preset(
    name: str,
    targets: Sequence[str],
    intermediate: Sequence[str] = (NONE,),
    encoder: str = '',
    seeds: Sequence[int] = (),
) -> dict[str, Any]:
    """Returns a config with the recipes of a preset as nested dicts, for `config.parse` or ConfigDict.

    encoder: an encoder source ('' = the package's default). seeds: () = those of the preset. Raises ConfigError for an
    unknown preset or without targets, and TaskError for an unknown task.
    """
    if name not in ALL_PRESETS:
        raise ConfigError(f'preset: unknown {name!r}{closest(name, ALL_PRESETS)}')
    if not targets:
        raise ConfigError('targets: name one task or more, as in targets=xnli+pawsx')
    chosen, raw = ALL_PRESETS[name], defaults()
    raw['name'], raw['preset'] = name, name
    raw['title'] = f'{", ".join(targets)}: the recipe of {name}'
    raw['targets'], raw['intermediate'] = tuple(targets), tuple(intermediate)
    raw['encoder'] |= {'head': chosen.head} | ({'source': encoder} if encoder else {})
    raw['recipe'] = _recipe(chosen, chosen.recipe)
    tasks = [task for task in (*intermediate, *targets) if task != NONE]
    recipes = {task: _recipe(chosen, fields) for task in tasks if (fields := _fields(name, task, targets))}
    raw['recipes'] = {task: _difference(recipe, raw['recipe']) for task, recipe in recipes.items()}
    raw['seeds'] = tuple(seeds) or _seeds(chosen, targets)
    layers = {'retrieval_layer': chosen.layers[''], 'retrieval_layers': _layers(name, targets)}
    raw['evaluation'] |= layers | {'pooling': 'mean', 'max_length': 512, **chosen.evaluation}
    return raw


def from_argument(argument: str) -> dict[str, Any]:
    """Returns the config for the argument of configs/xtreme.py:
    'preset=jiant,targets=xnli+pawsx,encoder=hf:xlm-roberta-large'.

    Lists are joined by '+'. Keys: preset (default: small for the embedded encoder, jiant for others), targets,
    intermediate, encoder (default: embedded), seeds. Raises ConfigError.
    """
    values = arguments(argument, ('preset', 'targets', 'intermediate', 'encoder', 'seeds'))
    lists = {key: tuple(values[key].split('+')) for key in ('targets', 'intermediate') if key in values}
    encoder = values.get('encoder', EMBEDDED)
    return preset(
        values.get('preset', SMALL_ENCODER if encoder == EMBEDDED else DEFAULT), lists.get('targets', ()),
        lists.get('intermediate', (NONE,)), encoder, seeds_of(values),
    )  # fmt: skip


def arguments(argument: str, known: Sequence[str]) -> dict[str, str]:
    """Parses the argument of a config file, 'KEY=VALUE,KEY=VALUE'. Raises ConfigError with the closest known key."""
    values: dict[str, str] = {}
    for item in filter(None, argument.split(',')):
        key, equals, value = item.partition('=')
        if equals and key not in known:
            raise ConfigError(f'config argument {item!r}: unknown key {key!r}{closest(key, known)}')
        if not equals or not value:
            raise ConfigError(f'config argument {item!r}: expected KEY=VALUE (keys: {", ".join(known)})')
        if key in values:
            raise ConfigError(f'config argument {key!r} is given twice')
        values[key] = value
    return values


def one_of(key: str, value: str, known: Sequence[str]) -> None:
    """Raises ConfigError if a key of a config file's argument has an unknown value."""
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        guess = f' (did you mean {near[0]!r}?)' if near else ''
        raise ConfigError(f'config argument {key}={value}: not one of {", ".join(known)}{guess}')


def seeds_of(values: Mapping[str, str]) -> tuple[int, ...]:
    """Parses the config argument seeds=1+2+3 into numbers; () without it. Raises ConfigError."""
    try:
        return tuple(int(seed) for seed in values['seeds'].split('+')) if 'seeds' in values else ()
    except ValueError:
        raise ConfigError(f'config argument seeds={values["seeds"]}: numbers joined by + are expected') from None


def covered_by(name: str, task: str) -> str:
    """Returns the task whose recipe a target uses: itself, or one with the same training data; '' = none."""
    recipes = ALL_PRESETS[name].recipes
    if task in recipes:
        return task
    data = get_task(task).train_task if not get_task(task).embeds else None
    return next((other for other in recipes if data and get_task(other).train_task == data), '')


def remarks(config: Config) -> list[str]:
    """Returns notes for readers of results with a preset: settings that its source leaves open, and changes of the
    config."""
    if config.preset not in ALL_PRESETS:
        return []
    name, is_embedded = config.preset, config.encoder.source == EMBEDDED
    lines = [f'preset {name}: {note}' for note in ALL_PRESETS[name].not_said]
    if name == SMALL_ENCODER and not is_embedded:
        lines.append(f'preset {name} is for the embedded encoder: larger encoders need lower learning rates')
    elif name != SMALL_ENCODER and is_embedded:
        lines.append(f'preset {name} is for XLM-R Large: the embedded encoder needs higher learning rates')
    for task in config.targets:
        if not get_task(task).embeds and (other := covered_by(name, task)) != task:
            lines.append(f'preset {name}: {task} is not in its source; ' + (f'as {other}' if other else 'its defaults'))
    return lines + [f'preset {name} changed: {change}' for change in changes(config)]


def changes(config: Config) -> list[str]:
    """Lists the preset's values that a config has changed, as 'recipes.xnli.epochs 1.0 (preset: 2.0)'."""
    original = parse(preset(config.preset, config.targets, config.intermediate, config.encoder.source))
    pairs = [('encoder.head', config.encoder.head, original.encoder.head)]
    for task in (*config.intermediate, *config.targets):
        if task != NONE and (task in config.arms or not get_task(task).embeds):
            pairs += _pairs(f'recipes.{task}', to_dict(config.recipe_for(task)), to_dict(original.recipe_for(task)))
    for key in dict.fromkeys(key for task in config.targets for key in kind_of(get_task(task)).settings):
        pairs.append((f'evaluation.{key}', getattr(config.evaluation, key), getattr(original.evaluation, key)))
    return [f'{where} {value} (preset: {before})' for where, value, before in pairs if value != before]


def _pairs(where: str, new: Fields, old: Fields) -> list[tuple[str, Any, Any]]:
    """Returns (path, new value, old value) of all fields that affect training, so not of logging and checkpoints."""
    pairs = []
    for key, value in new.items():
        if isinstance(value, Mapping):
            pairs += _pairs(f'{where}.{key}', value, old[key])
        elif key not in ('log_every', 'checkpoint_every', 'keep_checkpoints', 'lengths'):
            pairs.append((f'{where}.{key}', value, old[key]))
    return pairs


def _fields(name: str, task: str, targets: Sequence[str]) -> Fields | None:
    """Returns the preset's own recipe for a task, else None. A target also uses that of a task with the same training
    data; an intermediate task has one only if the source trains it (Social IQa).
    """
    other = covered_by(name, task) if task in targets else task
    return ALL_PRESETS[name].recipes.get(other)


def _recipe(chosen: Preset, fields: Fields) -> dict[str, Any]:
    base = to_dict(Recipe())
    merged = base['optimizer'] | chosen.common['optimizer'] | fields.get('optimizer', {})
    return base | chosen.common | fields | {'optimizer': merged}


def _difference(recipe: Fields, base: Fields) -> dict[str, Any]:
    """Returns the fields that differ from the recipe of the plan. Overrides of the plan's recipe then apply to all
    other fields."""
    changed: dict[str, Any] = {k: v for k, v in recipe.items() if k != 'optimizer' and v != base[k]}
    optimizer = {k: v for k, v in recipe['optimizer'].items() if v != base['optimizer'][k]}
    return changed | ({'optimizer': optimizer} if optimizer else {})


def _seeds(chosen: Preset, targets: Sequence[str]) -> tuple[int, ...]:
    """Returns the seed of the targets if they share one, else the preset's main seed."""
    seeds = {chosen.seeds.get(target, chosen.seeds['']) for target in targets}
    return tuple(seeds) if len(seeds) == 1 else (chosen.seeds[''],)


def _layers(name: str, targets: Sequence[str]) -> dict[str, int]:
    """Returns {retrieval target: layer} for targets with a specific layer in the preset."""
    layers = ALL_PRESETS[name].layers
    return {t: layers[t] for t in targets if t in layers and get_task(t).embeds}
