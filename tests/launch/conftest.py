"""Fake commands on the PATH: each writes down how it was called and gives the next of its scripted answers."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / 'launch'

_FAKE = """#!{python} -IS
import json, pathlib, sys
folder = pathlib.Path({folder!r})
with (folder / 'calls').open('a') as f:
    f.write(json.dumps([{name!r}, *sys.argv[1:]]) + chr(10))
words = ' '.join([{name!r}, *sys.argv[1:]])
for i, (pattern, answers) in enumerate(json.loads((folder / 'script.json').read_text())):
    if all(part in words for part in pattern.split('|')):
        count = folder / f'count{{i}}'
        n = int(count.read_text()) if count.exists() else 0
        count.write_text(str(n + 1))
        out, code = answers[min(n, len(answers) - 1)]
        print(out, file=sys.stderr if code else sys.stdout)
        sys.exit(code)
"""


@dataclass
class Fakes:
    """A folder of fake commands. Answers: (what is printed - to stderr where the code is not 0 -, exit code)."""

    folder: Path
    script: list[tuple[str, list[tuple[str, int]]]] = field(default_factory=list)

    def command(self, name: str) -> None:
        """Puts a fake of this name on the PATH."""
        path = self.folder / 'bin' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_FAKE.format(python=sys.executable, folder=str(self.folder), name=name))
        path.chmod(0o755)

    def on(self, pattern: str, *answers: tuple[str, int]) -> None:
        """Calls that contain every part of `pattern` (parts joined by |) get these answers in turn, the last one for
        ever. The first pattern that matches counts; a call that matches none prints nothing and returns 0."""
        self.script.append((pattern, list(answers)))

    def run(
        self, script: str, *arguments: str, cwd: Path = ROOT, env: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script of launch/ (of the checkout at `cwd`) with the fakes first on the PATH."""
        (self.folder / 'script.json').write_text(json.dumps(self.script))
        (self.folder / 'bin').mkdir(exist_ok=True)
        path = f'{self.folder / "bin"}{os.pathsep}{os.environ["PATH"]}'
        clean = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM_', 'JAX_', 'XLMR_'))}
        return subprocess.run(
            [bash(), str(cwd / 'launch' / script), *arguments],
            cwd=cwd,
            env=clean | {'HOME': str(self.folder), 'PATH': path} | dict(env),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def dry(self, script: str, *arguments: str) -> list[list[str]]:
        """The commands that --dry_run prints, each as the words that a shell makes of the line. Nothing was called."""
        at = 0 if arguments[0].startswith('-') else 1
        result = self.run(script, *arguments[:at], '--dry_run', *arguments[at:])
        assert result.returncode == 0, result.stderr
        assert self.calls == []
        return [shlex.split(line) for line in result.stdout.splitlines() if line and not line.startswith('#')]

    @property
    def calls(self) -> list[list[str]]:
        """Every call so far: the command's name and its arguments."""
        path = self.folder / 'calls'
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def verbs(self) -> list[str]:
        """The calls of gcloud, in short: `queued-resources create`, `tpu-vm ssh run`, ..."""
        return [_verb(c) for c in self.calls if c[0] == 'gcloud']


def _verb(call: list[str]) -> str:
    kind, verb = call[3:5]
    remote = next((a for a in call if a.startswith('--command=')), '')
    what = [w for w in ('install', 'run', 'stop', 'status', 'follow') if f'on_host.sh {w}' in remote]
    return ' '.join([kind, verb, *what])


def bash() -> str:
    return shutil.which('bash') or '/bin/bash'


def remote(command: list[str]) -> str:
    """The shell line that a gcloud ssh command runs on the hosts."""
    return next(w.removeprefix('--command=') for w in command if w.startswith('--command='))


def words(line: str) -> list[str]:
    """The words a shell makes of a line."""
    out = subprocess.run([bash(), '-c', f'printf "%s\\n" {line}'], capture_output=True, text=True, check=True)
    return out.stdout.splitlines()


def heeding(*command: str | Path) -> list[str]:
    """The command, to be stopped by SIGINT and SIGHUP although what started the tests may ignore them (a background
    job, nohup): a shell cannot trap what it inherits so. A small program puts them back; preexec_fn would do so in a
    fork of this process, and JAX warns of forks.
    """
    restore = 'import os, signal, sys; [signal.signal(s, signal.SIG_DFL) for s in (1, 2)]; '
    restore += 'os.execv(sys.argv[1], sys.argv[1:])'
    return [sys.executable, '-c', restore, *map(str, command)]


def checkout(folder: Path) -> Path:
    """A git checkout with launch/ and one config in its last commit."""
    shutil.copytree(LAUNCH, folder / 'launch')
    (folder / 'configs').mkdir()
    (folder / 'configs' / 'mine.py').write_text('def get_config(): ...\n')
    for name in ('setup.py', 'pyproject.toml'):
        shutil.copy(ROOT / name, folder)
    git = ['git', '-C', str(folder), '-c', 'user.name=x', '-c', 'user.email=x@example.org']
    for arguments in (['init', '--quiet'], ['add', '.'], ['commit', '--quiet', '--message=x']):
        subprocess.run([*git, *arguments], check=True)
    return folder


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture
def gcloud(fakes: Fakes) -> Fakes:
    """A fake gcloud."""
    fakes.command('gcloud')
    return fakes
