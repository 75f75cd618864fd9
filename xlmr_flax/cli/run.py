"""usage: xlmr-flax run --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Trains and evaluates what the config's plan asks for and DIR lacks, then writes DIR/results.jsonl, DIR/metrics.jsonl,
DIR/predictions/ and DIR/report/index.html. Started again, it finishes what is missing and repeats nothing.
A config file may take an argument: --config=FILE:ARGUMENT. --config.KEY=VALUE overrides one field.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags


def define_flags(values: flags.FlagValues) -> None:
    config_flags.DEFINE_config_file('config', None, 'Config file: a Python file with get_config().', flag_values=values)
    flags.DEFINE_string('workdir', None, 'Folder that holds everything the run writes.', flag_values=values)


def load_config(values: flags.FlagValues) -> Any:
    """The parsed config of --config with its overrides. Raises UsageError, ConfigError."""
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.config import parse

    if values.config is None:
        raise UsageError('--config=FILE is missing')
    raw = values.config
    return parse(raw.to_dict() if isinstance(raw, ConfigDict) else raw)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError, versions

    if not values.workdir:
        raise UsageError('--workdir=DIR is missing')
    config = load_config(values)
    from xlmr_flax.experiment.reporting import write_run_report
    from xlmr_flax.experiment.runner import Runner

    command = f'xlmr-flax {shlex.join(sys.argv[1:])}'
    runner = Runner(config, Path(values.workdir), command)
    runner.run()
    print(write_run_report(runner, versions()))
    return 0
