"""The targets of XTREME with a published recipe.

    --config=configs/xtreme.py:preset=jiant,targets=xnli+pawsx,encoder=hf:xlm-roberta-large

Keys of the argument: preset (jiant, xtreme or xtune; default jiant), targets and intermediate (task names joined by
'+'), encoder (default: the embedded one), seeds (numbers joined by '+'; default: those of the preset).
docs/presets.md describes the recipes, their sources and their differences. They are for XLM-R Large: a small encoder
needs a higher learning rate.
"""

from ml_collections import ConfigDict

from xlmr_flax.experiment.studies.presets import from_argument


def get_config(argument: str = 'targets=xnli') -> ConfigDict:
    return ConfigDict(from_argument(argument))
