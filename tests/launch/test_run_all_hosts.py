"""launch/run_all_hosts.sh: the run that it starts or joins, and what it says of one that is there."""

from __future__ import annotations

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
