"""launch/on_host.sh and launch/slurm.sbatch with real processes that live on, are joined, stopped and requeued."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import LAUNCH, ROOT, Fakes, bash, checkout, heeding

# Like xlmr-flax: works until it is told to stop, saves, and ends with 143.
WORKER = """#!/usr/bin/env bash
echo "started in $PWD: $*"
trap 'kill $!; sleep 0.2; echo saved; exit 143' TERM
if [[ $1 == long ]]; then sleep 30 & wait $!; fi
if [[ $1 == slow ]]; then trap 'echo asked' TERM; until [[ -e $2 ]]; do sleep 0.1; done; exit 143; fi
[[ $1 != run ]] || exit 0
exit "${2:-0}"
"""


@pytest.fixture
def host(fakes: Fakes) -> Fakes:
    """A home folder in which the package is installed; the worker stands for xlmr-flax."""
    path = fakes.folder / 'xlmr-flax' / 'venv' / 'bin' / 'xlmr-flax'
    path.parent.mkdir(parents=True)
    path.write_text(WORKER)
    path.chmod(0o755)
    return fakes


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f'{text!r} does not come in {path}'
        time.sleep(0.05)


def child(state: Path) -> int:
    """The process of the command of a run."""
    found = subprocess.run(['ps', '-o', 'pid=', '--ppid', (state / 'pid').read_text()], capture_output=True, text=True)
    return int(found.stdout)


@pytest.mark.parametrize(('code', 'returned'), [(0, 0), (1, 11), (2, 12), (143, 143), (137, 137), (127, 127)])
def test_exit_codes_that_gcloud_cannot_be_the_author_of(host: Fakes, code: int, returned: int):
    result = host.run('on_host.sh', 'run', '--', 'xlmr-flax', 'short', str(code))
    assert result.returncode == returned
    assert result.stdout == f'started in {ROOT}: short {code}\n'
    assert host.run('on_host.sh', 'status').stdout.endswith(f'ended with exit code {code}\n')


def test_a_run_outlives_its_connection_is_joined_and_stopped(host: Fakes):
    state = host.folder / 'xlmr-flax' / 'state' / 'job'
    command = ('run', '--name=job', '--', 'xlmr-flax', 'long')
    environment = os.environ | {'HOME': str(host.folder)}
    # The first starts it, the second joins it; the end of their connections reaches all that is in their sessions.
    for _ in range(2):
        on_host = heeding(bash(), LAUNCH / 'on_host.sh', *command)
        followed = subprocess.Popen(on_host, env=environment, start_new_session=True)
        wait_for(state / 'log', 'started')
        time.sleep(0.5)
        assert followed.poll() is None
        os.killpg(followed.pid, signal.SIGHUP)
        followed.wait(timeout=30)
    os.kill(child(state), 0)
    assert (state / 'log').read_text().count('started') == 1
    assert host.run('on_host.sh', 'alive').returncode == 0
    other = host.run('on_host.sh', 'run', '--name=job', '--', 'xlmr-flax', 'else')
    assert other.returncode == 15
    assert 'job runs another command: xlmr-flax long' in other.stderr
    assert host.run('on_host.sh', 'stop', '--name=job').stdout.endswith('ended with exit code 143\n')
    assert (state / 'log').read_text().endswith('saved\n')
    assert host.run('on_host.sh', 'follow', '--name=job').returncode == 143
    assert host.run('on_host.sh', 'alive').returncode == 1


def test_a_run_is_told_to_stop_once_and_alive_until_it_ends(host: Fakes):
    """A second SIGTERM would end xlmr-flax before it has saved; gcloud repeats a stop whose connection dropped."""
    log, saved = host.folder / 'xlmr-flax' / 'state' / 'run' / 'log', host.folder / 'saved'
    host.run('on_host.sh', 'run', '--detach', '--', 'xlmr-flax', 'slow', str(saved))
    wait_for(log, 'started')
    for _ in range(2):
        stopping = host.run('on_host.sh', 'stop', '--wait=1')
        assert (stopping.returncode, ': runs: xlmr-flax slow' in stopping.stdout) == (14, True)
    saved.touch()
    stopped = host.run('on_host.sh', 'stop')
    assert (stopped.returncode, stopped.stdout.endswith('ended with exit code 143\n')) == (0, True)
    assert log.read_text().count('asked') == 1


def test_a_run_that_still_copies_its_tokens_never_starts_after_a_stop(host: Fakes):
    store, copies = host.folder / 'tokens', host.folder / 'copies'
    (store / 'entry').mkdir(parents=True)
    for name in ('offsets.npy', 'index.json'):
        (store / 'entry' / name).touch()
    slow = host.folder / 'bin' / 'cp'
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ntouch {copies}\nsleep 2\n')
    slow.chmod(0o755)
    caches = {'token_store': str(store), 'XLMR_CACHE': str(host.folder / 'cache')}
    host.run('on_host.sh', 'run', '--detach', '--', 'xlmr-flax', 'short', env=caches)
    wait_for(copies, '')
    stopped = host.run('on_host.sh', 'stop')
    assert (stopped.returncode, stopped.stdout.endswith('ended with exit code 143\n')) == (0, True)
    assert 'started' not in (host.folder / 'xlmr-flax' / 'state' / 'run' / 'log').read_text()


def test_a_run_that_was_killed_is_told_from_one_that_ended(host: Fakes):
    state = host.folder / 'xlmr-flax' / 'state' / 'run'
    host.run('on_host.sh', 'run', '--detach', '--', 'xlmr-flax', 'long')
    wait_for(state / 'log', 'started')
    command = child(state)
    for process in (int((state / 'pid').read_text()), command):
        os.kill(process, signal.SIGKILL)
    result = host.run('on_host.sh', 'follow')
    assert result.returncode == 137
    assert 'killed without leaving an exit code' in result.stderr
    assert host.run('on_host.sh', 'run', '--', 'xlmr-flax', 'short').returncode == 0


def shell(*lines: str, **variables: str) -> str:
    """What bash prints for these lines after launch/caches.sh."""
    clean = {k: v for k, v in os.environ.items() if k not in ('XLMR_CACHE', 'JAX_COMPILATION_CACHE_DIR')}
    text = '\n'.join(['set -euo pipefail', f'source {LAUNCH / "caches.sh"}', *lines])
    done = subprocess.run([bash(), '-c', text], env=clean | variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_cached_comes_from_the_bucket_and_goes_there(tmp_path: Path):
    """Complete entries of tokens alone, both ways; what is there is not copied again."""
    bucket, home = tmp_path / 'bucket', tmp_path / 'home'
    store, local = bucket / 'cache' / 'tokens', home / '.cache' / 'xlmr_flax' / 'tokens'
    for folder, name, is_complete in (
        (store, 'old-1', True), (store, 'half-2', False), (store, 'both-3', True), (local, 'both-3', True),
    ):  # fmt: skip
        (folder / name).mkdir(parents=True)
        (folder / name / 'offsets.npy').write_text(f'{folder}')
        if is_complete:
            (folder / name / 'index.json').write_text('{}')
    keep, home_is = f'keep_caches {bucket}', {'HOME': str(home)}
    shown = shell(keep, 'fetch_tokens', 'echo "$JAX_COMPILATION_CACHE_DIR $XLMR_CACHE"', **home_is)
    assert shown == f'{bucket / "cache" / "jax"} {local}\n'
    assert sorted(path.name for path in local.iterdir()) == ['both-3', 'old-1']
    assert (local / 'both-3' / 'offsets.npy').read_text() == f'{local}'
    (local / '.new-4-tmp').mkdir()  # an entry that a run is writing
    (local / 'new-5').mkdir()
    for name in ('offsets.npy', 'index.json'):
        (local / 'new-5' / name).write_text(name)
    shell(keep, 'sleep 0.5 & store_tokens_while $! 0.2', **home_is)
    assert sorted(path.name for path in store.iterdir()) == ['both-3', 'half-2', 'new-5', 'old-1']
    assert {path.name for path in (store / 'new-5').iterdir()} == {'offsets.npy', 'index.json'}


def test_caches_that_were_chosen_stay_and_no_bucket_changes_nothing(tmp_path: Path):
    show = 'echo "${JAX_COMPILATION_CACHE_DIR:-} ${XLMR_CACHE:-} ${token_store:-}"'
    assert shell("keep_caches ''", 'fetch_tokens', 'store_tokens', show) == '  \n'
    chosen = {'XLMR_CACHE': 'off', 'JAX_COMPILATION_CACHE_DIR': '/programs'}
    assert shell(f'keep_caches {tmp_path}', 'fetch_tokens', show, **chosen) == '/programs off \n'
    assert shell(f'keep_caches {tmp_path}', 'fetch_tokens', 'store_tokens', HOME=str(tmp_path / 'none')) == ''


def test_install_names_what_it_installs(host: Fakes):
    pip = host.dry('on_host.sh', 'install', '--extras=gcs,torch', '--jax=cuda13')[-1]
    assert pip[1:] == ['-m', 'pip', 'install', '-e', '.[gcs,torch]', 'jax[cuda13]']


# gcloud with a folder for a host: the host's shell reads the command, files are copied to the home.
CLOUD = """#!/usr/bin/env bash
for word in "$@"; do case $word in --command=*) command=${word#--command=} ;; esac; done
case "$3 $4" in
  'tpu-vm ssh') cd "$HOST" && exec env HOME="$HOST" bash -c "$command" ;;
  'tpu-vm scp') cp "$5" "$HOST/${6#*:}" ;;
  'tpu-vm describe') echo READY ;;
esac
"""
# A Python of an environment that is there; what would be installed is written down.
PYTHON = """#!/usr/bin/env bash
case $* in
  *'-m pip'*) echo "$*" >> "$HOME/pip" ;;
  *REQUIREMENTS*) echo encoder==1 tokenizer==2 ;;
  *) exec {python} "$@" ;;
esac
"""


def test_a_fake_cloud_from_the_checkout_to_the_end_of_the_run(host: Fakes):
    """tpu_vm.sh for real, but for the TPU: archive, copy, unpack, install, run - and the exit code back."""
    root = checkout(host.folder / 'checkout')
    machine = host.folder / 'machine'
    shutil.move(host.folder / 'xlmr-flax', machine / 'xlmr-flax')
    for path, text in {
        host.folder / 'bin' / 'gcloud': CLOUD,
        machine / 'xlmr-flax' / 'venv' / 'bin' / 'python': PYTHON.format(python=sys.executable),
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    place = ('--project=p', '--zone=z', '--name=job', '--type=v5litepod-8', '--config=configs/mine.py', '--workdir=w')
    result = host.run(
        'tpu_vm.sh', *place, "--data_root=it's  my data", '--', 'x=1 2', cwd=root, env={'HOST': str(machine)}
    )
    assert result.returncode == 0, result.stderr
    source = machine / 'xlmr-flax' / 'src'
    assert (source / 'configs' / 'mine.py').is_file()
    words = ['run', '--config=configs/mine.py', '--workdir=w', '--devices_a_run=-1']
    words += ["--config.data_root=it's  my data", 'x=1 2']
    assert f'started in {source}: {" ".join(words)}\n' in result.stdout
    installed = (machine / 'pip').read_text().splitlines()
    assert [line.split('check ')[1] for line in installed] == [
        '-e .[gcs] jax[tpu]',
        '--no-deps encoder==1 tokenizer==2',
    ]
    # Again: nothing is installed a second time.
    assert host.run('tpu_vm.sh', *place, cwd=root, env={'HOST': str(machine)}).returncode == 0
    assert len((machine / 'pip').read_text().splitlines()) == 2


# ----------------------------------------------------------------------------------------------------------- SLURM


@pytest.fixture
def job(fakes: Fakes) -> Fakes:
    """A node of a cluster: srun that starts the command here, scontrol that is written down."""
    fakes.command('scontrol')
    for path, text in {
        fakes.folder / 'venv' / 'bin' / 'xlmr-flax': '#!/usr/bin/env bash\nexec bash "$WORKER" "$KIND" "$CODE"\n',
        fakes.folder / 'bin' / 'srun': '#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
        fakes.folder / 'worker': WORKER,
    }.items():
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        path.chmod(0o755)
    return fakes


def arguments(job: Fakes) -> list[str]:
    return ['--config=configs/tiny.py', '--workdir=w', f'--venv={job.folder / "venv"}']


def slurm(job: Fakes, kind: str, code: int) -> dict[str, str]:
    """What SLURM sets, and what the worker is to do."""
    return {
        'SLURM_JOB_ID': '7',
        'SLURM_SUBMIT_DIR': str(ROOT),
        'WORKER': str(job.folder / 'worker'),
        'KIND': kind,
        'CODE': str(code),
        'PATH': f'{job.folder / "bin"}{os.pathsep}{os.environ["PATH"]}',
    }


def batch(job: Fakes, kind: str, code: int) -> subprocess.CompletedProcess[str]:
    return job.run('slurm.sbatch', *arguments(job), env=slurm(job, kind, code))


@pytest.mark.parametrize('code', [0, 1, 2, 143])
def test_a_job_that_ends_by_itself_is_not_requeued(job: Fakes, code: int):
    assert batch(job, 'short', code).returncode == code
    assert job.calls == []


@pytest.mark.parametrize(
    ('sent', 'count', 'requeued'),
    [(signal.SIGUSR1, '0', True), (signal.SIGUSR1, '50', False), (signal.SIGTERM, '0', False)],
)
def test_the_warning_of_the_time_limit_reaches_the_run(job: Fakes, sent: int, count: str, requeued: bool):
    """SLURM signals the batch shell alone; the run saves, and only then is the job requeued. TERM is scancel's."""
    log = job.folder / 'log'
    (job.folder / 'script.json').write_text('[]')
    with log.open('w') as out:
        shell = subprocess.Popen(
            [bash(), LAUNCH / 'slurm.sbatch', *arguments(job)],
            env=os.environ | slurm(job, 'long', 0) | {'SLURM_RESTART_COUNT': count},
            stdout=out,
            stderr=out,
        )
    wait_for(log, 'started')
    shell.send_signal(sent)
    assert shell.wait(timeout=20) == 143
    assert 'saved' in log.read_text()
    assert job.calls == [['scontrol', 'requeue', '7']] * requeued
