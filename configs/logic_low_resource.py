"""The logic study: does intermediate training on logical inference help zero-shot transfer to low-resource languages?

    --config=configs/logic_low_resource.py:size=small,where=core    7 arms x 4 targets x 5 seeds, on one CPU core
    --config=configs/logic_low_resource.py:size=large,where=full    16 arms x 13 targets x 3 seeds, XLM-R Large

Keys of the argument: size (small: the embedded encoder; base; large; tiny), where (core or full), rows (training rows
of every arm; default 4,000 for small, 4,500 for base and large), seeds (numbers joined by '+'), preset (the source of
the recipes for the targets of base and large: jiant, xtreme or xtune), intermediate and targets (rows and columns to
keep, joined by '+'; intermediate may also name mlm, which is in no plan by default). docs/logic_study.md describes the
arms, controls, statistics and limits of the study.
"""

from ml_collections import ConfigDict

from xlmr_flax.experiment.studies.logic import from_argument


def get_config(argument: str = 'size=small,where=core') -> ConfigDict:
    return ConfigDict(from_argument(argument))
