"""A sweep for the preset `small`: recipes for the embedded encoder, compared by their English dev scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from xlmr_flax.config import NONE, defaults
from xlmr_flax.experiment.studies import logic, presets
from xlmr_flax.experiment.studies.phang2020 import arm, member
from xlmr_flax.experiment.studies.preset_values import SMALL

# Task -> (training rows, epochs, tokens per row).
TASKS = {
    'mnli': (6000, 1.0, 96),
    'sib200': (0, 2.0, 64),
    'panx': (1600, 1.0, 64),
    'proofwriter': (1600, 1.0, 192),
}
LOGIC = 'logic'  # the mixture of the logic study, followed by its targets
_BASE = {'learning_rate': 1e-4, 'layer_decay': 1.0, 'epsilon': 1e-6, 'warmup': 0.1, 'batch_size': 16}
_BETA98 = {'layer_decay': 0.85, 'warmup': 0.2, 'beta2': 0.98}  # what 'beta98' in a name stands for
VARIANTS = {
    'batch8-rate5e-5': {'batch_size': 8, 'learning_rate': 5e-5},
    'batch8-rate1e-4': {'batch_size': 8},
    'batch8-rate2e-4': {'batch_size': 8, 'learning_rate': 2e-4},
    'batch8-rate4e-4': {'batch_size': 8, 'learning_rate': 4e-4},
    'batch8-rate1e-4-decay85': {'batch_size': 8, 'layer_decay': 0.85},
    'batch8-rate2e-4-decay85': {'batch_size': 8, 'learning_rate': 2e-4, 'layer_decay': 0.85},
    'batch8-rate2e-4-decay85-warm30': {'batch_size': 8, 'learning_rate': 2e-4, 'layer_decay': 0.85, 'warmup': 0.3},
    'batch16-rate1e-4': {},
    'batch16-rate2e-4': {'learning_rate': 2e-4},
    'batch16-rate1e-4-warm30': {'warmup': 0.3},
    'batch8-rate2e-4-beta98': {'batch_size': 8, 'learning_rate': 2e-4} | _BETA98,
    'batch16-rate15e-5-beta98': {'learning_rate': 1.5e-4} | _BETA98,
    'batch16-rate3e-4-beta98': {'learning_rate': 3e-4} | _BETA98,
    'batch32-rate2e-4-beta98': {'batch_size': 32, 'learning_rate': 2e-4} | _BETA98,
    'batch32-rate3e-4-beta98': {'batch_size': 32, 'learning_rate': 3e-4} | _BETA98,
    'batch32-rate4e-4-beta98': {'batch_size': 32, 'learning_rate': 4e-4} | _BETA98,
}


def sweep(task: str, variants: Sequence[str] = tuple(VARIANTS), seeds: Sequence[int] = (1,)) -> dict[str, Any]:
    """Returns the config of the sweep over one task as nested dicts. Raises ConfigError for unknown names."""
    presets.one_of('task', task, (*TASKS, LOGIC))
    for name in variants:
        presets.one_of('variants', name, tuple(VARIANTS))
    if task == LOGIC:
        return _logic_sweep(variants, seeds)
    rows, epochs, length = TASKS[task]
    raw = defaults()
    raw |= {
        'name': f'small_sweep_{task}',
        'title': f'Recipes for the embedded encoder: {task}',
        'targets': ('tatoeba',),
    }
    # A plan needs a target. This one is not trained and is scored on eight sentences; the sweep does not use the score.
    raw['evaluation'] |= {'languages': {'tatoeba': ('de',)}, 'max_examples': 8}
    raw['encoder'] |= {'source': presets.EMBEDDED, 'head': SMALL.head}
    raw |= {'seeds': tuple(seeds), 'arms': {}, 'recipes': {}, 'keep_models': 'intermediate'}
    for name in variants:
        own = _BASE | VARIANTS[name]
        batch = own.pop('batch_size')
        raw['arms'][f'{task}-{name}'] = arm({task: member(max_train=rows)})
        raw['recipes'][f'{task}-{name}'] = {
            'batch_size': batch, 'epochs': epochs, 'max_length': length, 'optimizer': own,
            'eval_every': 800 // batch, 'eval_examples': 300, 'log_every': 160 // batch,
        }  # fmt: skip
    raw['intermediate'] = tuple(raw['arms'])
    return raw


def _logic_sweep(variants: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The sweep over the recipe of the study's arm `logic`: each variant is an arm, and the targets that follow it have
    the preset `small`. They are scored on eight English rows, which the sweep does not use."""
    raw = logic.study('small', 'core', seeds=seeds)
    raw |= {'name': f'small_sweep_{LOGIC}', 'title': f'Recipes for the embedded encoder: {LOGIC}'}
    raw['targets'] = ('xnli_plus', 'sib200')
    raw['evaluation'] |= {'languages': dict.fromkeys(raw['targets'], ('en',)), 'max_examples': 8}
    recipe = raw['recipes'][LOGIC]
    raw['recipes'] = {target: raw['recipes'].get(target, {}) for target in raw['targets']}
    raw['arms'], rows = {}, logic.ROWS['small']
    for name in variants:
        own = _BASE | VARIANTS[name]
        batch = own.pop('batch_size')
        steps = math.ceil(rows / batch)
        raw['arms'][f'{LOGIC}-{name}'] = logic.all_arms(rows, steps, True)[LOGIC]
        raw['recipes'][f'{LOGIC}-{name}'] = recipe | {'batch_size': batch, 'steps': steps, 'optimizer': own}
    raw['intermediate'] = (NONE, *raw['arms'])
    return raw


def from_argument(argument: str) -> dict[str, Any]:
    """Returns the sweep for the argument of configs/small_sweep.py: 'task=mnli,variants=batch8-rate1e-4,seeds=1+2'."""
    values = presets.arguments(argument, ('task', 'variants', 'seeds'))
    names = values.get('variants', '+'.join(VARIANTS)).split('+')
    return sweep(values.get('task', 'mnli'), names, presets.seeds_of(values) or (1,))
