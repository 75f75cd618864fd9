"""run --devices_a_run: one process for each device of this host, which share a plan.

A small batch does not keep all chips of a slice busy. A plan has many runs, so each chip can train another one. The
processes are those of `--shard=1/N` to `--shard=N/N`, and each sees only its own devices. If the command itself is a
shard of a plan, K/M, they are its N parts: (K-1)N+1 to KN of MN. This process starts them, forwards stop requests and
waits for them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import IO

FLAG = 'devices_a_run'
AUTO = -1
_STOPPED = 143  # exit code of a run that was stopped and has saved its state
_POLL = 0.1  # seconds between two checks of the processes
# Chips of one process -> their arrangement, as libtpu wants it.
_BOUNDS = {1: '1,1,1', 2: '1,2,1', 4: '2,2,1', 8: '2,4,1'}
_FORCED = '--xla_force_host_platform_device_count='
_COUNT = 'import jax; print(jax.default_backend(), jax.local_device_count())'


def host_devices() -> tuple[str, int]:
    """(platform, number of devices) of this host.

    A child process counts them, because a process that has opened a TPU keeps it. Raises OSError.
    """
    done = subprocess.run([sys.executable, '-c', _COUNT], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f'the devices of this host cannot be counted: {done.stderr.strip().splitlines()[-1:]}')
    platform, count = done.stdout.split()[-2:]
    return platform, int(count)


def environment(platform: str, first: int, count: int, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that sees only the devices `first` to `first + count - 1`.

    TPU: the variables of libtpu for several processes on a host (jax.readthedocs.io: FAQ of Cloud TPU, "Running
    multiple JAX processes on a single host"); GPU: CUDA_VISIBLE_DEVICES; CPU: the number of simulated devices.
    """
    env, own = dict(base), range(first, first + count)
    if platform == 'tpu':
        env['TPU_VISIBLE_CHIPS'] = ','.join(map(str, own))
        env['TPU_CHIPS_PER_PROCESS_BOUNDS'] = _BOUNDS[count]
        env['TPU_PROCESS_BOUNDS'] = '1,1,1'
        env['CLOUD_TPU_TASK_ID'] = '0'
        env['TPU_PROCESS_ADDRESSES'] = f'localhost:{8476 + first}'
        env['TPU_PROCESS_PORT'] = str(8476 + first)
    elif platform == 'cpu':
        others = [flag for flag in env.get('XLA_FLAGS', '').split() if not flag.startswith(_FORCED)]
        env['XLA_FLAGS'] = ' '.join([*others, f'{_FORCED}{count}'])
    else:
        known = [name for name in env.get('CUDA_VISIBLE_DEVICES', '').split(',') if name]
        env['CUDA_VISIBLE_DEVICES'] = ','.join(known[i] if known else str(i) for i in own)
    return env


def commands(arguments: Sequence[str], count: int, shard: tuple[int, int] = (1, 1)) -> list[list[str]]:
    """The command of each of `count` processes. arguments: those of this process, without its name. shard: the number
    of this process among those that share the plan, from 1, and how many these are."""
    start, own = [sys.executable, '-m', 'xlmr_flax', *arguments], [f'--{FLAG}=0', '--coordinator=none']
    before, total = (shard[0] - 1) * count, shard[1] * count
    return [[*start, *own, f'--shard={before + i}/{total}'] for i in range(1, count + 1)]


def devices_per_process(asked: int, runs: int, platform: str, count: int) -> int:
    """Number of devices of each process; 0 = this process runs the plan with all devices.

    asked: the value of the flag; AUTO = one device for each process if the plan has at least two runs for each device.
    count: number of devices. Raises ValueError for a number that does not divide it.
    """
    if asked == AUTO:
        return 1 if platform != 'cpu' and count > 1 and runs >= 2 * count else 0
    if asked < 0 or (asked and count % asked) or (platform == 'tpu' and asked and asked not in _BOUNDS):
        known = ', '.join(str(n) for n in _BOUNDS if count % n == 0)
        raise ValueError(f'{asked} devices do not divide the {count} of this host; expected one of {known}')
    return 0 if asked == count else asked


def run_processes(
    arguments: Sequence[str], platform: str, count: int, each: int, shard: tuple[int, int] = (1, 1)
) -> int:
    """Starts a process for each group of `each` devices and waits for all of them. shard: as in `commands`.

    A stop request is forwarded to them; after it, no further process is started. Returns the exit code: 0, that of a
    process that failed, or 143 if one was stopped.
    """
    started: list[subprocess.Popen[str]] = []
    readers: list[threading.Thread] = []
    requests: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        requests.append(number)  # only noted: a process that has just been started may not be in the list yet

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for i, command in enumerate(commands(arguments, count // each, shard)):
            if requests:
                break
            process = _start(command, environment(platform, i * each, each, os.environ))
            started.append(process)
            assert process.stdout is not None
            reader = threading.Thread(target=_print_lines, args=(process.stdout, i + 1), daemon=True)
            reader.start()
            readers.append(reader)
        passed_on = 0
        while any(process.poll() is None for process in started):
            if len(requests) > passed_on:
                passed_on += 1
                for process in started:
                    process.send_signal(signal.SIGTERM)
            time.sleep(_POLL)
        for reader in readers:
            reader.join(timeout=5)  # a grandchild may hold the pipe open
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    codes = [process.returncode for process in started]
    failed = [code for code in codes if code not in (0, _STOPPED)]
    if failed:
        return failed[0] if failed[0] > 0 else 128 - failed[0]
    return _STOPPED if _STOPPED in codes or len(started) < count // each else 0


def _start(command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    """Starts a process in a session of its own, so that Ctrl-C in a terminal reaches it once, through this process."""
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        start_new_session=True,
    )


def _print_lines(lines: IO[str], number: int) -> None:
    """Prints the lines of a process with its number, until its output ends."""
    with lines:
        for line in lines:
            print(f'[{number}] {line}', end='', flush=True)
