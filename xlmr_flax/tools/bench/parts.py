"""Benchmarks without a comparison: the parts of the input pipeline, and the start of a training run.

Each measurement runs in a separate process.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xlmr_flax.tools.bench import settings
from xlmr_flax.tools.bench.subject import BenchError, Options
from xlmr_flax.tools.bench.timing import allocation, child_environment, cores, machine
from xlmr_flax.util.children import run_child

ENOUGH = 0.25  # the largest share of the first start's compilation time that the second start may take


def measure(subject: str, options: Options, *, threads: int, say: Callable[[str], None]) -> tuple[str, str]:
    """Measures 'pipeline' or 'startup'; returns (Markdown, JSON). Raises BenchError and Stopped."""
    threads = cores(threads)
    with tempfile.TemporaryDirectory(prefix='xlmr-bench-') as temporary:
        folder, measured = Path(temporary), []
        for number in range(2 if subject == 'startup' else 1):
            more = {'XLMR_CACHE': str(folder / 'tokens')}
            if subject == 'startup':
                more['JAX_COMPILATION_CACHE_DIR'] = str(folder / 'programs')
            say(f'{subject}: {"first start" if subject == "startup" and not number else "running"}')
            measured.append(_child(subject, options, folder / str(number), threads, more))
    environment = settings.environment(options)
    outcome = {
        'subject': subject, 'options': dict(options), 'found': measured, 'machine': machine(),
        'threads': threads, 'settings': allocation(environment),
    }  # fmt: skip
    text = (_startup if subject == 'startup' else _pipeline)(options, measured, threads)
    lines = [text, '', '; '.join(f'{key} {value}' for key, value in machine().items() if value), '']
    return '\n'.join(lines), json.dumps(outcome, indent=2) + '\n'


def _child(
    subject: str, options: Options, folder: Path, threads: int, environment: Mapping[str, str]
) -> dict[str, Any]:
    folder.mkdir()
    out, log = folder / 'measured.json', folder / 'log'
    arguments = ['-m', f'xlmr_flax.tools.bench.{subject}', str(folder), str(threads), json.dumps(dict(options))]
    with log.open('w') as stream:
        began = {START: str(time.time())}
        code = run_child(
            [sys.executable, *arguments],
            {**child_environment(threads), **settings.environment(options), **environment, **began},
            stream,
        )
    if code or not out.is_file():
        lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
        raise BenchError(f'bench {subject} stopped with exit code {code}: {lines[-1] if lines else ""}')
    return json.loads(out.read_text(encoding='utf-8'))


START = 'XLMR_BENCH_STARTED'  # environment variable: start time of a child process, seconds since 1970


def started() -> float:
    """Time at which `measure` started this process, as time.time() gives it."""
    return float(os.environ.get(START) or time.time())


def _head(options: Options, what: str, threads: int) -> list[str]:
    config = options['config']
    where = f'{config["encoder"]["source"]}, {options["task"]}, {options["device_name"]}, {threads} cores'
    return [f'# {what}: {where}', '']


def _pipeline(options: Options, measured: list[dict[str, Any]], threads: int) -> str:
    (values,) = measured
    lines = _head(options, 'Input pipeline', threads)
    lines += ['| | examples | seconds | examples/s |', '|---|---:|---:|---:|']
    for name, part in values['parts'].items():
        speed = part['examples'] / max(part['seconds'], 1e-9)
        lines.append(f'| {name} | {part["examples"]:,} | {part["seconds"]:.3f} | {speed:,.0f} |')
    need, made = (_speed(values['parts'][name]) for name in ('training step', 'batches'))
    lines += [
        '',
        f'Making a batch takes {100 * need / made:.2f} % of the time of a step: a step '
        f'{made / need:,.0f} times as fast could be fed. Tokens are made once and kept; tokenizing for this step as it '
        f'goes would take {need / _speed(values["parts"]["tokenizing"]):.3f} of what these cores can do.',
    ]
    lines += [f'{note}.' for note in values['notes']] + [_busy(values)]
    return '\n'.join(lines)


def _speed(part: Mapping[str, float]) -> float:
    return part['examples'] / max(part['seconds'], 1e-9)


def _startup(options: Options, measured: list[dict[str, Any]], threads: int) -> str:
    first, second = measured
    lines = _head(options, 'Start of a training', threads)
    lines += ['| seconds | first start | second start |', '|---|---:|---:|']
    for name in first['parts']:
        lines.append(f'| {name} | {first["parts"][name]:.2f} | {second["parts"].get(name, 0.0):.2f} |')
    spent = [each['parts'][COMPILING] for each in measured]
    share = spent[1] / max(spent[0], 1e-9)
    verdict = 'below' if share < ENOUGH else '**not below**'
    lines += [
        '',
        f'To the end of {first["steps"]} steps of {first["examples"]} examples, with {first["programs"]} and '
        f'{second["programs"]} programs compiled or fetched. The first start found no compiled programs and no tokens, '
        f"the second those of the first. Its compilation took {100 * share:.0f} % of the first's, {verdict} "
        f'{100 * ENOUGH:.0f} %. Parts are of the whole; the lines with an arrow are within the line above them.',
        _busy(first, second),
    ]
    return '\n'.join(lines)


COMPILING = '→ compiling, or fetching compiled programs'


def _busy(*measured: Mapping[str, Any]) -> str:
    known = [each['others'] for each in measured if each['others'] is not None]
    if not known:
        return 'This system does not report the load of other processes.'
    return f'Other processes kept {max(known):.2f} cores busy meanwhile.'
