"""usage: xlmr-flax compare --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Runs the same experiment here and in PyTorch (transformers' XLM-R, fused AdamW, SDPA), from the same weights, batches
and recipe, and compares losses, scores in each language with a paired bootstrap test, and time. DIR holds our run, as
`xlmr-flax run` leaves it (finished runs are used again), DIR/torch the other, DIR/compare/ the page (index.html),
compare.md and compare.json. Needs torch (pip install -e '.[torch]' in the checkout). The PyTorch side trains pair,
choice, span and tag heads, intermediate mixtures among them, and scores retrieval; it has no masked language model and
no choice of a checkpoint by dev scores.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from xlmr_flax.config.flag import define_config_flag, define_data_root, load_config
from xlmr_flax.util.secrets import command_line


def define_flags(values: flags.FlagValues) -> None:
    define_config_flag(values)
    define_data_root(values)
    flags.DEFINE_string('workdir', None, 'Folder that holds everything that both sides write.', flag_values=values)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError, versions

    if not values.workdir:
        raise UsageError('--workdir=DIR is missing')
    config = load_config(values)
    from xlmr_flax.tools.torch.comparison import compare

    command = command_line('xlmr-flax', sys.argv[1:])
    page, tables = compare(config, Path(values.workdir), command, versions())
    print('\n'.join(table.markdown() for table in tables))
    print(f'comparison: {page}')
    return 0
