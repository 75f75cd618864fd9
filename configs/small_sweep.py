"""The sweep behind the preset `small`: recipes for the embedded encoder, compared by English dev scores alone.

    --config=configs/small_sweep.py:task=mnli,variants=rate5e-5+rate1e-4

Every arm is one task trained with one variant of a recipe; there are no targets, so that no test row is read. The dev
scores are in metrics.jsonl; docs/presets.md has them. Keys of the argument: task (of TASKS), variants (of VARIANTS,
joined by '+'), seeds.
"""

from ml_collections import ConfigDict

from xlmr_flax.experiment.studies.small_sweep import from_argument


def get_config(argument: str = 'task=mnli') -> ConfigDict:
    return ConfigDict(from_argument(argument))
