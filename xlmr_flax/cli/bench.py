"""usage: xlmr-flax bench SUBJECT [--alternations=N] [--threads=N] [--out=DIR] [--rows=N] [--dim=N]

Measures time and memory against other implementations, in turn and in one call, after checking that all of them compute
the same. Subjects:
  retrieval   exact nearest neighbours both ways (--rows vectors of --dim numbers a side): torch, faiss-cpu
Prints Markdown; --out keeps it as DIR/SUBJECT.md, with every single time in DIR/SUBJECT.json. Implementations that are
not installed are left out (pip install 'xlmr-flax[bench]' brings them).
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

ARGUMENTS = 1  # the subject


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer('alternations', 3, 'Rounds; every contestant runs once in each.', flag_values=values)
    flags.DEFINE_integer('threads', 0, 'Cores for each contestant; 0 = all there are.', flag_values=values)
    flags.DEFINE_string('out', None, 'Keep the outcome in this folder.', flag_values=values)
    flags.DEFINE_integer('rows', 30_000, 'retrieval: vectors a side.', flag_values=values)
    flags.DEFINE_integer('dim', 768, 'retrieval: numbers of a vector.', flag_values=values)


def run(values: flags.FlagValues, subject: str = '') -> int:
    from xlmr_flax.bench import SUBJECTS
    from xlmr_flax.bench.report import to_markdown
    from xlmr_flax.bench.subject import BenchError
    from xlmr_flax.bench.timing import bench
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.eval.files import write_atomic
    from xlmr_flax.eval.mining import NEIGHBOURS
    from xlmr_flax.tasks.base import closest

    if not subject:
        raise UsageError(f'the subject is missing: xlmr-flax bench {"|".join(SUBJECTS)}')
    if subject not in SUBJECTS:
        raise UsageError(f'unknown bench subject {subject!r}{closest(subject, SUBJECTS)}')
    options = {'rows': values.rows, 'dim': values.dim, 'k': NEIGHBOURS, 'seed': 0}
    try:
        outcome = bench(
            subject,
            options,
            alternations=values.alternations,
            threads=values.threads,
            say=lambda line: print(line, file=sys.stderr),
        )
    except BenchError as e:
        raise UsageError(str(e)) from None
    text = to_markdown(outcome)
    if values.out:
        write_atomic(Path(values.out) / f'{subject}.json', outcome.to_json())
        write_atomic(Path(values.out) / f'{subject}.md', text)
    print(text)
    return 0
