"""Who works on which run, where several processes share a workdir: claims, as numbered files that are made once.

    with Claims(workdir / 'claims', shard='1/2') as claims:
        claim = claims.take(run.name)           # None while another process holds it
        ...
        claim.release('done')

A claim is the file RUN.NUMBER.json, made only if it is not there. The one with the highest number counts: its process
holds the run until it writes into it that it has let go. A run is free where no claim is, where the last one was let
go, or where its process is gone; it is then claimed by making the next number, which exactly one of several processes
can do. Numbers are never used twice and files never deleted, so nothing that somebody saw a while ago can be mistaken
for what is there now, and the folder is a record of who did what.

A process is gone where it is known to have ended (it ran on this machine, and its number is free or belongs to a
process that began at another time), or where it has given no sign for `timeout` seconds: a thread touches the file
while the run is held. Ages are counted by the clock of the file system. A process that was taken for gone and comes
back learns it (`Claim.lost`).

All that is asked of the storage is that making a file which is there fails: local disks, NFS (hard links, which NFS
makes once even where O_EXCL is not reliable: open(2)), and file systems without hard links whose O_EXCL can be relied
upon. Object stores have the same operation (a PUT with If-None-Match: *; Google's ifGenerationMatch=0) and would need
`_create`, `_read` and `_top` written for them; the rest of a workdir is files, so mount the bucket instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xlmr_flax.util import strict_json
from xlmr_flax.util.files import write_atomically

TIMEOUT = 900.0  # seconds without a sign after which a process elsewhere counts as gone
_BEAT = 30.0  # seconds between two signs; a shorter timeout shortens them
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class ClaimLost(RuntimeError):
    """This process was taken for gone, and another one works on its run now."""


@dataclass(frozen=True)
class Holder:
    """A process that has claimed a run. space: where its pid means something ('' = on `host`). began: when the process
    did, in the system's ticks, 0 = not known: a pid is given again to other processes. since: time of the claim, UNIX
    seconds. released: what came of it, '' while it is held."""

    host: str
    pid: int
    space: str
    began: int
    shard: str
    since: float
    released: str = ''

    def __str__(self) -> str:
        return f'{self.host}, process {self.pid}' + (f', shard {self.shard}' if self.shard else '')


_PIDS = 2**31  # a process number is below
_NOBODY = Holder('an unknown host', 0, '', 0, '', 0.0)


@dataclass
class Claim:
    """A run that this process holds. lost: another process has taken it over."""

    path: Path
    holder: Holder
    following: Path
    lost: bool = False
    _released: bool = field(default=False, repr=False)

    def beat(self) -> None:
        """Gives a sign of life, and looks whether the claim still counts."""
        try:
            os.utime(self.path)
            self.lost = self.lost or self.following.exists()
        except FileNotFoundError:
            self.lost = True
        except OSError:  # a file system that does not answer now may later
            pass

    def check(self) -> None:
        """Raises ClaimLost where another process has taken over."""
        if self.lost:
            raise ClaimLost(f'{self.path}: this process gave no sign for too long, and another one took over')

    def release(self, outcome: str) -> None:
        """Lets go. outcome: one word for the record. Without effect the second time. Raises nothing."""
        if not self._released:
            self._released = True
            if self.path.exists():
                with contextlib.suppress(OSError):  # a full disk; the end of this process says it, too
                    write_atomically(self.path, _text(dataclasses.replace(self.holder, released=outcome)))


class Claims:
    """The claims of one process in a folder that all processes see. Leaving the context lets go of everything."""

    def __init__(self, directory: Path, shard: str = '', timeout: float = TIMEOUT, look_only: bool = False):
        """look_only: nothing is written, `holder` and `history` alone can be asked."""
        self.directory, self.shard, self.timeout, self.look_only = directory, shard, timeout, look_only
        self._held: list[Claim] = []
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Claims:
        self._end.clear()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        if self._thread:
            self._thread.join(timeout=5)  # a file system may hang
            self._thread = None
        for claim in self._held:
            claim.release('stopped')
        self._held.clear()

    def take(self, name: str) -> Claim | None:
        """Claims a run, None where another process holds it or was faster. Raises OSError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        number, path = self._top(name)
        if path is not None and self._holds(path) is not None:
            return None
        holder, path = self._me(), self._path(name, number + 1)
        if not _create(path, _text(holder)):
            return None
        claim = Claim(path, holder, self._path(name, number + 2))
        self._held = [each for each in self._held if not each._released] + [claim]
        if self._thread is None:
            thread = threading.Thread(target=self._beat, name='claims', daemon=True)
            thread.start()  # may fail: a thread that has not started cannot be joined
            self._thread = thread
        return claim

    def holder(self, name: str) -> Holder | None:
        """The process that holds a run, None where it is free."""
        _, path = self._top(name)
        return None if path is None else self._holds(path)

    def history(self, name: str) -> list[Holder]:
        """Everyone who has ever claimed a run, in order."""
        return [holder for _, path in sorted(self._files(name)) if (holder := _read(path))]

    def _path(self, name: str, number: int) -> Path:
        return self.directory / f'{name}.{number}.json'

    def _files(self, name: str) -> Iterator[tuple[int, Path]]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith(f'{name}.') and (
                    found := re.fullmatch(r'(\d+)\.json', entry.name[len(name) + 1 :])
                ):
                    yield int(found[1]), Path(entry.path)

    def _top(self, name: str) -> tuple[int, Path | None]:
        return max(self._files(name), default=(0, None), key=lambda found: found[0])

    def _holds(self, path: Path) -> Holder | None:
        """The holder of the claim that counts, unless it has let go or is gone."""
        holder = _read(path)
        if holder is not None:
            if holder.released:
                return None
            if holder.space == _space() and (holder.space or holder.host == socket.gethostname()):
                return holder if _is_alive(holder.pid, holder.began) else None
        try:
            age = self._now() - path.stat().st_mtime
        except FileNotFoundError:  # folder emptied by hand
            return None
        if age > self.timeout:
            return None
        return holder or _NOBODY

    def _now(self) -> float:
        """The clock of the file system, which stamps the signs of life: those of two machines may differ."""
        if self.look_only:
            return time.time()
        probe = self.directory / f'.clock-{uuid.uuid4().hex}'
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _me(self) -> Holder:
        pid = os.getpid()
        return Holder(socket.gethostname(), pid, _space(), _began(pid)[0], self.shard, time.time())

    def _beat(self) -> None:
        while not self._end.wait(min(_BEAT, self.timeout / 4)):
            for claim in list(self._held):
                if not claim._released:
                    claim.beat()


def _create(path: Path, text: str) -> bool:
    """Makes a file with its content in one step; False where it is there already.

    By a hard link to a file of this process alone (open(2), O_EXCL: 'on NFS ... create a unique file and use link(2)').
    The link count decides, since the answer of a server may be lost and asked for again.
    """
    own = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.tmp')
    try:
        own.write_text(text, encoding='utf-8')
        os.link(own, path)
        return True
    except OSError as error:
        if own.is_file() and own.stat().st_nlink == 2:
            return True
        if isinstance(error, FileExistsError):
            return False
        if error.errno not in _NO_LINKS:
            raise
    finally:
        own.unlink(missing_ok=True)
    try:
        with path.open('x', encoding='utf-8') as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _text(holder: Holder) -> str:
    return json.dumps(dataclasses.asdict(holder)) + '\n'


def _read(path: Path) -> Holder | None:
    """None for a file that is gone, damaged, or (without hard links) not written yet: only its age counts then."""
    try:
        facts = strict_json.read_object(path)
        if all(isinstance(value, type(getattr(_NOBODY, name, None))) for name, value in facts.items()):
            holder = Holder(**facts)
            return holder if 0 < holder.pid < _PIDS else None
    except (OSError, ValueError, TypeError):
        pass
    return None


def _space() -> str:
    """Names what shares process numbers with this process: the machine since it started, and its container."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()
        return f'{boot} {os.readlink("/proc/self/ns/pid")}'
    except OSError:  # no Linux: the host's name must do
        return ''


def _began(pid: int) -> tuple[int, str]:
    """(start of a process in clock ticks since the machine's, its state); (0, '') where that cannot be read."""
    try:
        # proc(5): the name, in brackets, may hold anything; behind it the fields count from the third.
        fields = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8', errors='replace').rpartition(')')[2].split()
        return int(fields[19]), fields[0]
    except (OSError, IndexError, ValueError):
        return 0, ''


def _is_alive(pid: int, began: int) -> bool:
    """Whether a process of this machine is there and the same one."""
    now, state = _began(pid)
    if state in ('Z', 'X'):  # ended; its parent has not looked yet
        return False
    if now and began:
        return now == began
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
