"""Hooks of conftest.py: with --relative_folders, the tests' commands are given relative folders, no absolute ones.

It changes the flags that hold a path (PATH_FLAGS of cli/main.py) in calls of `main` and in processes that a test
starts, and the variable XLMR_DATA_ROOT, which a test reads through the fixture `data_root`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--relative_folders', action='store_true', help="the tests' commands are given relative folders")


def is_here(path: str) -> bool:
    """Whether a path is local: it exists, or is below the folder for temporary files."""
    return os.path.exists(path) or path.startswith(tempfile.gettempdir() + os.sep)


def relative(arguments: Sequence[Any], folder: str) -> list[Any]:
    """--workdir=/a/b -> --workdir=b from /a. Other arguments stay, and paths of other machines (/mnt/bucket/runs)."""
    from xlmr_flax.cli.main import PATH_FLAGS

    found = []
    for argument in arguments:
        name, equals, value = argument.partition('=') if isinstance(argument, str) else ('', '', '')
        is_path = equals and name.lstrip('-') in PATH_FLAGS and os.path.isabs(value) and is_here(value)
        found.append(f'{name}={os.path.relpath(value, folder)}' if is_path else argument)
    return found


def absolute(command: str) -> list[str]:
    """The words of a printed command, with absolute folders: it repeats those that a test's command was given."""
    from xlmr_flax.cli.main import PATH_FLAGS

    parts = [word.partition('=') for word in shlex.split(command)]
    return [
        f'{name}={os.path.abspath(value)}' if equals and name.lstrip('-') in PATH_FLAGS else name + equals + value
        for name, equals, value in parts
    ]


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption('--relative_folders'):
        return
    from xlmr_flax.cli import main as command

    main, start = command.main, subprocess.Popen.__init__

    def relative_main(argv: Sequence[str] | None = None) -> int:
        return main(argv if argv is None else relative(argv, os.getcwd()))

    def relative_start(self: Any, args: Any, *rest: Any, **more: Any) -> None:
        given = relative(args, str(more.get('cwd') or os.getcwd())) if isinstance(args, list | tuple) else args
        start(self, given, *rest, **more)

    command.main = relative_main
    subprocess.Popen.__init__ = relative_start
    if root := os.environ.get('XLMR_DATA_ROOT'):
        os.environ['XLMR_DATA_ROOT'] = os.path.relpath(Path(root).absolute(), os.getcwd())
