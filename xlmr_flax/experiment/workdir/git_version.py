"""Finds the git commit of the checkout that contains this package, to record which source code ran."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

_LONGEST = 10.0  # timeout of a git command in seconds, so that a run never waits long for it


@functools.cache
def commit() -> str:
    """Returns the commit as 40 hex digits, followed by ' (modified)' if a tracked file is changed. The first result is
    cached. Returns '' if the package is not in its own checkout (installed, copied, or inside another project's
    folder), and if git is missing or fails.
    """
    return read(Path(__file__).parents[2])


def read(package: Path) -> str:
    """Returns the same as `commit` for the checkout that contains the folder of a package; not cached."""
    if _git(package, 'ls-files', '--error-unmatch', '__init__.py') is None:
        return ''  # the folder may be inside another project's repository, for example in a virtual environment
    described = _git(package, 'describe', '--always', '--abbrev=40', '--exclude=*', '--dirty= (modified)')
    return described or ''


def _git(folder: Path, *arguments: str) -> str | None:
    """Runs git and returns its output; None if it fails."""
    # Without optional locks, git does not disturb a commit that runs at the same time.
    environment = {**os.environ, 'GIT_OPTIONAL_LOCKS': '0'}
    try:
        done = subprocess.run(
            ['git', '-C', str(folder), *arguments],
            capture_output=True, text=True, timeout=_LONGEST, env=environment, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
