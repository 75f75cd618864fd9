"""launch/run_all_hosts.sh: the run that it starts or joins, and what it says of one that is there."""

from __future__ import annotations

import pytest

from .conftest import Fakes, remote, words

PLACE = ('--project=proj', '--zone=us-west4-a', '--name=my-tpu')
RUN = ('--config=configs/quickstart.py', '--workdir=/mnt/b/runs/q', '--data_root=/mnt/b/my data')
MORE = ('--', '--config.recipe.log_every=1')
TRAINING = [
    'xlmr-flax',
    'run',
    '--config=configs/quickstart.py',
    '--workdir=/mnt/b/runs/q',
    '--config.data_root=/mnt/b/my data',
    '--config.recipe.log_every=1',
]


def test_run_all_hosts(gcloud: Fakes):
    ((*_, train),) = [gcloud.dry('run_all_hosts.sh', *PLACE, *RUN, '--detach', '--internal_ips', *MORE)]
    assert '--internal-ip' in train
    assert words(remote(train))[4:] == ['--detach', '--', *TRAINING]
    for what in ('follow', 'status', 'stop'):
        (command,) = gcloud.dry('run_all_hosts.sh', *PLACE, f'--{what}')
        assert remote(command) == f'bash xlmr-flax/src/launch/on_host.sh {what} --name=my-tpu'
    (command,) = gcloud.dry('run_all_hosts.sh', *PLACE, "--command=echo 'a  b' | wc")
    assert remote(command) == "echo 'a  b' | wc"


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
    result = gcloud.run('tpu_vm.sh', *PLACE, *RUN, '--type=v4-8', '--git=https://example.org/x.git', *arguments)
    assert (result.returncode, f'my-tpu: {says}' in result.stderr) == (0, True)
