"""The commit that a run was made with: where it is known, where it is not, and that it decides nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from xlmr_flax.config import Config
from xlmr_flax.experiment.workdir import files as workdir
from xlmr_flax.experiment.workdir import git_version as checkout
from xlmr_flax.experiment.workdir.files import Workdir

needs_git = pytest.mark.skipif(shutil.which('git') is None, reason='git is not installed')


def git(folder: Path, *arguments: str) -> str:
    settings = ('-c', 'user.name=a', '-c', 'user.email=a@example.org', '-c', 'commit.gpgsign=false')
    done = subprocess.run(['git', *settings, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a checkout of one commit."""
    for name in ('GIT_DIR', 'GIT_WORK_TREE', 'GIT_INDEX_FILE'):  # as a hook of git sets them
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / 'package'
    folder.mkdir()
    (folder / '__init__.py').write_text('')
    git(tmp_path, 'init', '-q')
    git(tmp_path, 'add', '.')
    git(tmp_path, 'commit', '-q', '-m', 'x')
    git(tmp_path, 'tag', 'v1')
    return folder


@needs_git
def test_the_commit_and_whether_the_tree_was_changed(package: Path) -> None:
    commit = git(package, 'rev-parse', 'HEAD')
    assert checkout.read(package) == commit
    (package / 'notes.txt').write_text('not tracked')
    assert checkout.read(package) == commit
    (package / '__init__.py').write_text('changed')
    assert checkout.read(package) == f'{commit} (modified)'


@needs_git
def test_a_copy_within_another_checkout_has_no_commit(package: Path) -> None:
    copy = package.parent / 'venv' / 'package'
    copy.mkdir(parents=True)
    (copy / '__init__.py').write_text('')
    assert checkout.read(copy) == ''


def test_without_git_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkout.read(tmp_path / 'missing') == ''
    monkeypatch.setenv('PATH', str(tmp_path))
    assert checkout.read(tmp_path) == ''


def test_the_workdir_keeps_every_source_that_worked_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(commit: str, shard: str = '') -> list[str]:
        monkeypatch.setattr(workdir, 'commit', lambda: commit)
        Workdir(tmp_path, shard).add_seconds(1.5)
        return Workdir(tmp_path).sources()

    assert work('') == []
    assert json.loads((tmp_path / 'time.json').read_text('utf-8')) == {'seconds': 1.5}
    assert work('a') == ['a']
    assert work('a') == ['a']
    assert work('b (modified)') == ['a', 'b (modified)']
    assert work('') == ['a', 'b (modified)'], 'what is not known takes nothing away'
    assert work('c', '1/2') == ['a', 'b (modified)', 'c']
    assert Workdir(tmp_path).seconds() == 9.0
    Workdir(tmp_path).save_config(Config(), 'xlmr-flax run')
    assert set(json.loads((tmp_path / 'config.json').read_text('utf-8'))) == {'command', 'config'}
