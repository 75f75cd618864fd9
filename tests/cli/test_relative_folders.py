"""Commands with relative folders, as the README writes them, save and resume as with absolute ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from absl import flags
from relative_folders import relative

from xlmr_flax.cli import estimate, score
from xlmr_flax.cli.main import main, make_paths_absolute

# Each by itself: test_readme_stops.py.
OVERRIDES = ['--config.recipe.checkpoint_every=2', '--config.recipe.keep=best']


def test_a_relative_workdir_saves_states(
    tmp_path: Path, config_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_file(
        "config.intermediate, config.targets = ('none',), ('world_pairs',)",
        'config.recipe.steps = 4',
        'config.recipe.eval_every = 2',
        'config.tensorboard = False',
    )
    monkeypatch.chdir(tmp_path)
    values = {}
    for workdir in ('runs/relative', tmp_path / 'runs' / 'absolute'):
        assert main(['run', f'--config={config}', f'--workdir={workdir}', *OVERRIDES]) == 0
        lines = (Path(workdir) / 'results.jsonl').read_text(encoding='utf-8').splitlines()
        values[str(workdir)] = [json.loads(line)['value'] for line in lines]
    relative, absolute = values.values()
    assert relative
    assert relative == absolute
    monkeypatch.chdir(tmp_path / 'runs')  # the same workdir from another folder: nothing is left to do
    before = (tmp_path / 'runs' / 'relative' / 'results.jsonl').read_bytes()
    assert main(['run', f'--config={config}', '--workdir=relative', *OVERRIDES]) == 0
    assert (tmp_path / 'runs' / 'relative' / 'results.jsonl').read_bytes() == before


def test_the_option_that_makes_folders_relative(tmp_path: Path) -> None:
    given = ['run', f'--workdir={tmp_path}/a/b', f'--data_root={tmp_path}/c', '--config=/a/x.py', '--out=gs://x', 1]
    assert relative([*given, '--workdir=/mnt/bucket/runs'], f'{tmp_path}/a') == [
        'run',
        '--workdir=b',
        '--data_root=../c',
        '--config=/a/x.py',
        '--out=gs://x',
        1,
        '--workdir=/mnt/bucket/runs',  # on another machine
    ]


def test_a_tilde_is_the_home_folder_in_every_path(
    tmp_path: Path,
    config_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = config_file("config.targets = ('world_pairs',)").parent
    (home / 'elsewhere').mkdir()
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.chdir(home / 'elsewhere')
    name = next(home.glob('*.py')).name
    assert main(['prepare', '--check', f'--config=~/{name}', '--nooverlap']) == 0
    for module, names in ((estimate, ('json', 'text')), (score, ('predictions', 'labels', 'out'))):
        values = flags.FlagValues()
        module.define_flags(values)
        values(['xlmr-flax', *(f'--{flag}=~/{flag}' for flag in names)])
        make_paths_absolute(values)
        assert [values[flag].value for flag in names] == [str(home / flag) for flag in names]
