"""A process for tests to kill: downloads required files of the small world. TABLE ADDRESS ROOT."""

from __future__ import annotations

import sys
from pathlib import Path

from download.small_world import using

from xlmr_flax.data.split import Split
from xlmr_flax.download.fetch import Transport
from xlmr_flax.download.job import Job, fetch_all, locked
from xlmr_flax.download.plan import make_plan
from xlmr_flax.download.records import Records
from xlmr_flax.tasks import all_tasks

TASKS = ('xnli', 'panx', 'mlqa', 'tydiqa', 'anli', 'udpos', 'xcopa', 'xquad', 'bucc2018', 'fracas', 'americasnli')


def main() -> None:
    table, address, root = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    with using(table), locked(root):
        wants = [
            Split(all_tasks()[name], 'en' if split == 'train' else code, split, root)
            for name in TASKS
            for split, code in _splits(name)
        ]
        records = Records(root)
        job = Job(root, records, Transport(address))
        print('begins', flush=True)
        fetch_all(lambda failed: make_plan(wants, root, records, failed=failed), job)
        assert not job.outcome.failed, job.outcome.failed


def _splits(name: str) -> list[tuple[str, str]]:
    task = all_tasks()[name]
    return [(split, code) for split in task.splits if split not in task.translated for code in task.languages]


main()
