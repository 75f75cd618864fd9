"""Checks that the file system of a workdir can write files and rename folders; removes what killed processes left."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from pathlib import Path

from xlmr_flax.config import ConfigError

# Temporary files of atomic writes (scoring/files.py, util/files.py, claims.py), and probes of the file system.
_TEMPORARY = re.compile(
    r'\..+\.(?:\d+-[0-9a-f]{8}|[0-9a-f]{32}|[a-z0-9_]{8})\.tmp|\.(?:writable|clock|renamed)-[0-9a-f]{32}'
)
_ABANDONED = 3600.0  # seconds; a temporary file normally exists only while one text is written


def check_writable(path: Path) -> float:
    """Makes the folder and writes a file in it; returns the time of the file system's clock. Raises ConfigError if it
    cannot be written to, or if its folders cannot be renamed."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        # The name is unique, since two processes may start at the same time.
        probe = path / f'.writable-{uuid.uuid4().hex}'
        probe.write_text('')
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError as e:
        raise ConfigError(f'{path}: cannot be written to ({e.strerror})') from None
    _check_renames(path)
    return now


def _check_renames(path: Path) -> None:
    """Renames a folder with a file, as a checkpoint is renamed when it is complete. Raises ConfigError where the file
    system cannot; the mount of a bucket with a flat namespace is one."""
    before, after = (path / f'.renamed-{uuid.uuid4().hex}' for _ in range(2))
    try:
        before.mkdir()
        (before / 'file').write_text('')
        before.rename(after)
        (after / 'file').unlink()
    except OSError as e:
        said = f'{path}: a folder cannot be renamed here ({e.strerror}), as a checkpoint is when it is complete'
        raise ConfigError(
            f'{said}; a bucket needs a hierarchical namespace (launch/README.md, step 4), or take --workdir=gs://...'
        ) from None
    finally:
        shutil.rmtree(before, ignore_errors=True)
        shutil.rmtree(after, ignore_errors=True)


def remove_abandoned(folder: Path, now: float) -> None:
    """Deletes temporary files and probes that a killed process has left in a folder. now: time of the file system's
    clock."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # another process may delete it at the same time
                    if now - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED:
                        if entry.is_dir(follow_symlinks=False):
                            shutil.rmtree(entry.path)
                        else:
                            os.unlink(entry.path)
