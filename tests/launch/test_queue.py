"""launch/queued_resource.sh against a fake gcloud: capacity errors, preemption, lost connections, real errors."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from .conftest import LAUNCH, Fakes, bash, heeding

ARGUMENTS = (
    '--project=proj',
    '--zone=us-west4-a',
    '--name=my-tpu',
    '--type=v5litepod-8',
    '--config=configs/quickstart.py',
    '--workdir=/mnt/b/runs/q',
    '--git=https://example.org/xlmr_flax.git',
    '--poll=0',
    '--backoff=0',
    '--settle=0',
)
ABSENT = ('ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found', 1)
CAPACITY = (
    'ERROR: (gcloud.compute.tpus.queued-resources.create) RESOURCE_EXHAUSTED: There is no more capacity in the zone '
    '"us-west4-a"; you can try in another zone',
    1,
)
QUOTA = ("ERROR: Quota 'TPUV5sPreemptibleLitepodPerProjectPerRegionForTPUAPI' exhausted. Limit 0 in region us-west4", 1)
OK = ('', 0)
STATE = 'queued-resources describe|value(state.state)'
NODE = 'tpu-vm describe'
CREATE, DELETE = 'queued-resources create', 'queued-resources delete'
INSTALL, RUN = 'tpu-vm ssh install', 'tpu-vm ssh run'
TRAIN = 'tpu-vm ssh|on_host.sh run'
REMAINS = '  gcloud compute tpus queued-resources delete my-tpu --project=proj --zone=us-west4-a --force'


def states(*names: str) -> list[tuple[str, int]]:
    return [ABSENT if name == 'ABSENT' else (name, 0) for name in names]


def launch(gcloud: Fakes, *arguments: str) -> subprocess.CompletedProcess[str]:
    return gcloud.run('queued_resource.sh', *ARGUMENTS, *arguments)


def acts(gcloud: Fakes) -> list[str]:
    """The calls that change something."""
    return [v for v in gcloud.verbs() if not v.endswith('describe')]


def test_waits_runs_and_deletes(gcloud: Fakes):
    gcloud.on(STATE, *states('ABSENT', 'CREATING', 'WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'))
    gcloud.on(NODE, ('CREATING', 0), ('READY', 0))
    gcloud.on(TRAIN, ('step 1', 0))
    result = launch(gcloud)
    assert result.returncode == 0, result.stderr
    assert acts(gcloud) == [CREATE, INSTALL, RUN, DELETE]
    assert 'step 1' in result.stdout
    assert 'the run is done' in result.stderr


def test_survives_a_preemption(gcloud: Fakes):
    """Taken away during the run: deleted, asked for again, and the same command once more."""
    gcloud.on(STATE, *states('ABSENT', 'ACTIVE', 'SUSPENDING', 'ABSENT', 'ACTIVE'))
    gcloud.on(NODE, ('READY', 0), ('PREEMPTED', 0), ('READY', 0))
    gcloud.on(TRAIN, ('stopped at step 70', 143), ('done', 0))
    result = launch(gcloud)
    assert result.returncode == 0, result.stderr
    assert acts(gcloud) == [CREATE, INSTALL, RUN, DELETE, CREATE, INSTALL, RUN, DELETE]
    assert 'preempted (request SUSPENDING, TPU PREEMPTED)' in result.stderr
    runs = [c for c in gcloud.calls if any('on_host.sh run' in a for a in c)]
    assert runs[0] == runs[1]


def test_several_slices_are_ready_when_all_are(gcloud: Fakes):
    """The second of three comes last; then the third is taken away during the run."""
    gcloud.on(STATE, *states('ABSENT', 'ACTIVE', 'ACTIVE', 'ACTIVE', 'ABSENT', 'ACTIVE'))
    gcloud.on(f'{NODE} my-tpu-0', ('READY', 0))
    gcloud.on(f'{NODE} my-tpu-1', ('CREATING', 0), ('READY', 0))
    gcloud.on(f'{NODE} my-tpu-2', ('READY', 0), ('PREEMPTED', 0), ('READY', 0))
    gcloud.on('queued-resources ssh|on_host.sh run', ('a host is lost', 134), ('done', 0))
    result = launch(gcloud, '--node_count=3')
    assert result.returncode == 0, result.stderr
    each = [CREATE, 'queued-resources ssh install', 'queued-resources ssh run', DELETE]
    assert acts(gcloud) == each * 2
    assert 'preempted (request ACTIVE, TPU PREEMPTED)' in result.stderr


def test_survives_a_vanished_node_and_a_lost_connection(gcloud: Fakes):
    gcloud.on(STATE, *states('ABSENT', 'ACTIVE', 'ACTIVE', 'ABSENT', 'ACTIVE'))
    gcloud.on(NODE, ('READY', 0), ABSENT, ('READY', 0))
    gcloud.on(TRAIN, ('ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with return code [255].', 1), OK)
    result = launch(gcloud)
    assert result.returncode == 0, result.stderr
    assert acts(gcloud) == [CREATE, INSTALL, RUN, DELETE, CREATE, INSTALL, RUN, DELETE]


def test_survives_a_capacity_error(gcloud: Fakes):
    """Refused four times when asked, although there is nothing to delete, and once in the queue."""
    gcloud.on(STATE, *states('ABSENT', 'ABSENT', 'ABSENT', 'ABSENT', 'ABSENT', 'FAILED', 'ABSENT', 'ACTIVE'))
    gcloud.on('failedData', ('the requested resources were not available', 0))
    gcloud.on(CREATE, CAPACITY, CAPACITY, CAPACITY, CAPACITY, OK)
    gcloud.on(DELETE, ABSENT, ABSENT, ABSENT, ABSENT, OK)
    gcloud.on(NODE, ('READY', 0))
    result = launch(gcloud)
    assert result.returncode == 0, result.stderr
    assert acts(gcloud) == [CREATE, DELETE] * 5 + [CREATE, INSTALL, RUN, DELETE]
    assert 'There is no more capacity' in result.stderr
    assert 'the request failed: the requested resources were not available' in result.stderr


def test_suspended_before_it_was_used(gcloud: Fakes):
    gcloud.on(STATE, *states('SUSPENDED', 'ABSENT', 'ACTIVE'))
    gcloud.on(NODE, ('READY', 0))
    assert launch(gcloud).returncode == 0
    assert acts(gcloud) == [DELETE, CREATE, INSTALL, RUN, DELETE]


def test_joins_a_tpu_that_is_there(gcloud: Fakes):
    """The script was killed and is started again; and the connection drops on a TPU that is well."""
    gcloud.on(STATE, *states('ACTIVE'))
    gcloud.on(NODE, ('READY', 0))
    gcloud.on(TRAIN, ('connection reset', 255), OK)
    assert launch(gcloud).returncode == 0
    assert acts(gcloud) == [INSTALL, RUN, INSTALL, RUN, DELETE]


@pytest.mark.parametrize(('on_host', 'code'), [(11, 1), (12, 2), (137, 137)])
def test_a_real_error_stops_it(gcloud: Fakes, on_host: int, code: int):
    gcloud.on(STATE, *states('ACTIVE'))
    gcloud.on(NODE, ('READY', 0))
    gcloud.on(TRAIN, ('error: mnli: train.tsv is missing', on_host))
    result = launch(gcloud)
    assert result.returncode == code
    assert acts(gcloud) == [INSTALL, RUN, DELETE]
    assert 'train.tsv is missing' in result.stderr
    assert 'not started again' in result.stderr


def test_a_tpu_on_which_another_command_runs_is_left(gcloud: Fakes):
    gcloud.on(STATE, *states('ACTIVE'))
    gcloud.on(NODE, ('READY', 0))
    gcloud.on(TRAIN, ('error: my-tpu runs another command', 15))
    result = launch(gcloud)
    assert (result.returncode, acts(gcloud)) == (2, [INSTALL, RUN])
    assert result.stderr.splitlines()[-1] == REMAINS
    result = gcloud.run('tpu_vm.sh', *ARGUMENTS[:-3], '--delete')
    assert (result.returncode, acts(gcloud)) == (2, [INSTALL, RUN] * 2)


def test_an_error_on_a_tpu_that_was_taken_away_is_no_real_error(gcloud: Fakes):
    """When one host goes, the others fail in their own ways."""
    gcloud.on(STATE, *states('ACTIVE', 'SUSPENDED', 'ABSENT', 'ACTIVE'))
    gcloud.on(NODE, ('READY', 0))
    gcloud.on(TRAIN, ('the coordination service is gone', 11), OK)
    assert launch(gcloud).returncode == 0
    assert acts(gcloud) == [INSTALL, RUN, DELETE, CREATE, INSTALL, RUN, DELETE]


@pytest.mark.parametrize(
    ('answer', 'times'),
    [(QUOTA, 3), (('ERROR: PERMISSION_DENIED: tpu.nodes.create', 1), 1), (('ERROR: INVALID_ARGUMENT: type', 1), 1)],
)
def test_what_waiting_does_not_mend(gcloud: Fakes, answer: tuple[str, int], times: int):
    """A quota is tried three times, since a TPU that is being deleted still counts."""
    gcloud.on(STATE, *states('ABSENT'))
    gcloud.on(CREATE, answer)
    result = launch(gcloud)
    assert result.returncode == 1
    assert acts(gcloud).count(CREATE) == times
    assert answer[0] in result.stderr
    assert 'waiting does not fix that' in result.stderr


def test_max_attempts(gcloud: Fakes):
    gcloud.on(STATE, *states('ABSENT'))
    gcloud.on(CREATE, CAPACITY)
    result = launch(gcloud, '--max_attempts=4')
    assert result.returncode == 143
    assert acts(gcloud) == [CREATE, DELETE] * 4
    assert '4 requests were made, which is --max_attempts' in result.stderr


def test_an_installation_that_fails_each_time(gcloud: Fakes):
    gcloud.on(STATE, *states('ACTIVE'))
    gcloud.on(NODE, ('READY', 0))
    gcloud.on('tpu-vm ssh|on_host.sh install', ('no matching distribution', 13))
    result = launch(gcloud)
    assert result.returncode == 13
    assert acts(gcloud) == [INSTALL] * 3 + [DELETE]


def test_hosts_that_cannot_be_reached(gcloud: Fakes):
    """Not an endless row of TPUs that are paid for and not used."""
    gcloud.on(STATE, *states('ACTIVE'))
    gcloud.on(NODE, ('READY', 0))
    gcloud.on('tpu-vm ssh', ('ssh: connect to host: timed out', 255))
    result = launch(gcloud)
    assert result.returncode == 1
    assert acts(gcloud) == [INSTALL] * 3 + [DELETE] + [INSTALL] * 3 + [DELETE]
    assert 'the firewall' in result.stderr


def test_gcloud_that_does_not_answer(gcloud: Fakes):
    """An outage is waited for; a permission that is missing is not; what cannot be deleted ends it."""
    gcloud.on(STATE, ('ERROR: connection timed out', 1), ('ERROR: connection timed out', 1), ('ACTIVE', 0))
    gcloud.on(NODE, ('READY', 0))
    gcloud.on(TRAIN, OK)
    assert launch(gcloud).returncode == 0
    refused = Fakes(gcloud.folder / 'refused')
    refused.command('gcloud')
    refused.on(STATE, ('ERROR: Permission denied on resource project proj', 1))
    result = launch(refused)
    assert result.returncode == 1
    assert len(refused.calls) == 1
    assert REMAINS in result.stderr.splitlines()
    stuck = Fakes(gcloud.folder / 'stuck')
    stuck.command('gcloud')
    stuck.on(STATE, *states('SUSPENDED'))
    stuck.on(DELETE, ('ERROR: internal error', 1))
    result = launch(stuck)
    assert result.returncode == 1
    assert acts(stuck) == [DELETE] * 3
    assert result.stderr.splitlines()[-1] == REMAINS


@pytest.mark.parametrize(('state', 'more', 'code'), [('SUSPENDED', ['--max_attempts=0'], 143), ('ACTIVE', [], 0)])
def test_a_tpu_that_is_not_deleted_is_named(gcloud: Fakes, state: str, more: list[str], code: int):
    """At the end of the requests and of the run; one that is deleted is not."""
    gcloud.on(STATE, *states(state))
    gcloud.on(NODE, ('READY', 0))
    gcloud.on(DELETE, ('ERROR: internal error', 1), OK)
    for is_left in (True, False):
        result = launch(gcloud, *more)
        assert (result.returncode, REMAINS in result.stderr.splitlines()) == (code, is_left)


def test_keep(gcloud: Fakes):
    gcloud.on(STATE, *states('ACTIVE'))
    gcloud.on(NODE, ('READY', 0))
    result = launch(gcloud, '--keep')
    assert result.returncode == 0
    assert acts(gcloud) == [INSTALL, RUN]
    assert REMAINS in result.stderr.splitlines()


def test_a_workdir_that_is_lost_with_the_tpu_is_remarked_upon(gcloud: Fakes):
    result = gcloud.run('queued_resource.sh', *ARGUMENTS, '--workdir=runs/q', '--keep', '--dry_run')
    assert result.returncode == 0
    assert 'a local folder is lost with the TPU' in result.stderr


def test_tpu_vm_creates_only_what_is_missing(gcloud: Fakes):
    arguments = [a for a in ARGUMENTS if not a.startswith(('--poll', '--backoff', '--settle'))]
    gcloud.on(NODE, ABSENT, ('READY', 0), ('PREEMPTED', 0))
    gcloud.on(TRAIN, OK, ('error: x', 11))
    assert gcloud.run('tpu_vm.sh', *arguments).returncode == 0
    assert gcloud.verbs() == [NODE, 'tpu-vm create', INSTALL, RUN]
    result = gcloud.run('tpu_vm.sh', *arguments, '--delete', '--noinstall')
    assert result.returncode == 1
    assert gcloud.verbs()[4:] == [NODE, RUN, 'tpu-vm delete']
    result = gcloud.run('tpu_vm.sh', *arguments)
    assert result.returncode == 2
    assert 'my-tpu is PREEMPTED; delete it first' in result.stderr


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_leaves_the_request_and_says_so(number: signal.Signals, gcloud: Fakes):
    """Ctrl-C, SIGTERM or a closed terminal, in the queue: the same command goes on later. What stays is named, since it
    costs money."""
    gcloud.on(STATE, *states('WAITING_FOR_RESOURCES'))
    gcloud.run('queued_resource.sh', *ARGUMENTS, '--dry_run')  # writes the answers down
    environment = os.environ | {'PATH': f'{gcloud.folder / "bin"}{os.pathsep}{os.environ["PATH"]}'}
    command = heeding(bash(), LAUNCH / 'queued_resource.sh', *ARGUMENTS, '--poll=60')
    with (gcloud.folder / 'log').open('w') as log:
        loop = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 20
    while 'WAITING_FOR_RESOURCES' not in (gcloud.folder / 'log').read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(loop.pid, number)
    assert loop.wait(timeout=20) == 130
    assert (gcloud.folder / 'log').read_text().splitlines()[-1] == REMAINS
    assert acts(gcloud) == []
