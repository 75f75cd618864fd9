"""The scripts of launch/: what --dry_run prints, what they refuse, and that every command in them exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from absl import flags

from xlmr_flax.cli import run as cli_run
from xlmr_flax.config.flag import check_arguments, load_config

from .conftest import LAUNCH, ROOT, Fakes, bash, checkout, remote, words

SCRIPTS = ('tpu_vm.sh', 'queued_resource.sh', 'run_all_hosts.sh', 'slurm.sbatch', 'on_host.sh')
PLACE = ('--project=proj', '--zone=us-west4-a', '--name=my-tpu')
RUN = ('--config=configs/quickstart.py', '--workdir=/mnt/b/runs/q', '--data_root=/mnt/b/my data')
GIT = ('--git=https://example.org/xlmr_flax.git', '--ref=v1')
MORE = ('--', '--config.recipe.log_every=1')
LOST = (*PLACE, *GIT, '--type=v4-8', '--config=configs/quickstart.py')
WHERE = ['--project=proj', '--zone=us-west4-a']
TRAINING = [
    'xlmr-flax',
    'run',
    '--config=configs/quickstart.py',
    '--workdir=/mnt/b/runs/q',
    '--config.data_root=/mnt/b/my data',
    '--config.recipe.log_every=1',
]
ONE_HOST = [*TRAINING[:4], '--devices_a_run=-1', *TRAINING[4:]]  # of a slice with one host and several chips
SOURCES = sorted([*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch')])


# ---------------------------------------------------------------------------------------------- what a dry run prints


def test_tpu_vm_prints_every_command_and_runs_none(gcloud: Fakes):
    printed = gcloud.dry(
        'tpu_vm.sh', *PLACE, '--type=v5litepod-8', '--spot', '--delete', '--bucket=b', *GIT, *RUN, *MORE
    )
    describe, create, install, train, delete = printed
    assert describe == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'describe', 'my-tpu', '--format=value(state)', *WHERE]
    machine = ['--accelerator-type=v5litepod-8', '--version=v2-alpha-tpuv5-lite', '--spot', '--quiet']
    assert create == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'create', 'my-tpu', *WHERE, *machine]
    assert train[:7] == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'my-tpu', '--worker=all']
    assert 'git clone --quiet -- https://example.org/xlmr_flax.git xlmr-flax/src' in remote(install)
    assert 'git -C xlmr-flax/src checkout --quiet v1' in remote(install)
    assert 'on_host.sh install --extras=gcs --bucket=b' in remote(install)
    on_host = ['bash', 'xlmr-flax/src/launch/on_host.sh', 'run', '--name=my-tpu', '--']
    assert words(remote(train)) == [*on_host, *ONE_HOST]
    assert delete == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'delete', 'my-tpu', *WHERE, '--quiet']


def test_data_is_fetched_by_one_host_before_the_run(gcloud: Fakes):
    asked = ('--download', '--accept_licence=xnli,panx')
    for script in ('tpu_vm.sh', 'queued_resource.sh'):
        printed = gcloud.dry(script, *PLACE, '--type=v4-8', *GIT, *RUN, *asked, *MORE, '--shard=1/2')
        [fetch] = [command for command in printed if '--worker=0' in command]
        data = ['xlmr-flax', 'download', '--config=configs/quickstart.py', '--data_root=/mnt/b/my data']
        data += ['--accept_licence=xnli,panx', '--config.recipe.log_every=1']
        assert words(remote(fetch)) == [
            'bash',
            'xlmr-flax/src/launch/on_host.sh',
            'run',
            '--name=my-tpu-data',
            '--',
            *data,
        ]
        assert 'xlmr-flax run' in remote(printed[printed.index(fetch) + 1])
    result = gcloud.run('tpu_vm.sh', *PLACE, '--type=v4-8', *GIT, *RUN[:2], '--download', '--dry_run')
    assert (result.returncode, '--data_root' in result.stderr) == (2, True)


def test_the_last_commit_is_copied_when_there_is_no_url(gcloud: Fakes):
    root = checkout(gcloud.folder / 'checkout')
    result = gcloud.run(
        'tpu_vm.sh', *PLACE, '--type=v4-8', '--config=configs/mine.py:x=1', '--workdir=/w', '--dry_run', cwd=root
    )
    assert result.returncode == 0, result.stderr
    assert 'git archive --format=tar.gz --output=.git/xlmr-flax-src.tar.gz HEAD' in result.stdout.splitlines()
    assert 'tpu-vm scp .git/xlmr-flax-src.tar.gz my-tpu:xlmr-flax-src.tar.gz --worker=all' in result.stdout
    (root / 'configs' / 'new.py').touch()
    result = gcloud.run('tpu_vm.sh', *PLACE, '--type=v4-8', '--config=configs/new.py', '--workdir=/w', cwd=root)
    assert result.returncode == 2
    assert 'configs/new.py is not in the last commit' in result.stderr
    assert gcloud.calls == []


def test_queued_resource_prints_every_command(gcloud: Fakes):
    create, describe, install, train, delete = gcloud.dry(
        'queued_resource.sh', *PLACE, '--type=v6e-8', '--valid_until=6h', '--service_account=a@b', *GIT, *RUN
    )
    tpus = ['gcloud', 'compute', 'tpus', 'queued-resources']
    assert create[:7] == [*tpus, 'create', 'my-tpu', '--node-id=my-tpu']
    assert {'--runtime-version=v2-alpha-tpuv6e', '--accelerator-type=v6e-8', '--spot'} < set(create)
    assert {'--valid-until-duration=6h', '--service-account=a@b', *WHERE} < set(create)
    assert describe == [*tpus, 'describe', 'my-tpu', '--format=value(state.state)', *WHERE]
    assert delete == [*tpus, 'delete', 'my-tpu', '--force', *WHERE, '--quiet']
    assert 'on_host.sh install' in remote(install)
    assert words(remote(train))[5:] == ONE_HOST[:-1]
    create, *_ = gcloud.dry('queued_resource.sh', *PLACE, '--type=v6e-8', '--nospot', *GIT, *RUN)
    assert '--spot' not in create


def test_several_slices_are_one_request_and_one_run(gcloud: Fakes):
    """Multislice: the flags of the request, every host of every node, the mesh is told, no run a chip."""
    arguments = (*PLACE, '--type=v5litepod-8', '--node_count=3', '--bucket=b', *RUN, '--download')
    printed = gcloud.dry('queued_resource.sh', *arguments, *MORE)
    create, describe, archive, copy, install, fetch, train, delete = printed
    queue = ['gcloud', 'compute', 'tpus', 'queued-resources']
    assert create[:8] == [*queue, 'create', 'my-tpu', '--node-count=3', '--node-prefix=my-tpu']
    assert not [word for word in create if word.startswith('--node-id')]
    assert (describe[4], delete[4], archive[0]) == ('describe', 'delete', 'git')
    assert copy[:4] == queue and copy[4] == 'scp' and {'--node=all', '--worker=all'} < set(copy)
    for command in (install, train):
        assert command[:8] == [*queue, 'ssh', 'my-tpu', '--node=all', '--worker=all']
    assert fetch[:8] == [*queue, 'ssh', 'my-tpu', '--node=0', '--worker=0']
    assert words(remote(train))[5:] == [*TRAINING[:4], '--config.mesh.slices=-1', *TRAINING[4:]]
    (status,) = gcloud.dry('run_all_hosts.sh', *PLACE, '--node_count=3', '--status', '--internal_ips')
    assert status[:8] == [*queue, 'ssh', 'my-tpu', '--node=all', '--worker=all'] and '--internal-ip' in status
    for count in ('0', '-1', 'two', '1.5'):
        result = gcloud.run('queued_resource.sh', *arguments, f'--node_count={count}')
        assert (result.returncode, f'--node_count={count}: ' in result.stderr) == (2, True)
    result = gcloud.run('queued_resource.sh', *LOST, '--node_count=2', '--workdir=gs://b/x')
    assert (result.returncode, 'only a run of one process' in result.stderr) == (2, True)


def test_slurm_starts_one_process_a_node_with_all_gpus(fakes: Fakes):
    step, requeue = fakes.dry('slurm.sbatch', *RUN, *MORE)
    assert step[0] == 'srun'
    assert '--ntasks-per-node=1' in step
    assert step[step.index('xlmr-flax') :] == TRAINING
    assert requeue == ['scontrol', 'requeue', 'JOB']
    result = fakes.run(
        'slurm.sbatch', *RUN, '--image=x.sif', '--dry_run', env={'SLURM_GPUS_ON_NODE': '4', 'SLURM_JOB_ID': '7'}
    )
    assert '# JAX_LOCAL_DEVICE_IDS=0,1,2,3' in result.stdout
    assert 'apptainer exec --nv x.sif xlmr-flax run' in result.stdout
    assert 'scontrol requeue 7' in result.stdout
    array = fakes.run(
        'slurm.sbatch', *RUN, '--dry_run', env={'SLURM_ARRAY_TASK_ID': '2', 'SLURM_ARRAY_TASK_COUNT': '4'}
    )
    assert '--shard=2/4' in array.stdout


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize('script', SCRIPTS)
def test_help(fakes: Fakes, script: str):
    result = fakes.run(script, '--help')
    assert result.returncode == 0
    assert result.stdout.startswith('usage: ')
    assert '--dry_run' in result.stdout
    assert result.stderr == ''


@pytest.mark.parametrize(
    ('script', 'arguments', 'says'),
    [
        ('tpu_vm.sh', ['--zone=z'], '--project is required: id of the Cloud project'),
        ('queued_resource.sh', ['--project=p', '--zone=z', '--name=n'], '--type is required: accelerator type'),
        ('run_all_hosts.sh', [*PLACE, *RUN], '--type is required'),
        ('run_all_hosts.sh', [*PLACE, '--type=v4-8'], '--config is required'),
        ('run_all_hosts.sh', [*PLACE, *RUN[:2], '--type=v4-8', '--download'], '--download needs --data_root'),
        ('run_all_hosts.sh', [*PLACE, '--stop', '--status'], 'only one of --status --stop at a time'),
        ('slurm.sbatch', ['--config=configs/tiny.py'], '--workdir is required'),
        ('slurm.sbatch', ['--config=configs/none.py', '--workdir=w'], '--config=configs/none.py: no file'),
        ('tpu_vm.sh', ['--projekt=p'], 'unknown flag --projekt; the closest is --project'),
        ('tpu_vm.sh', ['--dry-run'], 'unknown flag --dry-run; the closest is --dry_run'),
        ('tpu_vm.sh', ['--qqqqqqqq'], 'the flags are --'),
        ('tpu_vm.sh', ['--project'], '--project needs a value'),
        ('tpu_vm.sh', ['--spot=maybe'], '--spot=maybe: a switch is true or false'),
        ('tpu_vm.sh', ['extra'], "unexpected argument 'extra'"),
        ('tpu_vm.sh', ['--config.targets=x'], '--config.targets belongs to xlmr-flax run: write it after --'),
        ('tpu_vm.sh', [*PLACE, *RUN, *GIT, '--type=v9-8'], '--type=v9-8: no software version is known'),
        ('tpu_vm.sh', [*PLACE, *RUN, *GIT, '--type=v4-8', '--name=My_TPU'], '--name=My_TPU: small letters'),
        ('run_all_hosts.sh', [*PLACE, '--name=../../x', '--status'], '--name=../../x: small letters'),
        ('tpu_vm.sh', [*PLACE, *RUN, *GIT, '--type=v4-8', '--ref=--upload-pack=x'], '--ref=--upload-pack=x: a branch'),
        ('tpu_vm.sh', [*PLACE, *RUN, *GIT, '--type=v4-8', '--detach', '--delete'], '--delete and --detach'),
        ('tpu_vm.sh', [*PLACE, *RUN, '--type=v4-8', '--config=configs/none.py'], 'no file configs/none.py'),
        ('queued_resource.sh', [*PLACE, *RUN, *GIT, '--type=v4-8', '--poll=1m'], '--poll=1m: not a whole number'),
        ('tpu_vm.sh', [*LOST, '--workdir=runs/x', '--delete'], 'the only copy of the results would be deleted'),
        ('tpu_vm.sh', [*LOST, '--workdir=/home/me/x', '--bucket=b', '--delete'], 'use --bucket=B --workdir=/mnt/B/...'),
        ('queued_resource.sh', [*LOST, '--workdir=runs/x'], 'the only copy of the results would be deleted'),
        ('tpu_vm.sh', [*LOST, '--workdir=/mnt/other/x', '--bucket=b'], '--bucket=b is mounted at /mnt/b, and the'),
        ('queued_resource.sh', [*LOST, '--workdir=/mnt/bb', '--bucket=b', '--keep'], '--bucket=b is mounted at /mnt/b'),
        ('on_host.sh', ['run', '--name=../../x', '--', 'true'], '--name=../../x: small letters'),
        ('on_host.sh', ['status', '--name=../../x'], '--name=../../x: small letters'),
        ('on_host.sh', ['go'], "'go': the commands are install, run"),
        ('on_host.sh', ['run'], 'run needs a command after --'),
    ],
)
def test_mistakes_are_named_before_anything_happens(gcloud: Fakes, script: str, arguments: list[str], says: str):
    result = gcloud.run(script, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith('error: ')
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert gcloud.calls == []


@pytest.mark.parametrize('script', ['tpu_vm.sh', 'queued_resource.sh'])
def test_a_workdir_that_outlives_the_tpu_is_taken(gcloud: Fakes, script: str):
    delete = ['--delete'] if script == 'tpu_vm.sh' else []
    for arguments in (['--workdir=/mnt/b/x', '--bucket=b'], ['--workdir=/mnt/b', '--bucket=b'], ['--workdir=gs://b/x']):
        result = gcloud.run(script, *LOST, *arguments, *delete, '--dry_run')
        assert (result.returncode, result.stderr) == (0, '')
    result = gcloud.run(script, *LOST, '--workdir=/mnt/b/x', *delete, '--dry_run')
    assert (result.returncode, len(result.stderr.splitlines())) == (0, 1)
    assert 'without --bucket: nothing is mounted there' in result.stderr


@pytest.mark.parametrize('script', ['tpu_vm.sh', 'queued_resource.sh'])
def test_a_config_whose_data_the_hosts_do_not_have(gcloud: Fakes, script: str):
    arguments = [*LOST, '--bucket=b', '--workdir=/mnt/b/x', '--dry_run', '--config=configs/xnli_small.py']
    result = gcloud.run(script, *arguments)
    assert result.returncode == 0
    assert 'warning: --config=configs/xnli_small.py without --data_root' in result.stderr
    assert 'costs money' in result.stderr
    for more in (
        ['--data_root=/mnt/b/data'], ['--', '--config.data_root=/mnt/b/data'], ['--', '--config.data_root', '/d'],
        ['--', "--config.targets=('world_pairs',)"], ['--config=configs/tiny.py'],
    ):  # fmt: skip
        assert gcloud.run(script, *arguments, *more).stderr == ''
    assert gcloud.calls == []


@pytest.mark.parametrize('script', ['tpu_vm.sh', 'queued_resource.sh'])
def test_a_dry_run_says_that_it_is_no_script(gcloud: Fakes, script: str):
    result = gcloud.run(script, *LOST, '--workdir=gs://b/x', '--dry_run')
    first, *lines = result.stdout.splitlines()
    assert first == '# to be read, or pasted one at a time; nothing was run'
    (create,) = [i for i, line in enumerate(lines) if ' create ' in line]
    assert lines[create - 1].startswith('# ')


def test_flags_and_values_may_be_two_words(gcloud: Fakes):
    one = gcloud.dry('run_all_hosts.sh', *PLACE, *RUN, '--type=v4-8')
    apart = [part for flag in (*PLACE, *RUN, '--type=v4-8') for part in flag.split('=', 1)]
    assert gcloud.dry('run_all_hosts.sh', *apart) == one


def test_without_gcloud_it_says_so(fakes: Fakes):
    only = fakes.folder / 'only'
    only.mkdir()
    for name in ('bash', 'dirname', 'awk', 'git', 'cat'):
        (only / name).symlink_to(shutil.which(name) or name)
    result = fakes.run('run_all_hosts.sh', *PLACE, '--status', env={'PATH': str(only)})
    assert result.returncode == 2
    assert 'no gcloud on the PATH' in result.stderr


# ------------------------------------------------------------------------------------------- the scripts themselves


def test_shellcheck():
    tool = shutil.which('shellcheck')
    if not tool:
        pytest.skip('shellcheck is not installed')
    result = subprocess.run([tool, '-x', *map(str, SOURCES)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_script_is_bash_that_parses():
    for path in SOURCES:
        assert subprocess.run([bash(), '-n', str(path)], capture_output=True).returncode == 0, path.name
        assert max(map(len, path.read_text().splitlines())) <= 140, path.name


@pytest.mark.parametrize('more', [[], ['--shard=2/4'], ['--num_processes=2'], ['--workdir=gs://b/q']])
def test_the_training_command_is_one_that_xlmr_flax_takes(monkeypatch: pytest.MonkeyPatch, more: list[str]):
    """What the scripts write are flags of the command, also with those after --, and the config takes the overrides."""
    monkeypatch.setattr(sys, 'argv', ['xlmr-flax', *ONE_HOST[2:]])
    monkeypatch.setattr(cli_run, 'host_devices', lambda: ('tpu', 8))
    check_arguments(ONE_HOST[2:])
    values = flags.FlagValues()
    cli_run.define_flags(values)
    assert values([*sys.argv, *more]) == ['xlmr-flax'] and values['devices_a_run'].value == -1
    config = load_config(values)
    assert cli_run._in_processes(values, config) is None  # a plan of few runs: one process
    assert config.recipe.log_every == 1
    assert config.data_root == '/mnt/b/my data'


def test_sbatch_directives_come_before_the_first_command():
    """SLURM reads #SBATCH lines up to the first command only."""
    lines = (LAUNCH / 'slurm.sbatch').read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith('#'))
    directives = [i for i, line in enumerate(lines) if line.startswith('#SBATCH')]
    assert max(directives) < first
    text = '\n'.join(lines)
    for flag in ('--requeue', '--open-mode=append', '--signal=B:USR1@300', '--ntasks-per-node=1'):
        assert f'#SBATCH {flag}\n' in text


def test_dockerfile_copies_what_exists_and_setup_needs():
    text = (LAUNCH / 'gpu.Dockerfile').read_text()
    copied = [w for line in re.findall(r'^COPY (.+)$', text, re.MULTILINE) for w in line.split()[:-1]]
    assert {'setup.py', 'README.md', 'LICENSE', 'xlmr_flax', 'configs'} <= set(copied)
    allowed = (LAUNCH / 'gpu.Dockerfile.dockerignore').read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f'!{name}' in allowed
    assert re.search(r'^USER (?!root)\w+$', text, re.MULTILINE)
    assert 'ENTRYPOINT ["xlmr-flax"]' in text
    from xlmr_flax.models.embedded import REQUIREMENTS  # which the image installs

    assert len(REQUIREMENTS) > 0
    extras = re.findall(r'pip install "\.\[(\w+)\]"', text)
    assert extras and all(f"'{e}': [" in (ROOT / 'setup.py').read_text() for e in extras)


@pytest.mark.parametrize('name', ['README.md', 'gke.md'])
def test_documents_name_what_is_there(name: str):
    """Files, scripts and flags that the documents name exist."""
    text = (LAUNCH / name).read_text()
    for path in re.findall(r'(?<![\w/])((?:launch|configs|docs)/[\w./-]+\.(?:sh|sbatch|py|md|Dockerfile))', text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r'\]\((?!http)([^)#]+)', text):
        assert (LAUNCH / target).exists(), target
    for block in re.findall(r'^```bash\n(.*?)^```', text, re.MULTILINE | re.DOTALL):
        parsed = subprocess.run([bash(), '-n'], input=block, capture_output=True, text=True)
        assert parsed.returncode == 0, f'{parsed.stderr}\n{block}'
        for line in block.replace('\\\n', ' ').splitlines():
            if found := re.search(r'launch/([\w]+\.(?:sh|sbatch)) (.*)', line):
                known = (LAUNCH / found[1]).read_text() + (LAUNCH / 'tpu.sh').read_text()
                for flag in re.findall(r'--(\w+)', found[2].split(' -- ')[0]):
                    assert flag == 'dry_run' or re.search(rf'define_\w+ {flag} ', known), f'{found[1]} --{flag}'
