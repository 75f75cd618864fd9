"""Runs a download: one thread per host; each file is unpacked and recorded as soon as it is complete."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from xlmr_flax.data.readers.paths import is_stand_in
from xlmr_flax.download import archive, convert
from xlmr_flax.download.facts import Source, groups
from xlmr_flax.download.fetch import DownloadStopped, Fetcher, Transport, naming
from xlmr_flax.download.plan import Plan, disk_of, part_size
from xlmr_flax.download.records import WORK, DownloadError, Record, Records, file_sum, size_of
from xlmr_flax.util.console import Line
from xlmr_flax.util.errors import UserError

HOSTS = 8  # maximum number of hosts that files are fetched from at the same time, one file per host
_ASIDE = '.replaced'  # suffix of an existing file that a new file replaces
_SPARE = 32 << 20  # bytes of the disk that must stay free


@dataclass
class Outcome:
    """Result of a download.

    done: sources that are complete and recorded. failed: source -> reason. kept: paths of existing files with other
    content that were not replaced. moved: paths of existing files that were renamed to NAME.replaced.
    """

    done: list[Source] = field(default_factory=list)
    failed: dict[Source, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Creates and locks a data root, so that only one download runs in it. Removes the work folder at the end if it is
    empty. Raises UserError if another download is running."""
    folder = root / WORK
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f'{root}: another download is at work there') from None
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == ['lock']:
                shutil.rmtree(folder)


def check_room(sources: Collection[Source], root: Path) -> None:
    """Raises UserError if the disk has not enough free space for fetching and unpacking the sources, if any."""
    if not sources:
        return
    need = sum(disk_of(source) - max(part_size(source, root), 0) for source in sources) + _SPARE
    free = shutil.disk_usage(root).free
    if need > free:
        raise UserError(f'{root}: about {need / 1e6:.0f} MB are needed, and {free / 1e6:.0f} MB are free')


class Job:
    """Fetches and unpacks sources into a data root.

    replace: existing files of unknown origin are renamed to NAME.replaced. password: that of encrypted archives.
    """

    def __init__(self, root: Path, records: Records, transport: Transport, replace: bool = False, password: str = ''):
        self.root, self.records, self.transport = root, records, transport
        self.replace, self.password = replace, password
        self.outcome = Outcome()
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.here: dict[Source, int] = {}

    def run(self, sources: Iterable[Source]) -> None:
        """Fetches sources and adds the results to `outcome`. Raises OSError for a full disk, and KeyboardInterrupt,
        after all threads have ended."""
        by_host: dict[str, list[Source]] = {}
        for source in sources:
            by_host.setdefault(urlsplit(source.urls[0]).netloc, []).append(source)
        self.here = {source: max(part_size(source, self.root), 0) for those in by_host.values() for source in those}
        waiting: queue.SimpleQueue[list[Source]] = queue.SimpleQueue()
        for those in by_host.values():
            waiting.put(those)
        broken: list[BaseException] = []
        line = Line('download', 'MB')
        threads = [
            threading.Thread(target=self._work, args=(waiting, broken), daemon=True)
            for _ in range(min(HOSTS, len(by_host)))
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
                    self._draw(line)
        except BaseException:
            self.stop.set()
            for thread in threads:
                thread.join()
            raise
        finally:
            line.close(f'{sum(self.here.values()) / 1e6:.1f} MB')
        if broken:
            raise broken[0]

    def _draw(self, line: Line) -> None:
        with self.lock:
            here = sum(self.here.values()) / 1e6
            total = sum(source.size or size for source, size in self.here.items()) / 1e6
        line(round(here), round(total), here)  # pyright: ignore[reportArgumentType]

    def _report(self, source: Source, size: int) -> None:
        with self.lock:
            self.here[source] = size

    def _work(self, waiting: queue.SimpleQueue[list[Source]], broken: list[BaseException]) -> None:
        try:
            while not self.stop.is_set():
                sources = waiting.get_nowait()
                fetcher = Fetcher(self.root, self.transport, self._report, self.stop)
                for source in sources:
                    self._one(fetcher, source)
        except (queue.Empty, DownloadStopped):
            return
        except BaseException as error:  # an error such as a full disk stops all threads
            broken.append(error)
            self.stop.set()

    def _one(self, fetcher: Fetcher, source: Source) -> None:
        try:
            path, published = fetcher.fetch(source)
            try:
                made = self._make(source, path, published)
            except DownloadError:
                if not source.sum or source.group in self.transport.accept_changed:
                    # A file without a verified checksum may be damaged: fetch it again. A verified file is kept: the
                    # reason may be a wrong password, for example.
                    path.unlink()
                raise
        except DownloadError as error:
            with self.lock:
                self.outcome.failed[source] = str(error)
            return
        with self.lock:
            self.records.add(made)
            self.outcome.done.append(source)
        path.unlink(missing_ok=True)

    def _make(self, source: Source, path: Path, published: str) -> list[Record]:
        """Writes the targets of a fetched file; published: its sha256. Raises DownloadError that names the URL and the
        reason."""
        licence = groups()[source.group].licence
        made = []
        try:
            for target, chunks in self._contents(source, path):
                if digest := self._write(target, chunks):
                    size = size_of(self.root / target)
                    made.append(Record(target, size, digest, source.urls[0], published, licence))
        except DownloadError as error:
            raise DownloadError(f'{source.urls[0]}: {error}') from None
        except archive.BROKEN as error:
            raise DownloadError(f'{source.urls[0]}: broken archive: {error or type(error).__name__}') from None
        except (ValueError, LookupError, TypeError, SyntaxError, RecursionError) as error:  # not the expected format
            what = f'{type(error).__name__}: {error}'
            raise DownloadError(f'{source.urls[0]}: its content is not of the known form ({what})') from None
        return made

    def _contents(self, source: Source, path: Path) -> convert.Made:
        budget = archive.Budget(path)
        if source.conversion == 'fracas_plain':
            yield (
                source.targets[0],
                convert.fracas_plain((name, stream.read()) for name, _, stream, _ in archive.listed(source, path)),
            )
        elif source.is_archive:
            made = convert.CONVERSIONS[source.conversion]
            for _, targets, stream, counted in archive.listed(source, path, self.password):
                yield from made(stream, targets, counted)
        else:
            name = 'unpack' if source.conversion == 'copy' else source.conversion
            with path.open('rb') as stream:
                yield from convert.CONVERSIONS[name](stream, list(source.targets), budget)

    def _write(self, target: str, chunks: Iterable[bytes]) -> str:
        """Writes a target file atomically. Returns its sha256, or '' if an existing file was kept.

        An existing file with other content is overwritten if a download wrote it, renamed to NAME.replaced if it is a
        stand-in or `replace` is set, and kept otherwise.
        """
        place = self.root / target
        if place.is_dir():
            raise DownloadError(f'{place}: a folder is in the place of this file')
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f'{place.name}.part')
        try:
            digest = self._put(part, chunks)
            if place.is_file() and not self.records.is_ours(target) and file_sum(place) != digest:
                if not self.replace and not is_stand_in(place, self.root):
                    self._note(self.outcome.kept, target)
                    return ''
                os.replace(place, place.with_name(place.name + _ASIDE))
                self._note(self.outcome.moved, target)
            os.replace(part, place)
            return digest
        finally:
            part.unlink(missing_ok=True)

    def _put(self, part: Path, chunks: Iterable[bytes]) -> str:
        """Writes chunks to a file; returns its sha256. Raises OSError that names the file, and DownloadStopped."""
        digest = hashlib.sha256()
        with naming(part), part.open('wb') as file:
            for chunk in chunks:
                if self.stop.is_set():
                    raise DownloadStopped
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _note(self, where: list[str], target: str) -> None:
        with self.lock:
            where.append(target)


def fetch_all(plan_again: Callable[[set[Source]], Plan], job: Job, declined: Collection[str] = ()) -> Plan:
    """Fetches the missing files of a plan, without the groups in `declined`, and returns the last plan.

    If a source fails, the next source of the same data is tried, until there is none. plan_again: makes the plan
    without the failed sources.
    """
    while True:
        plan = plan_again(set(job.outcome.failed))
        tried = {*job.outcome.done, *job.outcome.failed}
        left = [source for source in plan.to_fetch() if source not in tried and source.group not in declined]
        if not left:
            return plan
        job.run(left)
