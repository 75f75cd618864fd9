"""Atomic file writes: a reader sees the old file or the new one, never a partial file."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary file next to `path`, and renames it to `path` when the block ends. Makes the folder.

    The umask decides the mode of the file. If the block raises, the temporary file is deleted and `path` does not
    change; an OSError without a file name gets the name `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name[:100]}.', suffix='.tmp')
    os.close(handle)
    try:
        yield Path(name)
        set_default_mode(name)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # as write() and flush() raise it
            error.filename = str(path)
        raise


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Writes text (UTF-8) or bytes atomically (see `replacing`) and returns the path."""
    with replacing(path) as part, part.open('wb') as file:
        file.write(content.encode('utf-8') if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    return Path(path)


_MOUNTS = Path('/proc/self/mountinfo')
_REMOTE = ('fuse', 'nfs', 'cifs', 'smb', '9p', 'lustre', 'ceph', 'gpfs', 'beegfs')  # beginnings of file systems' names


def is_remote(path: Path) -> bool:
    """Whether a path lies on a network file system or a mounted bucket; False where that cannot be read."""
    try:
        lines = _MOUNTS.read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return False
    found, place = '', Path(os.path.realpath(path))
    longest = -1
    for line in lines:
        # proc(5): the mount point is the fifth field; the type of the file system is the first one after ' - '.
        before, _, after = line.partition(' - ')
        point = Path(before.split()[4].replace('\\040', ' '))
        if place.is_relative_to(point) and len(point.parts) >= longest:
            longest, found = len(point.parts), after.split()[0]
    return found.startswith(_REMOTE)


def absolute(path: str) -> str:
    """The absolute form of a path, with ~ expanded. '' and addresses (gs://...) are returned as they are."""
    return path if not path or '://' in path else os.path.abspath(os.path.expanduser(path))


def safe_name(text: str) -> str:
    """Turns any text into a file name: keeps letters, digits and - _ . +, but no leading dot.

    A changed name also gets a part of the text's hash, so that two texts never share a file.
    """
    name = re.sub(r'[^A-Za-z0-9_.+-]', '_', text[:100]).lstrip('.')
    return name if name == text and name else f'{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'


def set_default_mode(path: str | Path) -> None:
    """Sets the mode of a file to that of a new file under the umask; mkstemp and safetensors make private files."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)
