"""Presets: training recipes of three published code bases. docs/presets.md compares them and explains the default.

    config = preset('jiant', targets=('xnli', 'tatoeba'))

* jiant: nyu-mll/jiant at daa5a258, the library of the authors of X-STILTs: scripts/benchmarks/xtreme/ (subscripts
  {c,d,e}_*.sh, xtreme_runconfig_writer.py); for tasks outside XTREME, the defaults of proj/simple/runscript.py.
* xtreme: google-research/xtreme at 838c13b: scripts/train_*.sh and run_*.sh (the branch for XLM-R Large) and the
  defaults of third_party/run_*.py.
* xtune: bozheng-hit/xTune: scripts/cross-lingual-transfer/train_*.sh (XLM-R Large), with src/run_*.py as they are in
  microsoft/unilm. Only learning rates and lengths: this package does not have its consistency losses and augmentation.

The numbers are for XLM-R Large. `remarks` lists the settings that a source leaves open and those that a config changes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xlmr_flax.config import NONE, Config, ConfigError, Recipe, defaults, parse, to_dict
from xlmr_flax.kinds import kind_of
from xlmr_flax.tasks import get_task
from xlmr_flax.util.errors import closest

DEFAULT = 'jiant'
Fields = Mapping[str, Any]
# Evaluation fields of plans that do not follow a published source.
OWN_EVALUATION: Fields = {
    'retrieval_layer': -1, 'retrieval_layers': {}, 'repeated_sentences': 'kept', 'qa_decoding': 'offsets',
    'qa_unaligned': (),
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """The settings of one source.

    common: Recipe fields of all its recipes ('optimizer' is merged). recipe: fields for tasks that `recipes` does not
    cover. recipes: task -> Recipe fields; a target without an entry uses that of a target with the same training data.
    head: EncoderSpec.head. seeds: task -> seed, '' for other tasks. layers: retrieval target -> hidden_states index, ''
    for other targets. evaluation: further Evaluation fields. not_said: notes on settings that the source leaves open
    (they have the values of this package or of jiant) or that cannot be the same here.
    """

    source: str
    head: str
    common: Fields
    recipe: Fields
    recipes: Mapping[str, Fields]
    seeds: Mapping[str, int]
    layers: Mapping[str, int] = field(default_factory=lambda: {'': -1})
    evaluation: Fields = field(default_factory=dict)
    not_said: tuple[str, ...] = ()


def _adamw(**changes: Any) -> dict[str, Any]:
    """Returns the optimizer fields that all three sources share: AdamW as in Hugging Face transformers with betas 0.9
    and 0.999, epsilon 1e-8, clipping at 1.0 and linear decay to 0."""
    return {'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8, 'schedule': 'linear', 'clip_norm': 1.0, **changes}


# A micro-batch has 4 examples. jiant clips after each micro-batch, so their number is a part of the recipe.
_JIANT_SENTENCES: Fields = {'batch_size': 32, 'accumulation': 8, 'max_length': 256}
_JIANT_QA: Fields = {'epochs': 2.0, 'batch_size': 16, 'accumulation': 4, 'max_length': 384}

JIANT = Preset(
    source='nyu-mll/jiant at daa5a258: scripts/benchmarks/xtreme, proj/simple/runscript.py, shared/model_setup.py',
    head='jiant',
    common={
        'eval_every': 1000, 'eval_examples': 500, 'dev_score': 'mean', 'patience': 30, 'keep': 'best',
        'optimizer': _adamw(learning_rate=1e-5, weight_decay=0.01, warmup=0.1, clip_per='micro_batch'),
    },
    recipe={'epochs': 3.0, 'batch_size': 32, 'accumulation': 1, 'max_length': 256},
    recipes={
        'xnli': {'epochs': 2.0, **_JIANT_SENTENCES},
        'pawsx': {'epochs': 5.0, **_JIANT_SENTENCES},
        'udpos': {'epochs': 10.0, **_JIANT_SENTENCES},
        'panx': {'epochs': 10.0, **_JIANT_SENTENCES},
        'xquad': _JIANT_QA,
        'mlqa': _JIANT_QA,
        'tydiqa': _JIANT_QA,
    },
    seeds={'': 1},
    evaluation={'repeated_sentences': 'expanded', 'qa_decoding': 'reference', 'qa_unaligned': ('zh',)},
    not_said=(
        'seed: drawn at random there (-1) and recorded; 1 here',
        'intermediate tasks: no script sets them; the simple API (3 epochs, batch 32, length 256) and the selection of '
        'the XTREME scripts are used',
        'sentences of tagging tasks beyond the length: truncated there, split here',
        'SQuAD v2: selected there by F1 and exact match at thresholds that its code finds without no-answer scores; '
        'here at those that are best by these scores',
        'TyDiQA: selected on the English rows that are also scored; here there is no such split, the last step is kept',
    ),
)  # fmt: skip

# Number of rows in the English dev set of XNLI.
_XNLI_DEV = 2490
# The source uses 2 micro-batches of 16. It clips once per step, so micro-batches only change memory: 1 here.
_XTREME_SENTENCES: Fields = {'batch_size': 32, 'max_length': 128, 'eval_examples': 0, 'keep': 'best'}
_XTREME_QA: Fields = {
    'epochs': 3.0, 'batch_size': 32, 'max_length': 384, 'keep': 'last',
    'optimizer': {'learning_rate': 3e-5, 'weight_decay': 1e-4, 'warmup_steps': 500},
}  # fmt: skip
_XTREME_CHOICE: Fields = {
    'epochs': 5.0, 'batch_size': 32, 'max_length': 128, 'keep': 'last', 'optimizer': {'learning_rate': 3e-5},
}  # fmt: skip

XTREME = Preset(
    source='google-research/xtreme at 838c13b: scripts/{train,run}_*.sh, third_party/run_*.py',
    head='hf',
    common={
        'accumulation': 1, 'patience': 0,
        'optimizer': _adamw(learning_rate=2e-5, weight_decay=0.0, warmup_steps=0, clip_per='step'),
    },
    recipe={'epochs': 3.0, 'batch_size': 32, 'max_length': 128, 'keep': 'last'},
    recipes={
        'xnli': {
            'epochs': 5.0, **_XTREME_SENTENCES, 'eval_every': 100, 'eval_examples': _XNLI_DEV,
            'optimizer': {'learning_rate': 3e-5},
        },
        'pawsx': {'epochs': 5.0, 'eval_every': 200, **_XTREME_SENTENCES},
        'udpos': {'epochs': 10.0, 'eval_every': 500, **_XTREME_SENTENCES},
        'panx': {'epochs': 10.0, 'eval_every': 1000, **_XTREME_SENTENCES},
        'xquad': _XTREME_QA,
        'mlqa': _XTREME_QA,
        'tydiqa': _XTREME_QA,
        'siqa': _XTREME_CHOICE,
        'xcopa': _XTREME_CHOICE,
    },
    seeds={'': 42, 'udpos': 1, 'panx': 1},
    # run_bucc2018.sh does not set --num_layers: its default 12 and index 7 select hidden_states[20] of 24.
    # run_tatoeba.sh selects hidden_states[14].
    layers={'': -1, 'bucc2018': 20},
    evaluation={'repeated_sentences': 'dropped', 'qa_decoding': 'reference'},
    not_said=(
        'XNLI: selected there on its English dev set; here on as many rows of MNLI matched dev',
        'intermediate tasks other than Social IQa: not there; 3 epochs (the default of run_*.py), batch 32, length '
        '128, 2e-5, the last step',
        'XCOPA is trained on Social IQa first: ask for intermediate=siqa',
        'BUCC: mean pooling, as in all runs before October 2021, when `--pool_type cls` of its script began to count',
    ),
)  # fmt: skip

_XTUNE_QA: Fields = {
    'epochs': 4.0, 'batch_size': 32, 'max_length': 384, 'keep': 'last', 'optimizer': {'learning_rate': 1.5e-5},
}  # fmt: skip
_XTUNE: Fields = {'epochs': 10.0, 'batch_size': 32, 'eval_examples': 0, 'keep': 'best'}

XTUNE = Preset(
    source='bozheng-hit/xTune: scripts/cross-lingual-transfer/train_*.sh, first stage; src/run_{cls,tag,qa}.py',
    head='hf',
    common={
        'accumulation': 1, 'patience': 0,
        'optimizer': _adamw(learning_rate=1e-5, weight_decay=0.0, warmup=0.1, clip_per='step'),
    },
    recipe={'epochs': 3.0, 'batch_size': 32, 'max_length': 256, 'keep': 'last'},
    recipes={
        'xnli': {
            **_XTUNE, 'max_length': 256, 'eval_every': 5000, 'eval_examples': _XNLI_DEV,
            'optimizer': {'learning_rate': 5e-6},
        },
        'pawsx': {**_XTUNE, 'max_length': 256, 'eval_every': 1000},
        'udpos': {**_XTUNE, 'max_length': 128, 'eval_every': 500, 'optimizer': {'learning_rate': 5e-6}},
        'panx': {**_XTUNE, 'max_length': 128, 'eval_every': 1000, 'optimizer': {'learning_rate': 7e-6}},
        'xquad': _XTUNE_QA,
        'mlqa': _XTUNE_QA,
        'tydiqa': {**_XTUNE_QA, 'epochs': 10.0},
    },
    seeds={'': 1},
    evaluation={'repeated_sentences': 'expanded', 'qa_decoding': 'reference', 'qa_unaligned': ('zh', 'ko')},
    not_said=(
        'its consistency losses and augmentation (the method itself) are left out',
        'selection: there by the mean over the dev sets of all languages, which is not zero-shot; here by the English '
        'one (XNLI: as many rows of MNLI matched dev); for question answering it evaluates after each epoch, here the '
        'last step is kept',
        'fp16 there; encoder.dtype stays as it is',
        'retrieval and intermediate tasks: not there; layer and repeated sentences as jiant, 3 epochs, batch 32, '
        'length 256, 1e-5',
    ),
)  # fmt: skip

PRESETS = {'jiant': JIANT, 'xtreme': XTREME, 'xtune': XTUNE}


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
    if name not in PRESETS:
        raise ConfigError(f'preset: unknown {name!r}{closest(name, PRESETS)}')
    if not targets:
        raise ConfigError('targets: name one task or more, as in targets=xnli+pawsx')
    chosen, raw = PRESETS[name], defaults()
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

    Lists are joined by '+'. Keys: preset (default: jiant), targets, intermediate, encoder, seeds. Raises ConfigError.
    """
    values = arguments(argument, ('preset', 'targets', 'intermediate', 'encoder', 'seeds'))
    lists = {key: tuple(values[key].split('+')) for key in ('targets', 'intermediate') if key in values}
    return preset(
        values.get('preset', DEFAULT), lists.get('targets', ()), lists.get('intermediate', (NONE,)),
        values.get('encoder', ''), seeds_of(values),
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
    recipes = PRESETS[name].recipes
    if task in recipes:
        return task
    data = get_task(task).train_task if not get_task(task).embeds else None
    return next((other for other in recipes if data and get_task(other).train_task == data), '')


def remarks(config: Config) -> list[str]:
    """Returns notes for readers of results with a preset: settings that its source leaves open, and changes of the
    config."""
    if config.preset not in PRESETS:
        return []
    name = config.preset
    lines = [f'preset {name}: {note}' for note in PRESETS[name].not_said]
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
    return PRESETS[name].recipes.get(other)


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
    layers = PRESETS[name].layers
    return {t: layers[t] for t in targets if t in layers and get_task(t).embeds}
