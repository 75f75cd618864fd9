"""Records of the downloaded files and the accepted licences of a data root: DOWNLOADS.tsv and LICENCES.tsv."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from xlmr_flax.download.facts import Group, Source
from xlmr_flax.util.errors import UserError
from xlmr_flax.util.files import write_atomically

DOWNLOADS, LICENCES, WORK = 'DOWNLOADS.tsv', 'LICENCES.tsv', '.download'


class DownloadError(UserError):
    """Raised for a published file that could not be fetched, verified or unpacked; the message names its URL."""


@dataclass(frozen=True)
class Record:
    """The record of one written file.

    path: relative to the data root. size: bytes. sha256: that of the written file. url: URL of the published file that
    it was made from. published: sha256 of the published file. licence: licence of the dataset.
    """

    path: str
    size: int
    sha256: str
    url: str
    published: str
    licence: str


class Records:
    """The records of a data root, by path. Every call of `add` writes DOWNLOADS.tsv again."""

    def __init__(self, root: Path):
        self.root = root
        self.by_path = {record.path: record for record in _read(root / DOWNLOADS)}

    def of(self, source: Source) -> list[Record]:
        return [record for record in self.by_path.values() if record.url in source.urls]

    def has(self, source: Source) -> bool:
        """Whether all files made from a source still exist with the recorded size."""
        records = self.of(source)
        return bool(records) and all(self.is_ours(record.path) for record in records)

    def is_ours(self, path: str) -> bool:
        """Whether a download wrote this file and its size is still the recorded one."""
        record = self.by_path.get(path)
        return record is not None and size_of(self.root / path) == record.size

    def add(self, records: Iterable[Record]) -> None:
        self.by_path |= {record.path: record for record in records}
        lines = ['\t'.join(field.name for field in fields(Record))]
        lines += [
            '\t'.join(str(getattr(record, field.name)) for field in fields(Record))
            for _, record in sorted(self.by_path.items())
        ]
        write_atomically(self.root / DOWNLOADS, '\n'.join(lines) + '\n')


def _text(path: Path) -> str:
    """The text of a file, '' if it does not exist. Raises UserError for bytes that are not UTF-8."""
    try:
        return path.read_text(encoding='utf-8') if path.is_file() else ''
    except UnicodeDecodeError as error:
        raise UserError(f'{path}: no UTF-8 text (byte {error.start}); remove the file') from None


def _read(path: Path) -> list[Record]:
    records = []
    for number, line in enumerate(_text(path).splitlines()[1:], 2):
        cells = line.split('\t')
        if len(cells) != len(fields(Record)) or not cells[1].isdecimal():
            raise UserError(f'{path}, line {number}: not a record of a download; remove the line or the file')
        records.append(Record(cells[0], int(cells[1]), *cells[2:]))
    return records


def accepted(root: Path) -> set[str]:
    """The groups whose licences were accepted for this data root."""
    return {line.split('\t')[0] for line in _text(root / LICENCES).splitlines()[1:]}


def accept(root: Path, groups: Iterable[Group]) -> None:
    """Records the acceptance of licences with the date in LICENCES.tsv."""
    path, today = root / LICENCES, datetime.date.today().isoformat()
    old = _text(path) or 'group\tlicence\taccepted\n'
    known = accepted(root)
    new = ''.join(f'{group.name}\t{group.licence}\t{today}\n' for group in groups if group.name not in known)
    if new:
        write_atomically(path, old + new)


def size_of(path: Path) -> int:
    """The size of a file in bytes, -1 if it does not exist."""
    return path.stat().st_size if path.is_file() else -1


def file_sum(path: Path, kind: str = 'sha256') -> str:
    """The checksum of a file in hex. kind: 'sha256', or 'git_blob' for the SHA-1 of git's blob object."""
    digest = hashlib.sha256() if kind == 'sha256' else hashlib.sha1(b'blob %d\0' % path.stat().st_size)
    with path.open('rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class Sums:
    """The checksums of a file, computed while its bytes are written: its sha256, and that of git's blob object.

    size: bytes so far. blob_size: bytes of the whole file, which git's checksum begins with; None = unknown, and then
    git's checksum is not computed.
    """

    def __init__(self, blob_size: int | None = None):
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._git = None if blob_size is None else hashlib.sha1(b'blob %d\0' % blob_size)

    def update(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)

    def read(self, path: Path, count: int | None = None) -> Sums:
        """Adds the first `count` bytes of a file (None = all); returns itself."""
        left = size_of(path) if count is None else count
        with path.open('rb') as file:
            while left > 0 and (chunk := file.read(min(left, 1 << 20))):
                self.update(chunk)
                left -= len(chunk)
        return self

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def of(self, source: Source, path: Path) -> str:
        """The checksum of the kind that is published for a source; '' if none is. path: the file, which is read again
        if git's checksum was not computed."""
        if not source.sum or source.sha256:
            return self.sha256 if source.sum else ''
        return self._git.hexdigest() if self._git is not None else file_sum(path, 'git_blob')

    def match(self, source: Source, path: Path) -> bool:
        """Whether size and checksum are the published ones, as far as these are known."""
        return source.size in (None, self.size) and self.of(source, path) == source.sum


def matches(source: Source, path: Path) -> bool:
    """Whether a file has the published size and checksum, if these are known."""
    if source.size is not None and size_of(path) != source.size:
        return False
    return not source.sum or file_sum(path, 'sha256' if source.sha256 else 'git_blob') == source.sum
