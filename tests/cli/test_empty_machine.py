"""A data root that does not exist yet: each command names the download that makes it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from relative_folders import absolute

from xlmr_flax.cli.main import main

CONFIG = f'--config={Path(__file__).parents[2] / "configs" / "xtreme.py"}:targets=xnli'


@pytest.mark.parametrize('is_there', [False, True])
@pytest.mark.parametrize(
    'arguments',
    [
        ('run', CONFIG, '--workdir=WORKDIR'),
        ('estimate', CONFIG, '--topology=v5e:2x4'),
        ('prepare', CONFIG),
        ('prepare', '--check', CONFIG),
        ('prepare', '--check', '--tasks=xnli', '--splits=test'),
        ('prepare', '--tasks=xnli', '--splits=test'),
    ],
    ids=' '.join,
)
def test_the_download_is_named(
    arguments: tuple[str, ...],
    is_there: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / 'DATA'
    if is_there:
        root.mkdir()
    line = [each.replace('WORKDIR', str(tmp_path / 'work')) for each in arguments] + [f'--data_root={root}']
    monkeypatch.setattr(sys, 'argv', ['xlmr-flax', *line])
    assert main(line) == 1
    said = capsys.readouterr()
    what = [CONFIG] if CONFIG in arguments else ['--tasks=xnli', '--splits=test']
    named = re.findall(r'xlmr-flax (download [^;)\n]*)', said.out + said.err)
    assert ['download', *what, f'--data_root={root}'] in [absolute(each) for each in named]
    assert not (tmp_path / 'work').exists()
    assert root.exists() == is_there


def test_a_file_in_place_of_the_data_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / 'DATA'
    root.write_text('')
    assert main(['prepare', '--check', '--tasks=xnli', f'--data_root={root}']) == 1
    said = capsys.readouterr().err
    assert f'{str(root)!r} (from --data_root) is not a folder' in said
    assert 'download' not in said
