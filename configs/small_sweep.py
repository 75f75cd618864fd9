"""A sweep for the preset `small`: recipes for the embedded encoder, compared by their English dev scores.

    --config=configs/small_sweep.py:task=mnli,variants=batch8-rate1e-4+batch8-rate2e-4

Every arm is one task, trained with one variant of a recipe. A plan needs a target: it is Tatoeba, which is not
trained and is scored on eight German sentences. task=logic: the arms are the mixture of the logic study, and its two
targets are trained after each. The dev scores are in metrics.jsonl; docs/presets.md has those of our trials. Keys of
the argument: task (of TASKS, or logic), variants (of VARIANTS, joined by '+'), seeds.
"""

from ml_collections import ConfigDict

from xlmr_flax.experiment.studies.small_sweep import from_argument


def get_config(argument: str = 'task=mnli') -> ConfigDict:
    return ConfigDict(from_argument(argument))
