"""usage: xlmr-flax score --predictions=DIR --labels=DIR [--benchmark=NAME] [--tasks=a,b] [--out=FILE.json]
       xlmr-flax score --predictions=DIR --data_root=DIR [--benchmark=NAME] [--tasks=a,b] [--out=FILE.json]

Scores prediction folders in XTREME's submission layout (TASK/test-LANG.EXT) as the benchmark's evaluate.py does,
against gold files in the same layout (--labels) or against the test files of a data root (--data_root), which are read
as `run` reads them. docs/layout.md has the files of each task. Prints Markdown; --out writes the scores as JSON. A task
without predictions or labels is not scored, and a warning names it; for a task in --tasks this is an error. Benchmarks:
xtreme, xtreme-r, sib200, irokobench (its inference part) and low-resource, a group of all tasks for low-resource
languages.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string('predictions', None, 'Root of the prediction folders.', flag_values=values)
    flags.DEFINE_string('labels', None, 'Root of the gold folders.', flag_values=values)
    flags.DEFINE_string('data_root', None, 'Root of the data files, in place of --labels.', flag_values=values)
    flags.DEFINE_enum(
        'benchmark',
        'xtreme',
        ['xtreme', 'xtreme-r', 'sib200', 'irokobench', 'low-resource'],
        'Which tasks, languages and averages.',
        flag_values=values,
    )
    flags.DEFINE_list('tasks', [], 'Only these tasks.', flag_values=values)
    flags.DEFINE_bool(
        'allow_missing', False, 'Leave out languages without a file (no task score then).', flag_values=values
    )
    flags.DEFINE_string('out', None, 'Write the scores to this JSON file.', flag_values=values)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.data.readers.paths import resolve_data_root
    from xlmr_flax.scoring.gold import GoldOfDataRoot
    from xlmr_flax.scoring.score import score_folder, to_json, to_markdown, warnings
    from xlmr_flax.util.files import write_atomically

    if not values.predictions:
        raise UsageError('--predictions=DIR is missing')
    if bool(values.labels) == bool(values.data_root):
        given = 'both are given' if values.labels else 'both are missing'
        raise UsageError(f'exactly one of --labels=DIR and --data_root=DIR is needed; {given}')
    labels = values.labels or GoldOfDataRoot(resolve_data_root(values.data_root))
    scores = score_folder(
        values.predictions, labels, values.benchmark, values.tasks or None, allow_missing=values.allow_missing
    )
    if values.out:
        write_atomically(Path(values.out), to_json(scores))
    print(to_markdown(scores))
    for line in warnings(scores):
        print(f'warning: {line}', file=sys.stderr)
    return 0
