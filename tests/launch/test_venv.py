"""The functions of launch/venv.sh that find a Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = '#!/bin/sh\nexit 0\n'


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def python_of(tmp_path: Path):
    """Calls `python_of VERSION` as a script with `set -euo pipefail` does; fake commands lie in tmp_path/bin."""

    def call(version: str) -> tuple[int, str]:
        code = f'set -euo pipefail; source launch/venv.sh; python_of {version}'
        env = os.environ | {'PATH': f'{tmp_path}/bin:/usr/bin:/bin'}
        done = subprocess.run(['bash', '-c', code], cwd=ROOT, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout.strip()

    return call


def test_a_python_that_runs_is_taken_by_its_name(tmp_path: Path, python_of) -> None:
    script(tmp_path / 'bin' / 'python3.99', RUNS)
    assert python_of('3.99') == (0, 'python3.99')


def test_a_shim_that_does_not_run_gives_the_copy_behind_it(tmp_path: Path, python_of) -> None:
    script(tmp_path / 'bin' / 'python3.99', '#!/bin/sh\nexit 127\n')
    script(tmp_path / 'bin' / 'pyenv', f'#!/bin/sh\n[ "$1" = root ] && echo {tmp_path} || printf "3.9.1\\n3.99.4\\n"\n')
    copy = script(tmp_path / 'versions' / '3.99.4' / 'bin' / 'python3.99', RUNS)
    assert python_of('3.99') == (0, str(copy))
    assert python_of('3.98')[0] != 0


def test_without_that_python_it_fails(python_of) -> None:
    code, found = python_of('3.97')
    assert code != 0 and not found
