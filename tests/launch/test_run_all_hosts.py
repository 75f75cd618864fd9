"""launch/run_all_hosts.sh: the run that it starts or joins, and what it says of one that is there."""

from __future__ import annotations

import pytest

from .conftest import Fakes, remote, words

PLACE = ('--project=proj', '--zone=us-west4-a', '--name=my-tpu')
RUN = ('--type=v5litepod-8', '--config=configs/quickstart.py', '--workdir=/mnt/b/runs/q', '--data_root=/mnt/b/my data')
MORE = ('--', '--config.recipe.log_every=1')


def test_run_all_hosts(gcloud: Fakes):
    (train,) = gcloud.dry('run_all_hosts.sh', *PLACE, *RUN, '--detach', '--internal_ips', *MORE)
    assert '--internal-ip' in train
    assert words(remote(train))[4:8] == ['--detach', '--', 'xlmr-flax', 'run']
    for what in ('follow', 'status', 'stop'):
        (command,) = gcloud.dry('run_all_hosts.sh', *PLACE, f'--{what}')
        assert remote(command) == f'bash xlmr-flax/src/launch/on_host.sh {what} --name=my-tpu'
    (command,) = gcloud.dry('run_all_hosts.sh', *PLACE, "--command=echo 'a  b' | wc")
    assert remote(command) == "echo 'a  b' | wc"


@pytest.mark.parametrize('more', [['--type=v5litepod-8'], ['--type=v5litepod-16'], ['--node_count=2'], ['--download']])
def test_a_run_of_another_script_is_joined(gcloud: Fakes, more: list[str]):
    """The command on the hosts is word for word that of queued_resource.sh: on_host.sh refuses any other."""
    queued = gcloud.dry('queued_resource.sh', *PLACE, *RUN, '--git=https://example.org/x.git', *more, *MORE)
    joined = gcloud.dry('run_all_hosts.sh', *PLACE, *RUN, *more, *MORE)
    assert joined == [command for command in queued if 'on_host.sh run' in command[-2]]
    assert joined


@pytest.mark.parametrize(
    ('arguments', 'code', 'returned', 'last'),
    [
        (['--follow'], 0, 0, 'done'),
        (['--follow'], 11, 1, 'exit code 1'),
        (['--status'], 0, 0, ''),
        (['--status'], 255, 255, 'gcloud or ssh failed'),
        (['--stop'], 0, 0, ''),
        (['--stop'], 14, 14, 'still alive'),
        ([*RUN], 0, 0, 'done'),
        ([*RUN, '--detach'], 0, 0, 'started'),
        ([*RUN, '--detach'], 255, 255, 'gcloud or ssh failed'),
    ],
)
def test_only_a_run_that_was_followed_to_its_end_is_done(
    gcloud: Fakes, arguments: list[str], code: int, returned: int, last: str
):
    """What a script says after the command; 0 of --status, --stop and --detach is no end of the run."""
    gcloud.on('tpu-vm ssh', ('', code))
    result = gcloud.run('run_all_hosts.sh', *PLACE, *arguments)
    said = [line for line in result.stderr.splitlines() if line.startswith('my-tpu: ')]
    assert (result.returncode, len(said)) == (returned, bool(last))
    assert last in ''.join(said)


@pytest.mark.parametrize(('arguments', 'says'), [([], 'done'), (['--detach'], 'started')])
def test_a_new_tpu_that_is_left_alone_is_not_done(gcloud: Fakes, arguments: list[str], says: str):
    result = gcloud.run('tpu_vm.sh', *PLACE, *RUN, '--git=https://example.org/x.git', *arguments)
    assert (result.returncode, f'my-tpu: {says}' in result.stderr) == (0, True)
