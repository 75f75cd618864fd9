"""Targets with a recipe by name: a published one, or that of the embedded encoder.

    --config=configs/xtreme.py:preset=jiant,targets=xnli+pawsx,encoder=hf:xlm-roberta-large

Keys of the argument: preset (jiant, xtreme, xtune or small; default: small for the embedded encoder, jiant for others),
targets and intermediate (task names joined by '+'), encoder (default: the embedded one), seeds (numbers joined by '+';
default: those of the preset). docs/presets.md describes the recipes, their sources and their differences. jiant, xtreme
and xtune are for XLM-R Large.
"""

from ml_collections import ConfigDict

from xlmr_flax.experiment.studies.presets import from_argument


def get_config(argument: str = 'targets=xnli') -> ConfigDict:
    return ConfigDict(from_argument(argument))
