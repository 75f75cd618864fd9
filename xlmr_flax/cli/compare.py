"""usage: xlmr-flax compare --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Runs the same experiment in JAX and in PyTorch (transformers' XLM-R, fused AdamW, SDPA) with the same weights, batches
and recipe. Compares losses, scores per language (with a paired bootstrap test) and time. DIR is the workdir of our run,
as of `xlmr-flax run` (finished runs are reused). DIR/torch has the PyTorch run, and DIR/compare/ the results:
index.html, compare.md and compare.json. Needs torch (pip install -e '.[torch]' in the checkout). The PyTorch side
trains pair, choice, span and tag heads, also in intermediate mixtures, and scores retrieval. It does not support masked
language modelling or the selection of checkpoints by dev scores.
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
