"""Reads listed members of zip and tar archives safely: with a size limit, and never to paths that the archive names."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from xlmr_flax.download.facts import Source, pattern
from xlmr_flax.download.records import DownloadError

# Limit of the unpacked size: _RATIO times the size of the archive + _ROOM bytes. Text compresses less, a zip bomb more.
_RATIO, _ROOM = 50, 64 << 20
# Exceptions of the standard library for a damaged archive; NotImplementedError is that for an unknown compression.
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError)


class Budget:
    """Counts the unpacked bytes of an archive, nested archives included. Raises DownloadError above the limit."""

    def __init__(self, path: Path):
        self.path, self.left = path, _RATIO * path.stat().st_size + _ROOM

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            limit = _RATIO * self.path.stat().st_size + _ROOM
            raise DownloadError(
                f'unpacks to more than {limit >> 20} MiB, for {self.path.stat().st_size} bytes: refused'
            )


class _Counted(io.RawIOBase):
    """A stream that counts the bytes it reads in a budget."""

    def __init__(self, stream: IO[bytes], budget: Budget):
        self.stream, self.budget = stream, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        data = self.stream.read(len(buffer))
        self.budget.take(len(data))
        buffer[: len(data)] = data
        return len(data)


def listed(source: Source, path: Path, password: str = '') -> Iterator[tuple[str, list[str], IO[bytes], Budget]]:
    """Yields (name, targets, stream, budget) of each listed member, in the order of the archive.

    Raises DownloadError if the archive is broken, lacks a listed member, contains a path outside the folder, has a link
    as a listed member, or unpacks to far more than its size.
    """
    exact: dict[str, list[str]] = {}
    globs: dict[str, list[str]] = {}
    for member, target in source.members:
        (globs if '*' in member else exact).setdefault(member, []).append(target)
    compiled = [(pattern(member), member, targets) for member, targets in globs.items()]
    missing = {member for member in (*exact, *globs) if '*' not in member.removeprefix('**/')}
    budget = Budget(path)
    try:
        for name, is_plain, open_member in _entries(path, password):
            _refuse_unsafe(name)
            targets = list(exact.get(name, ()))
            missing.discard(name)
            for regex, member, wild in compiled:
                if match := regex.fullmatch(name):
                    missing.discard(member)
                    targets += [_filled(target, match.groups()) for target in wild]
            if targets and not is_plain:
                raise DownloadError(f'member {name!r} is a link or no plain file: refused')
            if targets:
                with contextlib.closing(open_member()) as stream:
                    yield name, targets, io.BufferedReader(_Counted(stream, budget), 1 << 20), budget
    except BROKEN as error:
        raise DownloadError(f'broken archive: {error or type(error).__name__}') from None
    if missing:
        raise DownloadError(f'member {min(missing)!r} is not in it')


def nested(stream: IO[bytes], budget: Budget) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields (name, stream) of the regular files of a compressed tar archive inside another archive."""
    with tarfile.open(fileobj=stream, mode='r|*') as tar:
        for member in tar:
            if member.isreg() and (inner := tar.extractfile(member)):
                yield member.name, io.BufferedReader(_Counted(inner, budget), 1 << 20)


def _entries(path: Path, password: str) -> Iterator[tuple[str, bool, Callable[[], Any]]]:
    """Yields (name, whether it is a regular file, function that opens it) of every member."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            for info in file.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                is_plain = not info.is_dir() and kind in (0, stat.S_IFREG)
                yield info.filename, is_plain, lambda info=info: _open(file, info, password)
    else:
        with tarfile.open(path, 'r|*') as tar:
            for member in tar:
                yield member.name.removeprefix('./'), member.isreg(), lambda member=member: tar.extractfile(member)


def _open(file: zipfile.ZipFile, info: zipfile.ZipInfo, password: str) -> IO[bytes]:
    if info.flag_bits & 1 and not password:
        raise DownloadError('it is encrypted and no password was given')
    try:
        return file.open(info, pwd=password.encode() or None)
    except RuntimeError:  # zipfile raises this for a wrong password
        raise DownloadError('the password is wrong') from None


def _refuse_unsafe(name: str) -> None:
    path = PurePosixPath(name.replace('\\', '/'))
    if path.is_absolute() or '..' in path.parts or ':' in name.split('/')[0]:
        raise DownloadError(f'member {name!r} has a path outside of the folder: refused')


def _filled(target: str, groups: tuple[str, ...]) -> str:
    """Replaces the wildcards of a target by the texts that the member's wildcards matched, in order."""
    for group in groups:
        target = target.replace('*', group, 1)
    return target
