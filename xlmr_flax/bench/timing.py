"""Contestants timed in turn: medians, ratios within each round, peak memory, and how busy the machine was."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np

from xlmr_flax.bench.subject import BenchError, Options, load_subject

REST = 0.3  # seconds between two runs: thread pools of the last one stop spinning
PACKAGES = ('jax', 'jaxlib', 'numpy', 'torch', 'faiss-cpu', 'transformers')


@dataclass(frozen=True)
class Ratio:
    """Our seconds over theirs in the same round: the median, the lowest and the highest over the rounds."""

    median: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Of two lists of seconds, one a round. Rounds are paired: a machine that is busy for one round slows both."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(median(each), min(each), max(each))


@dataclass
class Measured:
    """One contestant. seconds, cpu_seconds: of each round; others: cores that other processes kept busy meanwhile
    (None: the system does not tell); first: seconds of the untimed first run (compilation); memory: peak bytes of its
    process; loaded: those before its first run (interpreter, libraries, inputs).
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    others: list[float | None] = field(default_factory=list)
    first: float = 0.0
    memory: int = 0
    loaded: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a bench found; the first of `measured` is ours, `ratios` has the others. left_out: name -> why."""

    subject: str
    title: str
    options: dict[str, Any]
    agreement: str
    measured: dict[str, Measured]
    ratios: dict[str, Ratio]
    left_out: dict[str, str]
    threads: str
    machine: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + '\n'


class Worker:
    """A contestant's process."""

    def __init__(self, subject: str, name: str, options: Options, folder: Path, threads: int):
        environment = os.environ | {'OMP_NUM_THREADS': str(threads)} | dict(load_subject(subject).ENVIRONMENT)
        root = str(Path(__file__).parents[2])  # this package, also where it is not installed
        environment['PYTHONPATH'] = os.pathsep.join(p for p in (root, os.environ.get('PYTHONPATH')) if p)
        self._name, self._log = name, folder / f'{name}.log'
        arguments = [
            '-m',
            'xlmr_flax.bench.worker',
            subject,
            name,
            str(folder),
            str(threads),
            json.dumps(dict(options)),
        ]
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        try:
            self.ready = self._answer()
        except BaseException:
            self.__exit__()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            said = self._log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
            raise BenchError(f'bench: {self._name} stopped with exit code {code}: {said[-1] if said else "no message"}')
        return json.loads(line)

    def run(self) -> dict[str, Any]:
        """One run: {'seconds', 'cpu_seconds', 'others', 'memory'}."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write('run\n')
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has stopped; _answer says how
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def installed(package: str) -> bool:
    """Whether a package can be imported; '' always can."""
    return not package or importlib.util.find_spec(package) is not None


def bench(
    subject: str,
    options: Options,
    *,
    alternations: int = 3,
    threads: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Runs every contestant of a subject once, compares what they computed, then times them in turn.

    alternations: rounds; each round runs every contestant once, beginning with another one. threads: cores for each of
    them, 0 = all that this process may use. Raises BenchError where a contestant stops or computes something else.
    """
    if alternations < 1:
        raise BenchError(f'{alternations} alternations: at least one is needed')
    module, available = load_subject(subject), usable_cores()
    threads = threads or available
    if not 1 <= threads <= available:
        raise BenchError(f'{threads} threads: this process may use {available} core(s)')
    left_out = {n: f'{c.needs} is not installed' for n, c in module.CONTESTANTS.items() if not installed(c.needs)}
    names = [name for name in module.CONTESTANTS if name not in left_out]
    measured = {name: Measured() for name in names}
    with tempfile.TemporaryDirectory(prefix='xlmr-bench-') as temporary, ExitStack() as stack:
        folder = Path(temporary)
        module.inputs(options, folder)
        workers = {name: stack.enter_context(Worker(subject, name, options, folder, threads)) for name in names}
        for name, worker in workers.items():
            say(f'{name}: first run')
            measured[name].first, measured[name].loaded = worker.run()['seconds'], worker.ready['memory']
        agreement = module.check(options, folder, {name: dict(np.load(folder / f'{name}.npz')) for name in names})
        for count in range(alternations):
            for name in names[count % len(names) :] + names[: count % len(names)]:
                time.sleep(REST)
                values, into = workers[name].run(), measured[name]
                for key in ('seconds', 'cpu_seconds', 'others'):
                    getattr(into, key).append(values[key])
                into.memory = values['memory']
                say(f'{name}: round {count + 1} of {alternations}, {values["seconds"]:.3f} s')
        pinned = all(worker.ready['pinned'] for worker in workers.values())
    ours, *others = names
    return Outcome(
        subject=subject,
        title=module.title(options),
        options=dict(options),
        agreement=agreement,
        measured=measured,
        ratios={name: ratio(measured[ours].seconds, measured[name].seconds) for name in others},
        left_out=left_out,
        threads=f'{threads} of {available} cores for each contestant'
        if pinned
        else f'{threads} threads; XLA uses every core, for this system cannot keep a process to some of them',
        machine=machine(),
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def machine() -> dict[str, str]:
    """The processor, the system and the versions that decide speed."""
    found = {'system': platform.platform(), 'python': platform.python_version(), 'processor': platform.processor()}
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        found['processor'] = next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        pass
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
