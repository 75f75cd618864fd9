"""launch/quickstart.sh ends with the page of its run, wherever that is, and without one where the run writes none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Stands for the command: writes the page where the last --workdir says, unless it is a dry run.
COMMAND = """#!{python}
import os, sys
*_, workdir = [word.partition('=')[2] for word in sys.argv if word.startswith('--workdir=')]
if '--dry_run' not in sys.argv and '--none' not in sys.argv:
    report = os.path.join(os.path.expanduser(workdir), 'report')
    os.makedirs(report)
    open(os.path.join(report, 'index.html'), 'w').close()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which all is installed, with a command that writes a page alone."""
    bin_folder = tmp_path / 'venv' / 'bin'
    bin_folder.mkdir(parents=True)
    for name, text in {
        'python': f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        'xlmr-flax': COMMAND.format(python=sys.executable),
    }.items():
        (bin_folder / name).write_text(text, encoding='utf-8')
        (bin_folder / name).chmod(0o755)
    mark = f'source launch/venv.sh && mark_installed {tmp_path}/venv base'
    subprocess.run(['bash', '-c', mark], cwd=ROOT, check=True)
    return {'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path / 'home'), 'VENV': str(tmp_path / 'venv')}


@pytest.mark.parametrize(
    ('words', 'page', 'code'),
    [
        (['--workdir={root}/a b'], '{root}/a b/report/index.html', 0),
        (['--workdir=~/runs/q'], '{root}/home/runs/q/report/index.html', 0),
        (['--workdir={root}/x', '--dry_run'], '', 0),
        (['--workdir={root}/x', '--none'], '', 1),
    ],
)
def test_the_page_is_named(words: list[str], page: str, code: int, tmp_path: Path, environment: dict[str, str]) -> None:
    command = ['bash', str(ROOT / 'launch' / 'quickstart.sh'), *(word.format(root=tmp_path) for word in words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert page.format(root=tmp_path) in done.stdout
    assert bool(page) == ('index.html' in done.stdout)
