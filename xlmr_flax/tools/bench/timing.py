"""Contestants timed in turn: medians, ratios within each round, peak memory, and how busy the machine was."""

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
from xlmr_flax.util.children import hear_signals
from xlmr_flax.util.stopping import check

REST = 0.3  # seconds between two runs: thread pools of the last one stop spinning
WAIT = 0.2  # seconds between two looks at stop requests
QUIET = 0.08  # of a core, by other processes: more than that moves a median
ENOUGH = 3  # quiet rounds, with which the others are left out
AGAIN = 3  # times that a block is repeated because a program was compiled in it
PACKAGES = ('jax', 'jaxlib', 'numpy', 'torch', 'faiss-cpu', 'transformers')
ALLOCATION = ('GLIBC_TUNABLES', 'LD_PRELOAD', 'MALLOC_ARENA_MAX', 'XLA_FLAGS')


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs: the median, and the lowest and highest of a round."""

    median: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Of two lists of seconds, one a round: the median, lowest and highest of each round's ratio. Rounds are paired: a
    machine that is busy for one round slows both."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(median(each), min(each), max(each))


def rate_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Of two lists of speeds, one a round: the ratio of the medians, and the lowest and highest of each round's."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(median(ours) / median(theirs), min(each), max(each))


@dataclass
class Measured:
    """One contestant. seconds, cpu_seconds: of each round; others: cores that other processes kept busy meanwhile
    (None: the system does not tell); facts: what it said itself of each round (`subject.Run`); first: seconds of the
    untimed first run (compilation); memory: peak bytes of its process; loaded: those before its first run (interpreter,
    libraries, inputs).
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    others: list[float | None] = field(default_factory=list)
    first: float = 0.0
    memory: int = 0
    loaded: int = 0
    facts: list[dict[str, Any]] = field(default_factory=list)

    def rates(self, rounds: Sequence[int]) -> list[float]:
        """Units a second in these rounds."""
        return [self.facts[i]['units'] / self.seconds[i] for i in rounds]


def quiet_rounds(measured: Mapping[str, Measured]) -> list[int]:
    """The rounds in which other processes disturbed nobody, as far as the system tells."""
    rounds = min(len(m.seconds) for m in measured.values())
    return [i for i in range(rounds) if all((m.others[i] or 0) <= QUIET for m in measured.values())]


def counted_rounds(measured: Mapping[str, Measured]) -> list[int]:
    """The rounds that medians are taken over: the quiet ones where there are enough of them, else all."""
    found = quiet_rounds(measured)
    return found if len(found) >= ENOUGH else list(range(min(len(m.seconds) for m in measured.values())))


@dataclass(frozen=True)
class Outcome:
    """What a bench found; the first of `measured` is ours, `ratios` has the others. left_out: name -> why. unit: see
    the package; rounds: those that medians and ratios are of. peak_flops: of the accelerator, 0 = none or unknown.
    settings: variables of the allocator and of XLA, the same for every contestant."""

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
    """A contestant's process."""

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
                start_new_session=True,  # a terminal's Ctrl-C is a request to this process alone
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
            hear_signals(code)
            said = self._log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
            raise BenchError(f'bench: {self._name} stopped with exit code {code}: {said[-1] if said else "no message"}')
        return json.loads(line)

    def run(self) -> dict[str, Any]:
        """One run: {'seconds', 'cpu_seconds', 'others', 'memory', 'facts'}."""
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


def child_environment(threads: int) -> dict[str, str]:
    """The environment of a process of the bench: this package is found, also where it is not installed."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(p for p in (root, os.environ.get('PYTHONPATH')) if p)
    return os.environ | {'OMP_NUM_THREADS': str(threads), 'PYTHONPATH': path}


def bench(
    subject: str,
    options: Options,
    *,
    alternations: int = 3,
    threads: int = 0,
    say: Callable[[str], None] = lambda line: None,
    sides: Sequence[str] = (),
) -> Outcome:
    """Runs every contestant of a subject once, compares what they computed, then times them in turn.

    alternations: rounds; each round runs every contestant once, beginning with another one. threads: cores for each of
    them, 0 = all that this process may use. sides: contestants to run beside ours, () = all. Raises BenchError where a
    contestant stops or computes something else, and Stopped, with no process left.
    """
    if alternations < 1:
        raise BenchError(f'{alternations} alternations: at least one is needed')
    module, threads = load_subject(subject), cores(threads)
    left_out = _left_out(module, options, sides)
    names = [name for name in module.CONTESTANTS if name not in left_out]
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
        threads=f'{threads} of {usable_cores()} cores for each contestant'
        if pinned
        else f'{threads} threads; XLA uses every core, for this system cannot keep a process to some of them',
        machine=machine(),
        unit=module.UNIT,
        rounds=rounds,
        peak_flops=options.get('peak_flops', 0.0),
        settings=allocation(module.environment(options)),
    )


def _left_out(module: Subject, options: Options, sides: Sequence[str]) -> dict[str, str]:
    """name -> why, '' for those that were not asked for."""
    ours, *others = module.CONTESTANTS
    for name in sides:
        if name not in module.CONTESTANTS:
            raise BenchError(f'no side {name!r}; there are: {", ".join(module.CONTESTANTS)}')
    found = {}
    for name in others:
        contestant = module.CONTESTANTS[name]
        if sides and name not in sides:
            found[name] = ''
        elif not installed(contestant.needs):
            found[name] = f'{contestant.needs} is not installed'
        elif why := contestant.refuses(options):
            found[name] = why
    if why := module.CONTESTANTS[ours].refuses(options):
        raise BenchError(why)
    return found


def _round(worker: Worker, into: Measured) -> None:
    """One timed block; again where a program was compiled in it."""
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
    """The settings of the allocator and of XLA that every contestant gets."""
    found = {name: {**os.environ, **more}.get(name, '') for name in ALLOCATION}
    return {name: value for name, value in found.items() if value}


def cores(threads: int) -> int:
    """`threads`, 0 = all that this process may use. Raises BenchError for more."""
    available = usable_cores()
    if not 0 <= threads <= available:
        raise BenchError(f'{threads} threads: this process may use {available} core(s)')
    return threads or available


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
