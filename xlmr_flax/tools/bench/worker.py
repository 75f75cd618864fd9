"""Runs one implementation in a separate process, so that it shares no memory, thread pools or libraries.

`python -m xlmr_flax.tools.bench.worker SUBJECT IMPLEMENTATION FOLDER THREADS OPTIONS` runs the implementation once
after each line on standard input and answers with one line of JSON. With the implementation '' it writes the subject's
inputs into FOLDER and exits.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def use_cores(threads: int) -> bool:
    """Pins this process to `threads` of its cores; returns whether the system supports it.

    Call it before importing libraries: thread pools that are made later, as XLA's, count the cores they may use.
    """
    if not hasattr(os, 'sched_setaffinity'):
        return False
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return True


def busy() -> float | None:
    """CPU seconds of all processes of the machine since it started; None if the system does not report it."""
    try:
        fields = Path('/proc/stat').read_text(encoding='ascii').split('\n', 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf('SC_CLK_TCK')


def own() -> float:
    """CPU seconds (user and system) of this process and of its finished children."""
    import resource

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


class Load:
    """Measures how many cores other processes keep busy, from its creation on."""

    def __init__(self) -> None:
        self._busy, self._own, self._began = busy(), own(), time.perf_counter()

    def others(self) -> float | None:
        """The number of cores that other processes kept busy; None if the system does not report it."""
        later, seconds = busy(), time.perf_counter() - self._began
        if self._busy is None or later is None:
            return None
        return max(0.0, (later - self._busy - own() + self._own) / seconds)


@contextmanager
def error_as_last_line() -> Iterator[None]:
    """Ends the process on an error, which is the last line of its log: the parent process shows that line."""
    try:
        yield
    except Exception as e:
        traceback.print_exc()
        sys.exit(f'{type(e).__name__}: {" ".join(str(e).split())}')


def main(arguments: Sequence[str]) -> None:
    """Runs the worker. It answers on the original standard output; output of libraries goes to standard error."""
    subject, name, folder, threads, options = arguments
    answers = os.fdopen(os.dup(1), 'w', encoding='utf-8')
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    pinned = use_cores(int(threads))
    from xlmr_flax.tools.bench.memory import peak_memory
    from xlmr_flax.tools.bench.subject import load_subject

    module = load_subject(subject)
    if not name:
        module.inputs(json.loads(options), Path(folder))
        answer(pinned=pinned, memory=peak_memory())
        return
    run = module.IMPLEMENTATIONS[name].prepare(json.loads(options), Path(folder))
    answer(pinned=pinned, memory=peak_memory())
    for count, _ in enumerate(sys.stdin):
        load, used, start = Load(), own(), time.perf_counter()
        outcome = run()
        seconds, used, others = time.perf_counter() - start, own() - used, load.others()
        memory = peak_memory()  # read before the outcome is written, which is not the implementation's work
        if not count:
            import numpy as np

            np.savez(Path(folder) / f'{name}.npz', allow_pickle=False, **outcome)
        facts = getattr(run, 'facts', {})
        answer(seconds=seconds, cpu_seconds=used, others=others, memory=memory, facts=facts)


if __name__ == '__main__':
    with error_as_last_line():
        main(sys.argv[1:])
