"""run --dry_run, --shard, --retry_failed, and what is said of runs that failed."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from relative_folders import absolute

from xlmr_flax.cli.main import main
from xlmr_flax.experiment import runner
from xlmr_flax.experiment.workdir.claims import Holder

Fails = Callable[..., str]
PLAN = (
    "config.targets = ('world_pairs', 'world_retrieval')", 'config.recipe.steps = 2', 'config.recipe.max_train = 32',
    "config.evaluation.languages = {'world_pairs': ('en', 'de'), 'world_retrieval': ('de',)}",
    'config.recipe.log_every = 1', 'config.recipe.checkpoint_every = 1',
)  # fmt: skip


@pytest.fixture
def plan(config_file: Callable[..., Path], tmp_path: Path) -> list[str]:
    return ['run', f'--config={config_file(*PLAN)}', f'--workdir={tmp_path / "w"}']


def state(workdir: Path) -> dict[str, tuple[int, int]]:
    paths = [workdir, *workdir.rglob('*')]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def test_a_dry_run_writes_nothing(plan: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*plan, '--dry_run']) == 0
    assert not (tmp_path / 'w').exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'5 runs in {tmp_path / "w"}: 5 missing'
    header = ' '.join(lines[2].split())
    assert header == '# intermediate target seed trains on steps batch length from FLOPs time state'
    rows = [line.split() for line in lines[3:8]]
    assert [row[1:4] for row in rows] == [
        ['none', 'world_pairs', '1'], ['none', 'world_retrieval', '1'], ['world_nli', '-', '1'],
        ['world_nli', 'world_pairs', '1'], ['world_nli', 'world_retrieval', '1'],
    ]  # fmt: skip
    assert rows[0][4:9] == ['world_pairs', '2', '8', '64', 'encoder']
    assert rows[1][4:9] == ['nothing', '-', '-', '-', 'encoder']
    assert [row[8] for row in rows[3:]] == ['#3', '#3']
    totals = {line.split()[0]: line.split() for line in lines[10:14]}
    assert [totals[name][1:3] for name in ('intermediate', 'target')] == [['1', '2'], ['2', '4']]
    assert totals['evaluation'][1] == '4'
    assert totals['total'][1] == '5'
    assert all('100%' in totals[name] for name in totals)
    said = ' '.join(lines[14:])
    for part in (
        'Estimates',
        '6 N + 12 L D T',
        'N = 65,536, L = 2, D = 64',
        'the first rows of a split',
        '40% of what',
    ):
        assert part in said


def test_a_dry_run_says_what_is_there(plan: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished plan, of which parts are then taken away."""
    assert main(plan) == 0
    workdir = tmp_path / 'w'
    (nothing,) = workdir.glob('runs/none--world_retrieval--*')
    (evaluated,) = workdir.glob('runs/none--world_pairs--*')
    (trained,) = workdir.glob('runs/world_nli--world_pairs--*')
    (intermediate,) = workdir.glob('runs/world_nli--intermediate--*')
    next(evaluated.glob('evaluations/*-de.json')).unlink()
    shutil.rmtree(nothing)
    shutil.rmtree(trained)
    shutil.rmtree(intermediate / 'model')
    (intermediate / 'checkpoints' / 'last' / '1').mkdir(parents=True)
    (workdir / 'failed').mkdir()
    (workdir / 'failed' / f'{nothing.name}.json').write_text(json.dumps({'type': 'MemoryError', 'error': 'no room'}))
    holder = Holder('elsewhere', 7, 'x', 1, '2/3', time.time())
    (workdir / 'claims' / f'{trained.name}.9.json').write_text(json.dumps(dataclasses.asdict(holder)))
    before = state(workdir)
    capsys.readouterr()
    assert main([*plan, '--dry_run']) == 0
    assert state(workdir) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(': 2 partly, 1 failed, 1 claimed, 1 finished')
    said = [line[lines[2].index('state') :] for line in lines[3:8]]
    assert said == [
        'partly (trained, 1 of 2 languages)', 'failed (MemoryError)', 'partly (step 1 of 2)',
        'claimed by elsewhere, process 7, shard 2/3', 'finished',
    ]  # fmt: skip
    totals = {line.split()[0]: line.split()[-2] for line in lines[10:14]}
    assert totals['intermediate'] == totals['target'] == '50%'
    assert 'trainings of this workdir' in ' '.join(lines)


def test_several_failures_are_a_line_each(
    plan: list[str], tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = runner.train_run

    def broken(setting: runner.Setting, run: runner.Run) -> None:
        if not run.target:
            raise MemoryError('no room')
        real(setting, run)

    monkeypatch.setattr(runner, 'train_run', broken)
    assert main(plan) == 1
    out, error = capsys.readouterr()
    assert 'report: ' in out, 'of what there is'
    lines = [line for line in error.splitlines() if line.startswith(('failed: ', 'error: '))]
    (record,) = (tmp_path / 'w' / 'failed').iterdir()
    assert lines == [
        f'failed: {record.stem}: MemoryError: no room ({record})',
        'error: 1 of 5 runs failed, 2 that start from them were skipped; run --retry_failed tries again',
    ]
    assert 'Traceback' not in error
    monkeypatch.undo()
    assert fails(*plan).startswith('error: 1 of 5 runs failed')


@pytest.mark.parametrize(
    ('flag', 'said'),
    [
        ('--shard=3/2', '--shard=3/2: expected NUMBER/COUNT, counted from 1: 1/4, 2/4, 3/4 and 4/4 are four processes'),
        ('--shard=1', '--shard=1: expected NUMBER/COUNT'),
        ('--claim_timeout=0', '--claim_timeout=0: expected a number of seconds above 0'),
    ],
)
def test_flags_that_mean_nothing(flag: str, said: str, plan: list[str], fails: Fails, tmp_path: Path) -> None:
    assert said in fails(*plan, flag)
    assert not (tmp_path / 'w').exists()


def test_where_nothing_can_be_written(plan: list[str], fails: Fails, tmp_path: Path) -> None:
    (tmp_path / 'w').write_text('')
    assert f'{tmp_path / "w"}: cannot be written to' in fails(*plan)


def commands(line: str) -> list[list[str]]:
    """The arguments of the commands at the end of a message that list what is missing, and fetch it."""
    found = re.search(r' \(everything that is missing: xlmr-flax (.*); to fetch it: xlmr-flax (.*)\)$', line)
    assert found, line
    return [absolute(each) for each in found.groups()]


@pytest.mark.parametrize('more', [[], ['--dry_run']], ids=['run', 'dry'])
def test_what_a_plan_lacks_is_said_at_once(
    more: list[str], fails: Fails, config_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Weights and data are both not there; the message ends with what lists all of it, and no folder is left."""
    (tmp_path / 'data').mkdir()
    config = f'--config={config_file("config.tensorboard = True")}'
    lacking = [
        '--config.encoder.source=hf:./xlm-roberta-large', "--config.targets=('pawsx',)",
        "--config.intermediate=('none',)", f'--data_root={tmp_path}/data',
    ]  # fmt: skip
    workdir = tmp_path / 'runs' / 'w'
    line = fails('run', config, f'--workdir={workdir}', *lacking, *more)
    plan = '; for the plan alone: --config.encoder.source=random:large' if more else ''
    assert line.startswith(f'error: hf:./xlm-roberta-large: there is no such directory{plan}; and {tmp_path}/data/')
    assert commands(line) == [['prepare', '--check', config, *lacking], ['download', config, *lacking]]
    line = fails('run', config, f'--workdir={workdir}', *lacking[1:], *more)
    assert line.startswith(f'error: {tmp_path}/data/')
    assert commands(line) == [['prepare', '--check', config, *lacking[1:]], ['download', config, *lacking[1:]]]
    assert not workdir.parent.exists()
    assert main(['prepare', '--check', config, *lacking]) == 1, 'the command that is given'


def test_a_refused_run_leaves_what_was_there(fails: Fails, config_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / 'w').mkdir()
    fails('run', f'--config={config_file()}', f'--workdir={tmp_path}/w', '--config.encoder.source=foo')
    assert (tmp_path / 'w').is_dir()


def test_weights_alone_are_missing(fails: Fails, config_file: Callable[..., Path], tmp_path: Path) -> None:
    command = ['run', f'--config={config_file()}', f'--workdir={tmp_path}/w', '--config.encoder.source=hf:./mine']
    assert fails(*command).endswith('hf:./mine: there is no such directory')
    assert fails(*command, '--dry_run').endswith('--config.encoder.source=random:SIZE (tiny, small, base, large)')


def test_no_weights_and_no_data_root(
    fails: Fails, config_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ('XLMR_DATA_ROOT', 'TFDS_DATA_DIR'):
        monkeypatch.delenv(variable, raising=False)
    lacking = ['--config.encoder.source=hf:./mine', "--config.targets=('pawsx',)"]
    line = fails('run', f'--config={config_file()}', f'--workdir={tmp_path}/w', *lacking)
    assert '; and no data root: set --data_root=FOLDER or the environment variable XLMR_DATA_ROOT' in line
