"""The sweep that chose the preset `small`: recipes for the embedded encoder, compared by their English dev scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xlmr_flax.config import defaults
from xlmr_flax.experiment.studies import presets
from xlmr_flax.experiment.studies.phang2020 import arm, member

# Task -> (training rows, epochs, tokens per row).
TASKS = {
    'mnli': (2400, 1.0, 64),
    'sib200': (0, 2.0, 64),
    'panx': (1600, 1.0, 64),
    'proofwriter': (1600, 1.0, 192),
}
_BASE = {'learning_rate': 1e-4, 'epsilon': 1e-6, 'warmup': 0.1, 'batch_size': 16}
VARIANTS = {
    'batch8-rate5e-5': {'batch_size': 8, 'learning_rate': 5e-5},
    'batch8-rate1e-4': {'batch_size': 8},
    'batch8-rate2e-4': {'batch_size': 8, 'learning_rate': 2e-4},
    'batch8-rate4e-4': {'batch_size': 8, 'learning_rate': 4e-4},
    'batch16-rate1e-4': {},
    'batch16-rate2e-4': {'learning_rate': 2e-4},
    'batch16-rate1e-4-warm30': {'warmup': 0.3},
}


def sweep(task: str, variants: Sequence[str] = tuple(VARIANTS), seeds: Sequence[int] = (1,)) -> dict[str, Any]:
    """Returns the config of the sweep over one task as nested dicts. Raises ConfigError for unknown names."""
    presets.one_of('task', task, tuple(TASKS))
    for name in variants:
        presets.one_of('variants', name, tuple(VARIANTS))
    rows, epochs, length = TASKS[task]
    raw = defaults()
    raw |= {
        'name': f'small_sweep_{task}',
        'title': f'Recipes for the embedded encoder: {task}',
        'targets': ('tatoeba',),
    }
    # A plan needs a target. This one is not trained and is scored on eight sentences; the sweep does not use the score.
    raw['evaluation'] |= {'languages': {'tatoeba': ('de',)}, 'max_examples': 8}
    raw['encoder'] |= {'source': 'embedded', 'head': 'hf'}
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


def from_argument(argument: str) -> dict[str, Any]:
    """Returns the sweep for the argument of configs/small_sweep.py: 'task=mnli,variants=batch8-rate1e-4,seeds=1+2'."""
    values = presets.arguments(argument, ('task', 'variants', 'seeds'))
    names = values.get('variants', '+'.join(VARIANTS)).split('+')
    return sweep(values.get('task', 'mnli'), names, presets.seeds_of(values) or (1,))
