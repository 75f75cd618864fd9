"""usage: xlmr-flax report --workdir=DIR

Makes the tables (Markdown, CSV, LaTeX), figures and the self-contained HTML page of a workdir again, from its
results.jsonl, metrics.jsonl and config.json.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string('workdir', None, 'Workdir of a run.', flag_values=values)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError, versions
    from xlmr_flax.experiment.reporting import write_report_again

    if not values.workdir:
        raise UsageError('--workdir=DIR is missing')
    print(write_report_again(Path(values.workdir), versions()))
    return 0
