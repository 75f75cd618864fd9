"""The paper's tables, every row and column, on the embedded encoder with capped rows: a check of the plumbing.

    --config=configs/paper_small.py:table=main
    --config=configs/paper_small.py:table=subset,seeds=1+2+3      four arms x four targets x three seeds

intermediate=none+mnli and targets=xnli+tatoeba keep these rows and columns alone. Needs the datasets' files (or
stand-ins) under the data root. The numbers are no results: a small encoder trained contrastively, a few dozen steps, a
few rows a language.
"""

from ml_collections import ConfigDict

from xlmr_flax.experiment.studies.phang2020 import small_from_argument


def get_config(argument: str = 'table=main') -> ConfigDict:
    return ConfigDict(small_from_argument(argument))
