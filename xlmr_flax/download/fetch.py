"""Downloads a published file: resumes, retries, uses mirrors and verifies the checksum."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

import xlmr_flax
from xlmr_flax.download import hub
from xlmr_flax.download.facts import HUB, Source, sources
from xlmr_flax.download.records import WORK, DownloadError, Sums, size_of

MIRROR_VARIABLE = 'XLMR_MIRROR'
_CHUNK = 1 << 16  # a lost connection loses at most this many bytes


@dataclass(frozen=True)
class Transport:
    """Settings of the download.

    mirror: a base URL (https://, http:// or file://), followed by host and path of the published URL.
    archives: a folder with files that were downloaded elsewhere. accept_changed: groups whose files are accepted with
    any checksum. timeout: seconds without a byte. attempts: for each URL; the waiting time starts with `pause` seconds
    and doubles.
    """

    mirror: str = ''
    archives: Path | None = None
    accept_changed: tuple[str, ...] = ()
    timeout: float = 60.0
    attempts: int = 5
    pause: float = 1.0


class DownloadStopped(Exception):
    """Raised if the download was asked to stop."""


class _Transient(Exception):
    """A transient failure: the URL is tried again.

    wait: seconds that the server asks for, 0 = not given. reached: False if there was no connection.
    """

    def __init__(self, reason: str, wait: float = 0.0, reached: bool = True):
        super().__init__(reason)
        self.wait, self.reached = wait, reached


class _Refused(Exception):
    """A permanent failure of a URL: the next URL is tried."""


class Fetcher:
    """Downloads files from one host to ROOT/.download, one after the other, in one HTTP session.

    report: called with a source and the number of its bytes on disk. stop: an event that ends the download with
    DownloadStopped. A host that could not be reached in any attempt is not tried again for the next files.
    """

    def __init__(self, root: Path, transport: Transport, report: Callable[[Source, int], None], stop: threading.Event):
        self.folder, self.transport, self.report, self.stop = root / WORK, transport, report, stop
        self.unreached: set[str] = set()
        self.session = requests.Session()
        self.session.headers.update({'User-Agent': f'xlmr-flax/{xlmr_flax.__version__}', 'Accept-Encoding': 'identity'})

    def fetch(self, source: Source) -> tuple[Path, str]:
        """Downloads a file and verifies its checksum; returns its path and its sha256.

        Checksums are computed while the bytes arrive. Raises DownloadError with the reason for each URL, OSError for a
        full disk (the partial file is kept for the next start), and DownloadStopped.
        """
        path = self.folder / source.key
        reasons: list[str] = []
        if path.is_file():  # complete, from an earlier start that was stopped before the file was unpacked
            self.report(source, size_of(path))
            return path, Sums().read(path).sha256
        if sha256 := self._from_archives(source, path, reasons):
            self.report(source, size_of(path))
            return path, sha256
        for address in (each for url in source.urls for each in mirrored(url, self.transport.mirror)):
            try:
                return self._from(source, address, path)
            except _Refused as error:
                reasons.append(f'{address}: {error}')
        raise DownloadError('; '.join(reasons))

    def _from_archives(self, source: Source, path: Path, reasons: list[str]) -> str:
        """Copies the file of --archives with the source's name and checksum; returns its sha256, '' without one.

        reasons: gets a line for each file with this name and another checksum."""
        folder, part = self.transport.archives, path.with_name(f'{path.name}.copy')
        for local in _named(folder, source) if folder else ():
            sums = Sums(size_of(local))
            with naming(part), local.open('rb') as file, part.open('wb') as copy:
                while chunk := file.read(1 << 20):
                    if self.stop.is_set():
                        raise DownloadStopped
                    sums.update(chunk)
                    copy.write(chunk)
            if fault := self._fault(source, part, sums):
                part.unlink()
                reasons.append(f'{local}: {fault}')
            else:
                os.replace(part, path)
                return sums.sha256
        return ''

    def _from(self, source: Source, address: str, path: Path) -> tuple[Path, str]:
        sums = Sums(source.size)
        part = path.with_name(f'{path.name}.part')
        host, wait = urllib.parse.urlsplit(address).netloc, self.transport.pause
        if host in self.unreached:
            raise _Refused(f'not tried: there was no connection to {host}')
        for attempt in range(1, self.transport.attempts + 1):
            if self.stop.is_set():
                raise DownloadStopped
            try:
                if source.use == HUB and hub.parts_of(address):
                    self._from_hub(source, address, part)
                    sums = Sums(source.size).read(part)
                else:
                    sums = self._stream(source, address, part, sums)
                break
            except _Transient as error:
                if attempt == self.transport.attempts:
                    if not error.reached:
                        self.unreached.add(host)
                    kept = f'; {size_of(part)} bytes are kept, and the next start goes on' if part.is_file() else ''
                    raise _Refused(f'{error} ({attempt} attempts){kept}') from None
                if self.stop.wait(error.wait or wait):
                    raise DownloadStopped from None
                wait *= 2
        if fault := self._fault(source, part, sums):
            part.unlink()  # a wrong file cannot be resumed
            raise _Refused(fault)
        os.replace(part, path)
        return path, sums.sha256

    def _from_hub(self, source: Source, address: str, part: Path) -> None:
        """Downloads a whole file from the hub. Raises _Transient, _Refused and DownloadStopped."""

        def check() -> None:
            if self.stop.is_set():
                raise DownloadStopped

        try:
            hub.fetch(address, part, lambda size: self.report(source, size), check, self.transport.timeout)
        except hub.HubError as error:
            raise (_Transient if error.transient else _Refused)(str(error)) from None

    def _stream(self, source: Source, address: str, part: Path, sums: Sums) -> Sums:
        """Downloads the missing bytes of `part` and appends them; returns the checksums of the whole file.

        sums: those of the bytes so far; if they are of fewer or more bytes, `part` is read again. Raises _Transient,
        _Refused and DownloadStopped.
        """
        start = max(size_of(part), 0)
        if source.size is not None and start > source.size:
            start = 0
        if source.size is not None and start == source.size:
            return sums if sums.size == start else Sums(source.size).read(part)
        with self._opened(address, start) as (where, total, chunks):
            if where < 0:  # the published file is shorter than the partial file: it is another file
                part.unlink()
                raise _Transient(f'the file there has {total} bytes and {start} are here: begun again')
            if source.size is not None and source.group not in self.transport.accept_changed:
                if total not in (None, source.size):
                    raise _Refused(
                        f'the file there has {total} bytes, not the published {source.size}; '
                        f'--accept_changed={source.group} takes it as it is'
                    )
                total = source.size
            got = start = where
            with naming(part), part.open('r+b' if start else 'wb') as file:
                file.truncate(start)
                file.seek(start)
                if sums.size != start or source.size is None:
                    sums = Sums(total).read(part, start)
                for chunk in chunks:
                    if self.stop.is_set():
                        raise DownloadStopped
                    got += len(chunk)
                    if total is not None and got > total:
                        raise _Refused(f'more than its {total} bytes came: not the published file')
                    file.write(chunk)
                    sums.update(chunk)
                    self.report(source, got)
        if total is not None and got < total:
            raise _Transient(f'the connection ended after {got} of {total} bytes')
        return sums

    @contextlib.contextmanager
    def _opened(self, address: str, start: int) -> Iterator[tuple[int, int | None, Iterator[bytes]]]:
        """Opens a URL at the byte `start`: (offset of the first byte, size of the whole file or None, chunks of
        bytes)."""
        if address.startswith('file://'):
            path = Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path))
            if not path.is_file():
                raise _Refused('no such file')
            with path.open('rb') as file:
                file.seek(start)
                yield start, size_of(path), iter(lambda: file.read(_CHUNK), b'')
            return
        ask = {'Range': f'bytes={start}-'} if start else {}
        limits = (self.transport.timeout, self.transport.timeout)
        reached = False
        try:
            with self.session.get(address, headers=ask, stream=True, timeout=limits) as answer:
                reached = True
                where, total = _understood(answer, start)
                yield where, total, answer.iter_content(_CHUNK) if answer.status_code != 416 else iter(())
        except requests.Timeout as error:
            connected = not isinstance(error, requests.ConnectTimeout)
            raise _Transient(f'no answer for {self.transport.timeout:g} seconds', reached=connected) from None
        except requests.ConnectionError as error:
            if reached and 'timed out' in str(error).lower():  # a timeout while the body is read
                raise _Transient(f'no byte for {self.transport.timeout:g} seconds') from None
            raise _Transient(f'the connection failed ({_short(error)})', reached=reached) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:  # after a redirect
            raise _Refused(_short(error)) from None
        except requests.RequestException as error:  # an incomplete body
            raise _Transient(f'the connection failed ({_short(error)})') from None

    def _fault(self, source: Source, part: Path, sums: Sums) -> str:
        """What is wrong with a complete file; '' = nothing. Without a published checksum, only a web page is wrong, for
        instance the login page of a network."""
        if not source.sum and _begins_as_page(part):
            return 'a web page came instead of the file'
        if source.group in self.transport.accept_changed or sums.match(source, part):
            return ''
        expected = f'{source.sum} ({source.size} bytes)' if source.size is not None else source.sum
        got = f'{sums.of(source, part)} ({size_of(part)} bytes)'
        return f'wrong sum: expected {expected}, got {got}; --accept_changed={source.group} takes it as it is'


def _understood(answer: requests.Response, start: int) -> tuple[int, int | None]:
    """Interprets the status and headers of a response: (offset at which the body starts, size of the whole file or
    None). The offset is -1 if the file is shorter than `start`.

    Raises _Transient and _Refused.
    """
    code = answer.status_code
    if code == 206:
        span = answer.headers.get('Content-Range', '')
        where, _, total = span.removeprefix('bytes ').partition('/')
        if not where.startswith(f'{start}-'):
            raise _Refused(f'it answers another part ({span!r}) than was asked for')
        return start, int(total) if total.isdecimal() else None
    if code == 200:
        encoded = answer.headers.get('Content-Encoding', 'identity') != 'identity'
        length = '' if encoded else answer.headers.get('Content-Length', '')
        return 0, int(length) if length.isdecimal() else None
    if code == 416:
        total = answer.headers.get('Content-Range', '').rpartition('/')[2]
        return (start, start) if total == str(start) else (-1, int(total) if total.isdecimal() else None)
    status = f'status {code} {answer.reason or ""}'.strip()
    if code in hub.TRANSIENT:
        wait = answer.headers.get('Retry-After', '')
        raise _Transient(status, min(float(wait), 60.0) if wait.isdecimal() else 0.0)
    raise _Refused(status)


def mirrored(url: str, base: str) -> list[str]:
    """The URLs of a published file on the mirror `base` (BASE/HOST/PATH); `url` itself if `base` is ''.

    `wget -x` makes the query a part of the file's name, and other programs leave it out: both names are tried.
    """
    if not base:
        return [url]
    path, _, query = url.split('://', 1)[1].partition('?')
    in_name = f'{path}%3F{query}'
    paths = [path] if not query else [in_name, path] if base.startswith('file:') else [f'{path}?{query}', in_name]
    return [f'{base.rstrip("/")}/{each}' for each in paths]


def mirror_fault(base: str) -> str:
    """What is wrong with the base of a mirror; '' = nothing."""
    try:
        parts = urllib.parse.urlsplit(base)
    except ValueError as error:  # such as brackets in the host
        return str(error)
    if parts.scheme == 'file' and parts.netloc in ('', 'localhost'):
        folder = Path(urllib.request.url2pathname(parts.path))
        return '' if folder.is_dir() else f'no such folder: {folder}'
    if not base or (parts.scheme in ('https', 'http') and parts.netloc):
        return ''
    folder = Path(base).expanduser().absolute()
    example = folder.as_uri() if folder.is_dir() else 'file:///FOLDER'
    return f'https://HOST..., http://HOST... or {example} is expected'


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the file name to an OSError of write() or flush(), which do not name the file."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def _named(folder: Path, source: Source) -> list[Path]:
    """The files below a folder with the name of a published file, with or without its URL's query.

    A file without a published checksum whose name others have as well (train.tsv) must lie at HOST/PATH of its URL.
    """
    names = (source.name, source.urls[0].rsplit('/', 1)[1])
    found = sorted(path for path in folder.rglob(f'{source.name}*') if path.name in names and path.is_file())
    if source.sum or sum(each.name == source.name for each in sources()) < 2:
        return found
    place = urllib.parse.unquote(source.urls[0].split('://', 1)[1])
    return [path for path in found if f'/{path.as_posix()}'.endswith(f'/{place}')]


def _begins_as_page(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(256).lstrip().lower().startswith((b'<!doctype html', b'<html'))


def _short(error: Exception) -> str:
    """The first line of the cause that urllib3 gives, without the connection's name; at most 160 characters."""
    cause = getattr(error.args[0], 'reason', None) if error.args else None
    return re.sub(r'^\w+\(.*?\): ', '', str(cause or error).split('\n')[0])[:160]
