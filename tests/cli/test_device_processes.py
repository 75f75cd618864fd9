"""run --devices_a_run: processes of one command that see their own devices and share the plan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import simulated_devices
from absl import flags

from xlmr_flax.cli import device_processes
from xlmr_flax.cli import run as cli_run
from xlmr_flax.cli.device_processes import AUTO, commands, devices_per_process, environment, run_processes
from xlmr_flax.cli.main import UsageError
from xlmr_flax.config.flag import load_config

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.py'


def parsed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> flags.FlagValues:
    """The flags of `xlmr-flax run` with a plan of 16 to 31 runs."""
    command = ['xlmr-flax', f'--config={TINY}', '--workdir=w', '--config.seeds=(0, 1, 2, 3)', *arguments]
    monkeypatch.setattr(sys, 'argv', command)
    values = flags.FlagValues()
    cli_run.define_flags(values)
    values(command)
    return values


def test_each_process_sees_its_own_devices() -> None:
    found = [environment('tpu', i, 1, {'A': 'b'}) for i in range(8)]
    assert [env['TPU_VISIBLE_CHIPS'] for env in found] == [str(i) for i in range(8)]
    assert len({env['TPU_PROCESS_PORT'] for env in found}) == 8 and {env['A'] for env in found} == {'b'}
    assert {(env['TPU_CHIPS_PER_PROCESS_BOUNDS'], env['TPU_PROCESS_BOUNDS']) for env in found} == {('1,1,1', '1,1,1')}
    assert environment('tpu', 4, 4, {})['TPU_VISIBLE_CHIPS'] == '4,5,6,7'
    assert environment('gpu', 2, 2, {})['CUDA_VISIBLE_DEVICES'] == '2,3'
    assert environment('gpu', 1, 1, {'CUDA_VISIBLE_DEVICES': '5,7'})['CUDA_VISIBLE_DEVICES'] == '7'
    flags = {'XLA_FLAGS': '--xla_a=1 --xla_force_host_platform_device_count=8'}
    assert environment('cpu', 0, 2, flags)['XLA_FLAGS'] == '--xla_a=1 --xla_force_host_platform_device_count=2'


def test_commands_share_the_plan() -> None:
    found = commands(['run', '--config=c.py', '--devices_a_run=1', '--workdir=w'], 2)
    end = ['run', '--config=c.py', '--devices_a_run=1', '--workdir=w', '--devices_a_run=0', '--coordinator=none']
    assert [command[1:] for command in found] == [['-m', 'xlmr_flax', *end, f'--shard={i}/2'] for i in (1, 2)]
    assert [command[-1] for command in commands([], 2, (3, 4))] == ['--shard=5/8', '--shard=6/8']


@pytest.mark.parametrize(
    ('arguments', 'count', 'called'),
    [
        (('--devices_a_run=1', '--shard=2/3'), 2, (2, 1, (2, 3))),
        (('--devices_a_run=2',), 4, (4, 2, (1, 1))),
        ((f'--devices_a_run={AUTO}',), 8, (8, 1, (1, 1))),
        ((f'--devices_a_run={AUTO}', '--shard=1/2'), 4, (4, 1, (1, 2))),
        ((f'--devices_a_run={AUTO}', '--shard=1/2'), 8, None),  # too few runs for all devices of both shards
        ((f'--devices_a_run={AUTO}', '--num_processes=2'), 2, None),
        ((f'--devices_a_run={AUTO}', '--workdir=gs://b/w'), 2, None),
    ],
)
def test_a_plan_is_divided_among_shards_and_devices(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], count: int, called: tuple[object, ...] | None
) -> None:
    """called: devices of the host, devices of a process and the shard, None if one process is to run the shard."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(cli_run, 'host_devices', lambda: ('tpu', count))
    monkeypatch.setattr(cli_run, 'run_processes', lambda _, platform, *rest: calls.append(rest) or 7)
    values = parsed(monkeypatch, *arguments)
    code = cli_run._in_processes(values, load_config(values))
    assert (code, calls) == ((7, [called]) if called else (None, []))


@pytest.mark.parametrize('other', ['--num_processes=2', '--workdir=gs://b/w'])
def test_processes_that_cannot_share_a_plan_are_refused(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    values = parsed(monkeypatch, '--devices_a_run=1', other)
    with pytest.raises(UsageError, match='--devices_a_run: not with'):
        cli_run._in_processes(values, load_config(values))


@pytest.mark.parametrize(
    ('asked', 'runs', 'platform', 'count', 'each'),
    [
        (1, 1, 'tpu', 8, 1),
        (4, 1, 'tpu', 8, 4),
        (8, 1, 'tpu', 8, 0),
        (AUTO, 100, 'tpu', 8, 1),
        (AUTO, 15, 'tpu', 8, 0),
        (AUTO, 100, 'tpu', 1, 0),
        (AUTO, 100, 'cpu', 8, 0),
    ],
)
def test_devices_of_a_process(asked: int, runs: int, platform: str, count: int, each: int) -> None:
    assert devices_per_process(asked, runs, platform, count) == each


@pytest.mark.parametrize(('asked', 'platform', 'count'), [(3, 'gpu', 8), (-2, 'gpu', 8), (3, 'tpu', 6)])
def test_a_number_that_does_not_divide_is_refused(asked: int, platform: str, count: int) -> None:
    with pytest.raises(ValueError, match='do not divide'):
        devices_per_process(asked, 1, platform, count)


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def made(codes: tuple[int, ...]) -> int:
        text = 'import os, sys; print("shard", os.environ["XLA_FLAGS"]); sys.exit(int(sys.argv[1]))'
        monkeypatch.setattr(
            device_processes, 'commands', lambda a, n, shard: [[sys.executable, '-c', text, str(c)] for c in codes]
        )
        return run_processes([], 'cpu', len(codes), 1)

    monkeypatch.delenv('XLA_FLAGS', raising=False)
    assert made((0, 0)) == 0
    assert made((0, 143)) == 143
    assert made((143, 1, 0)) == 1
    assert '[2] shard --xla_force_host_platform_device_count=1' in capfd.readouterr().out


SLEEPER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print('ready', flush=True)
time.sleep(60)
"""


def test_a_stop_request_reaches_every_process_and_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request comes after the second of three starts, before the process is in the list."""
    started, start = [], device_processes._start

    def stopping(command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
        process = start(command, env)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == 'ready\n'
        if len(started) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(device_processes, '_start', stopping)
    monkeypatch.setattr(device_processes, 'commands', lambda a, n, shard: [[sys.executable, '-c', SLEEPER]] * n)
    handler = signal.getsignal(signal.SIGTERM)
    assert run_processes([], 'cpu', 3, 1) == 143
    assert [process.returncode for process in started] == [143, 143]
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
def test_two_simulated_devices_share_a_plan(tmp_path: Path) -> None:
    env = simulated_devices.environment(2)
    command = [
        sys.executable,
        '-m',
        'xlmr_flax',
        'run',
        f'--config={TINY}',
        f'--workdir={tmp_path}',
        '--devices_a_run=1',
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '2 processes with 1 of 2 devices each share the plan' in done.stdout + done.stderr
    assert (tmp_path / 'results.jsonl').read_text().count('\n') > 3
    shards = {path.read_text().split('"shard": "')[1][:3] for path in (tmp_path / 'claims').glob('*.json')}
    assert shards == {'1/2', '2/2'}
