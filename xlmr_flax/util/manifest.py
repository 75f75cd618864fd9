"""Writes and checks the manifest of a folder: the size and sha256 of each of its files.

The manifest is the file manifest.json of the folder:
{"format": 1, "files": {"FILE": {"size": BYTES, "sha256": HEX}}}.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from xlmr_flax.util import strict_json
from xlmr_flax.util.errors import UserError

MANIFEST = 'manifest.json'
_FORMAT = 1


class ManifestError(UserError, ValueError):
    """A folder differs from its manifest; the message names the file."""


def write_manifest(directory: Path, leave_out: Iterable[str] = ()) -> None:
    """Writes the manifest of every file below a folder except those in `leave_out`, and syncs it to disk."""
    files = {}
    for path in sorted(p for p in directory.rglob('*') if p.is_file()):
        if (name := path.relative_to(directory).as_posix()) not in (MANIFEST, *leave_out):
            files[name] = {'size': path.stat().st_size, 'sha256': _sha256(path)}
    with (directory / MANIFEST).open('w', encoding='utf-8') as f:
        f.write(json.dumps({'format': _FORMAT, 'files': files}, indent=1) + '\n')
        f.flush()
        os.fsync(f.fileno())


def check_manifest(directory: Path, names: Iterable[str] | None = None) -> None:
    """Compares the files below a folder with its manifest. names: check only these, if the manifest lists them.

    Raises ManifestError for the first file that is missing or differs in size or contents, and if the manifest
    itself is missing or cannot be read.
    """
    path = directory / MANIFEST
    try:
        manifest = strict_json.read_object(path)
        files = {str(k): (int(v['size']), str(v['sha256'])) for k, v in manifest['files'].items()}
    except FileNotFoundError:
        raise ManifestError(f'{path} is missing') from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
        raise ManifestError(f'{path} cannot be read ({type(e).__name__}: {e})') from None
    if manifest.get('format') != _FORMAT:
        raise ManifestError(f'{path} has format {manifest.get("format")!r}; this version knows {_FORMAT}')
    for name in files if names is None else [n for n in names if n in files]:
        _check(directory / name, *files[name])


def _check(path: Path, size: int, sha256: str) -> None:
    try:
        if (actual := path.stat().st_size) != size:
            raise ManifestError(f'{path} has {actual} bytes, and {size} were written')
        if _sha256(path) != sha256:
            raise ManifestError(f'{path} is damaged: its sha256 is not the one that was written')
    except FileNotFoundError:
        raise ManifestError(f'{path} is missing') from None
    except OSError as e:
        raise ManifestError(f'{path} cannot be read ({e.strerror})') from None


def _sha256(path: Path) -> str:
    with path.open('rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()
