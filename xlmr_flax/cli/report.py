"""usage: xlmr-flax report --workdir=DIR [--against=PREDICTIONS] | --results=DIR

Writes the tables (Markdown, CSV, LaTeX), figures and the self-contained HTML page of a workdir again, from its
results.jsonl, metrics.jsonl and config.json.
--against instead compares the predictions of DIR with a folder of XTREME predictions (PREDICTIONS/TASK/test-LANG.EXT)
of any system. It prints the scores per language, the difference and a paired bootstrap test, and writes them to
DIR/report/against-NAME.md and .json. The folder needs predictions for the rows on which DIR was scored; if these are
the first rows of the split, it may have predictions for all rows. A language without a file is an error;
--allow_missing skips it.
--results writes tables, effects by language and their figures into a folder with results.jsonl and, optionally,
config.json, tokens_per_word.json and significance.json of a workdir. It needs neither data nor a run.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string('workdir', None, 'Workdir of a run.', flag_values=values)
    flags.DEFINE_string(
        'against', None, "Compare with this folder of predictions in XTREME's layout.", flag_values=values
    )
    flags.DEFINE_string('results', None, 'Folder with a results.jsonl, instead of a workdir.', flag_values=values)
    flags.DEFINE_bool('allow_missing', False, 'with --against: leave out languages without a file.', flag_values=values)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError, versions

    if bool(values.workdir) == bool(values.results):
        raise UsageError('exactly one of --workdir=DIR and --results=DIR is needed')
    if values.results:
        from xlmr_flax.analysis.study_report import write_results_report

        if values.against or values.allow_missing:
            raise UsageError('--against goes with --workdir=DIR')
        print(write_results_report(Path(values.results)))
        return 0
    if values.allow_missing and not values.against:
        raise UsageError('--allow_missing goes with --against=DIR')
    from xlmr_flax.analysis.study_report import write_report_again
    from xlmr_flax.experiment.workdir.object_store import opened

    with opened(values.workdir) as workdir:
        if values.against:
            from xlmr_flax.analysis.against import against

            print(against(workdir, Path(values.against), allow_missing=values.allow_missing))
        else:
            print(write_report_again(workdir, versions()))
    return 0
