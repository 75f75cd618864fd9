"""The tables of the paper: {none, nine intermediate tasks, all nine together} x the nine targets of XTREME.

    --config=configs/paper.py:table=main,size=large

Keys of the argument: table (main, mlm, translation, best, fraction or joint; default main), size (large: XLM-R Large;
base; small: the embedded encoder; tiny), preset (the source of the recipes: jiant, xtreme or xtune; default jiant),
seeds (numbers joined by '+'), intermediate and targets (rows and columns to keep, joined by '+').
CHOICES in xlmr_flax/experiment/studies/phang2020.py lists our choices where the authors' sources leave a detail open.
"""

from ml_collections import ConfigDict

from xlmr_flax.experiment.studies.phang2020 import from_argument


def get_config(argument: str = 'table=main') -> ConfigDict:
    return ConfigDict(from_argument(argument))
