"""launch/quickstart.sh: its arguments, signals and exit code are those of the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ['bash', str(ROOT / 'launch' / 'quickstart.sh')]
# Stands for the command: prints its words, one a line; with --wait it waits for SIGTERM and ends with 143.
COMMAND = """#!{python}
import signal, sys
print(*sys.argv[1:], sep='\\n', flush=True)
if '--wait' in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print('ready', flush=True)
    signal.pause()
sys.exit(7 if '--fail' in sys.argv else 0)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which all is installed, with a command that runs nothing."""
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


@pytest.mark.parametrize('words', [[], ['--workdir=a b', '--dry_run'], ['--config.recipe.steps=2', '--fail']])
def test_further_arguments_go_to_the_run(words: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run([*SCRIPT, *words], env=environment, capture_output=True, text=True)
    default = ['run', '--config=configs/quickstart.py', '--workdir=runs/quickstart']
    assert done.stdout.splitlines() == [*default, *words], done.stderr
    assert done.returncode == (7 if '--fail' in words else 0)


def test_a_signal_to_the_script_stops_the_run(environment: dict[str, str]) -> None:
    with subprocess.Popen([*SCRIPT, '--wait'], env=environment, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        assert 'ready\n' in iter(script.stdout.readline, '')
        script.terminate()
        assert script.wait(timeout=60) == 143
