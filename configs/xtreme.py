"""XTREME's targets by a published recipe.

    --config=configs/xtreme.py:preset=jiant,targets=xnli+pawsx,encoder=hf:xlm-roberta-large

Keys of the argument: preset (jiant, xtreme or xtune; default jiant), targets and intermediate (task names joined by
'+'), encoder (default: the embedded one), seeds (numbers joined by '+'; default: the preset's). The recipes, their
sources and where they disagree: docs/presets.md. They are XLM-R Large's: a small encoder wants a higher learning rate.
"""

from ml_collections import ConfigDict

from xlmr_flax.experiment.studies.presets import from_argument


def get_config(argument: str = 'targets=xnli') -> ConfigDict:
    return ConfigDict(from_argument(argument))
