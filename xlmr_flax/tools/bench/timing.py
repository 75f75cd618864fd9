"""Times the implementations in turn: medians, ratios within each round, peak memory, and the load of the machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np

from xlmr_flax.tools.bench.subject import BenchError, Options, Subject, load_subject
from xlmr_flax.util.children import check_after_signal, with_package
from xlmr_flax.util.stopping import check

REST = 0.3  # seconds between two runs, in which the thread pools of the last run stop spinning
WAIT = 0.2  # seconds between two checks for stop requests
QUIET = 0.08  # cores: a round is quiet if other processes used no more; a higher load changes the median
ENOUGH = 3  # with at least this many quiet rounds, the other rounds are ignored
AGAIN = 3  # runs of a block at most; it is repeated if it compiled a program
PACKAGES = ('jax', 'jaxlib', 'numpy', 'torch', 'transformers')
ALLOCATION = ('GLIBC_TUNABLES', 'LD_PRELOAD', 'MALLOC_ARENA_MAX', 'XLA_FLAGS')


@dataclass(frozen=True)
class Ratio:
    """Our value over theirs: the median, and the lowest and highest value of a round."""

    median: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ratio of two lists of seconds, one value a round: median, lowest and highest of the ratios of the rounds.

    Rounds are paired, because other load in a round slows both sides.
    """
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(median(each), min(each), max(each))


def rate_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ratio of two lists of speeds, one value a round: ratio of the medians, lowest and highest ratio of a round."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(median(ours) / median(theirs), min(each), max(each))


@dataclass
class Measured:
    """Measurements of one implementation.

    seconds, cpu_seconds: of each round. others: cores that other processes kept busy in each round (None: the system
    does not report it). facts: the implementation's own numbers of each round (`subject.Run`). first: seconds of the
    first run, which includes compilation and is not counted. memory: peak bytes of its process. loaded: peak bytes
    before its first run (interpreter, libraries, inputs).
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    others: list[float | None] = field(default_factory=list)
    first: float = 0.0
    memory: int = 0
    loaded: int = 0
    facts: list[dict[str, Any]] = field(default_factory=list)

    def rates(self, rounds: Sequence[int]) -> list[float]:
        """Units per second in each of these rounds."""
        return [self.facts[i]['units'] / self.seconds[i] for i in rounds]


def quiet_rounds(measured: Mapping[str, Measured]) -> list[int]:
    """Indices of the rounds in which other processes disturbed no implementation, as far as the system reports it."""
    rounds = min(len(m.seconds) for m in measured.values())
    return [i for i in range(rounds) if all((m.others[i] or 0) <= QUIET for m in measured.values())]


def counted_rounds(measured: Mapping[str, Measured]) -> list[int]:
    """Indices of the rounds that count for medians: the quiet rounds if there are enough of them, else all."""
    quiet = quiet_rounds(measured)
    return quiet if len(quiet) >= ENOUGH else list(range(min(len(m.seconds) for m in measured.values())))


@dataclass(frozen=True)
class Outcome:
    """Result of a benchmark.

    The first entry of `measured` is ours; `ratios` has the others. left_out: name -> reason. unit: `UNIT` of the
    subject. rounds: indices of the rounds that medians and ratios count. peak_flops: peak FLOP/s of the accelerator,
    0 = none or unknown. settings: variables of the allocator and of XLA, the same for every implementation.
    """

    subject: str
    title: str
    options: dict[str, Any]
    agreement: str
    measured: dict[str, Measured]
    ratios: dict[str, Ratio]
    left_out: dict[str, str]
    threads: str
    machine: dict[str, str]
    unit: str = ''
    rounds: list[int] = field(default_factory=list)
    peak_flops: float = 0.0
    settings: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + '\n'


class Worker:
    """Starts the process of an implementation and talks to it over pipes."""

    def __init__(self, subject: str, name: str, options: Options, folder: Path, threads: int):
        environment = child_environment(threads) | dict(load_subject(subject).environment(options))
        self._name, self._log = name or 'inputs', folder / f'{name or "inputs"}.log'
        arguments = [
            '-m',
            'xlmr_flax.tools.bench.worker',
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
                start_new_session=True,  # a terminal's Ctrl-C reaches the parent process alone
            )
        try:
            self.ready = self._answer()
        except BaseException:
            self.__exit__()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while not select.select([self._process.stdout], [], [], WAIT)[0]:
            check()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            check_after_signal(code)
            lines = self._log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
            raise BenchError(
                f'bench: {self._name} stopped with exit code {code}: {lines[-1] if lines else "no message"}'
            )
        return json.loads(line)

    def run(self) -> dict[str, Any]:
        """Runs the implementation once; returns {'seconds', 'cpu_seconds', 'others', 'memory', 'facts'}."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write('run\n')
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has stopped; _answer raises the error
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def installed(package: str) -> bool:
    """Whether a package can be imported; '' always can."""
    return not package or importlib.util.find_spec(package) is not None


def child_environment(threads: int) -> dict[str, str]:
    """Environment variables of a benchmark process."""
    return with_package(os.environ) | {'OMP_NUM_THREADS': str(threads)}


def bench(
    subject: str,
    options: Options,
    *,
    alternations: int = 3,
    threads: int = 0,
    say: Callable[[str], None] = lambda line: None,
    sides: Sequence[str] = (),
) -> Outcome:
    """Runs every implementation of a subject once, compares their results, then times them in turn.

    alternations: number of rounds; each round runs every implementation once, starting with a different one. threads:
    cores of each implementation, 0 = all that this process may use. sides: implementations to run besides ours, () =
    all. Raises BenchError if an implementation stops or computes another result, and Stopped; no process is left
    running.
    """
    if alternations < 1:
        raise BenchError(f'{alternations} alternations: at least one is needed')
    module, threads = load_subject(subject), cores(threads)
    left_out = _left_out(module, options, sides)
    names = [name for name in module.IMPLEMENTATIONS if name not in left_out]
    measured = {name: Measured() for name in names}
    with tempfile.TemporaryDirectory(prefix='xlmr-bench-') as temporary, ExitStack() as stack:
        folder = Path(temporary)
        with Worker(subject, '', options, folder, threads):
            say('inputs made')
        workers: dict[str, Worker] = {}
        for name in names:
            say(f'{name}: first run')
            workers[name] = worker = stack.enter_context(Worker(subject, name, options, folder, threads))
            measured[name].first, measured[name].loaded = worker.run()['seconds'], worker.ready['memory']
        agreement = module.check(options, folder, {name: dict(np.load(folder / f'{name}.npz')) for name in names})
        for count in range(alternations):
            for name in names[count % len(names) :] + names[: count % len(names)]:
                _round(workers[name], measured[name])
                say(_line(name, measured[name], f'round {count + 1} of {alternations}', module.UNIT))
        pinned = all(worker.ready['pinned'] for worker in workers.values())
    rounds = counted_rounds(measured)
    return Outcome(
        subject=subject,
        title=module.title(options),
        options=dict(options),
        agreement=agreement,
        measured=measured,
        ratios=_ratios(measured, rounds, module.UNIT),
        left_out={name: why for name, why in left_out.items() if why},
        threads=f'{threads} of {usable_cores()} cores for each implementation'
        if pinned
        else f'{threads} threads; XLA uses every core, because this system cannot restrict a process to some of them',
        machine=machine(),
        unit=module.UNIT,
        rounds=rounds,
        peak_flops=options.get('peak_flops', 0.0),
        settings=allocation(module.environment(options)),
    )


def _left_out(module: Subject, options: Options, sides: Sequence[str]) -> dict[str, str]:
    """Implementations that are left out: name -> reason, '' for those that `sides` does not name."""
    ours, *others = module.IMPLEMENTATIONS
    for name in sides:
        if name not in module.IMPLEMENTATIONS:
            raise BenchError(f'no side {name!r}; there are: {", ".join(module.IMPLEMENTATIONS)}')
    found = {}
    for name in others:
        implementation = module.IMPLEMENTATIONS[name]
        if sides and name not in sides:
            found[name] = ''
        elif not installed(implementation.needs):
            found[name] = f'{implementation.needs} is not installed'
        elif why := implementation.refuses(options):
            found[name] = why
    if why := module.IMPLEMENTATIONS[ours].refuses(options):
        raise BenchError(why)
    return found


def _round(worker: Worker, into: Measured) -> None:
    """Times one block and records it; repeats the block if it compiled a program."""
    for _ in range(AGAIN):
        time.sleep(REST)
        values = worker.run()
        if not values['facts'].get('compiled'):
            break
    for key in ('seconds', 'cpu_seconds', 'others', 'facts'):
        getattr(into, key).append(values[key])
    into.memory = values['memory']


def _line(name: str, measured: Measured, where: str, unit: str) -> str:
    others, rate = measured.others[-1], f', {measured.rates([-1])[0]:.1f} {unit}/s' if unit else ''
    disturbed = f'  (others kept {others:.2f} cores busy)' if others is not None and others > QUIET else ''
    return f'{name}: {where}, {measured.seconds[-1]:.3f} s{rate}{disturbed}'


def _ratios(measured: Mapping[str, Measured], rounds: Sequence[int], unit: str) -> dict[str, Ratio]:
    ours, *others = measured
    if unit:
        return {name: rate_ratio(measured[ours].rates(rounds), measured[name].rates(rounds)) for name in others}
    seconds = {name: [m.seconds[i] for i in rounds] for name, m in measured.items()}
    return {name: ratio(seconds[ours], seconds[name]) for name in others}


def allocation(more: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of the allocator and of XLA that are set for every implementation."""
    variables = {name: {**os.environ, **more}.get(name, '') for name in ALLOCATION}
    return {name: value for name, value in variables.items() if value}


def cores(threads: int) -> int:
    """Number of cores for `threads` (0 = all that this process may use). Raises BenchError if there are fewer."""
    available = usable_cores()
    if not 0 <= threads <= available:
        raise BenchError(f'{threads} threads: this process may use {available} core(s)')
    return threads or available


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def machine() -> dict[str, str]:
    """Processor, operating system and package versions, for the report."""
    facts = {'system': platform.platform(), 'python': platform.python_version(), 'processor': platform.processor()}
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        facts['processor'] = next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        pass
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts
