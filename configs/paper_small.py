"""The tables of the paper with the small embedded encoder and few examples: an end-to-end check of the pipeline.

    --config=configs/paper_small.py:table=main
    --config=configs/paper_small.py:table=subset,seeds=1+2+3      four arms x four targets x three seeds

The tables have every row and column; intermediate=none+mnli and targets=xnli+tatoeba keep only these. Needs the files
of the datasets (or stand-ins): which languages have files is looked up while the config loads. The numbers are not
results: the encoder is small and was trained contrastively, and it is trained for a few dozen steps and evaluated on
a few examples per language.
"""

from ml_collections import ConfigDict

from xlmr_flax.experiment.studies.phang2020 import small_from_argument


def get_config(argument: str = 'table=main') -> ConfigDict:
    return ConfigDict(small_from_argument(argument))
