"""Which source ran: the commit of the checkout that this package lies in."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

_LONGEST = 10.0  # seconds that git may take: a run does not wait for it


@functools.cache
def source() -> str:
    """The commit as 40 hex digits, with ' (modified)' behind it where a tracked file was changed; as it was when first
    asked for. '' where the package is not in a checkout of its own (installed, copied, or within another project's
    folder), and where git is not there or does not answer.
    """
    return read(Path(__file__).parents[1])


def read(package: Path) -> str:
    """`source` of the checkout that a package's folder lies in."""
    if _git(package, 'ls-files', '--error-unmatch', '__init__.py') is None:
        return ''  # another project's repository may hold this folder, as one with a virtual environment in it does
    said = _git(package, 'describe', '--always', '--abbrev=40', '--exclude=*', '--dirty= (modified)')
    return said or ''


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails."""
    # Without optional locks a commit that is being made meanwhile is not disturbed.
    environment = {**os.environ, 'GIT_OPTIONAL_LOCKS': '0'}
    try:
        done = subprocess.run(
            ['git', '-C', str(folder), *arguments],
            capture_output=True, text=True, timeout=_LONGEST, env=environment, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
