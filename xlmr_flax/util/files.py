"""Atomic writing: a reader sees the old file or the new one, never a part."""

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
    """Gives an empty file beside `path` to write to, which becomes `path` when the block ends. Makes the folder.

    The file gets the mode that the umask gives. When the block raises, the file is deleted and `path` stays as it was;
    an OSError names `path` where it names no file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name[:100]}.', suffix='.tmp')
    os.close(handle)
    try:
        yield Path(name)
        readable(name)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # write() and flush() name no file
            error.filename = str(path)
        raise


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Writes text (UTF-8) or bytes as `replacing` does and returns the path."""
    with replacing(path) as part, part.open('wb') as file:
        file.write(content.encode('utf-8') if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    return Path(path)


def absolute(path: str) -> str:
    """The absolute form of a path, with ~ expanded. '' and addresses (gs://...) are returned as they are."""
    return path if not path or '://' in path else os.path.abspath(os.path.expanduser(path))


def safe_name(text: str) -> str:
    """A file name for any text: letters, digits, and - _ . + are kept, a leading dot is not.

    A name that had to be changed gets a part of its text's hash, so that two texts never share a file.
    """
    name = re.sub(r'[^A-Za-z0-9_.+-]', '_', text[:100]).lstrip('.')
    return name if name == text and name else f'{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'


def readable(path: str | Path) -> None:
    """Gives a file that was made private (mkstemp, safetensors) the mode that the umask gives to new files."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)
