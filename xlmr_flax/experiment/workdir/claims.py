"""Claims: lock files that assign each run to one of several processes that share a workdir.

    with Claims(workdir / 'claims', shard='1/2') as claims:
        claim = claims.take(run.name)           # None while another process holds it
        ...
        claim.release('done')

A claim is the file RUN.NUMBER.json, which is created exclusively (creation fails if the file exists). Only the claim
with the highest number counts: its process holds the run until it marks the claim as released. A run is free if it has
no claim, if its last claim is released, or if the process of that claim is gone. A process then claims it by creating
the next number, which succeeds for exactly one process. Numbers are never reused and files are never deleted, so an old
observation can never be confused with the current state. The folder is also a record of who did what.

A process is gone if it is known to have ended (it ran on this machine, and its pid is free or belongs to a process with
another start time), or if it has sent no heartbeat for `timeout` seconds. A thread sends them while the run is held:
each is an empty file with a new name, RUN.NUMBER.beat-K, and the one before is deleted. A release is a file, too,
RUN.NUMBER.released. New names are seen in a listing on any file system, also on a mount that keeps what it has once
read of a file (gcsfuse does so for ever on machine types with TPUs). Ages are measured with the clock of the file
system. A process that was wrongly considered gone notices it (`Claim.lost`).

The only requirement on the storage is exclusive creation of a file. It holds for local disks, for NFS (through hard
links, which are reliable even if O_EXCL is not: open(2)), and for file systems without hard links whose O_EXCL is
reliable. Object stores have the same operation (a PUT with If-None-Match: *; Google's ifGenerationMatch=0), but
`_create`, `_read` and `_top` would have to be written for them. The rest of a workdir needs files, so mount the bucket
instead.
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

TIMEOUT = 900.0  # seconds without a heartbeat after which a process on another machine counts as gone
_BEAT = 30.0  # seconds between two heartbeats; at most a quarter of the timeout
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class ClaimLost(RuntimeError):
    """Another process has taken over the run of this process, which sent no heartbeat for too long."""


@dataclass(frozen=True)
class Holder:
    """A process that has claimed a run. space: the boot and pid namespace in which its pid is valid ('' = use `host`).
    began: start time of the process in clock ticks, 0 = unknown; it detects a reused pid. shard: its --shard. since:
    time of the claim in UNIX seconds. released: the outcome, '' while the run is held."""

    host: str
    pid: int
    space: str
    began: int
    shard: str
    since: float
    released: str = ''

    def __str__(self) -> str:
        return f'{self.host}, process {self.pid}' + (f', shard {self.shard}' if self.shard else '')


_PIDS = 2**31  # exclusive upper limit of a pid
_NOBODY = Holder('an unknown host', 0, '', 0, '', 0.0)


@dataclass
class Claim:
    """A claim of this process on a run. lost: another process has taken over the run."""

    path: Path
    holder: Holder
    following: Path
    lost: bool = False
    _released: bool = field(default=False, repr=False)
    _beats: int = field(default=0, repr=False)

    def beat(self) -> None:
        """Sends a heartbeat and checks whether another process has taken over."""
        try:
            names = set(os.listdir(self.path.parent))
            self.lost = self.lost or self.path.name not in names or self.following.name in names
            if not self.lost:
                _beat_path(self.path, self._beats + 1).touch()
                self._beats += 1
                _beat_path(self.path, self._beats - 1).unlink(missing_ok=True)
        except FileNotFoundError:
            self.lost = True
        except OSError:  # the file system may respond again later
            pass

    def check(self) -> None:
        """Raises ClaimLost if another process has taken over."""
        if self.lost:
            raise ClaimLost(
                f'{self.path}: this process did not renew its claim in time, and another process took the run over'
            )

    def release(self, outcome: str) -> None:
        """Releases the claim. outcome: one word for the record. A second call does nothing. Never raises."""
        if not self._released:
            self._released = True
            if self.path.exists():
                with contextlib.suppress(OSError):  # such as a full disk; the end of this process frees the run as well
                    write_atomically(self.path, _text(dataclasses.replace(self.holder, released=outcome)))
                    _released_path(self.path).touch()
                    _beat_path(self.path, self._beats).unlink(missing_ok=True)


class Claims:
    """The claims of one process, in a folder that all processes see. Leaving the context releases all claims."""

    def __init__(self, directory: Path, shard: str = '', timeout: float = TIMEOUT, look_only: bool = False):
        """Opens the folder. look_only: write nothing; only `holder` can be called."""
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
        """Claims a run; returns None if another process holds it or was faster. Raises OSError."""
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
            thread.start()  # may fail; a thread that has not started must not be joined
            self._thread = thread
        return claim

    def holder(self, name: str) -> Holder | None:
        """Returns the process that holds a run; None if the run is free."""
        _, path = self._top(name)
        return None if path is None else self._holds(path)

    def _path(self, name: str, number: int) -> Path:
        return self.directory / f'{name}.{number}.json'

    def _files(self, name: str) -> Iterator[tuple[int, Path]]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith(f'{name}.') and (
                    match := re.fullmatch(r'(\d+)\.json', entry.name[len(name) + 1 :])
                ):
                    yield int(match[1]), Path(entry.path)

    def _top(self, name: str) -> tuple[int, Path | None]:
        return max(self._files(name), default=(0, None), key=lambda entry: entry[0])

    def _holds(self, path: Path) -> Holder | None:
        """Returns the holder of a claim; None if the claim is released or its process is gone."""
        holder = _read(path)
        if _released_path(path).name in (names := set(os.listdir(self.directory))):
            return None
        if holder is not None:
            if holder.released:
                return None
            if holder.space == _space() and (holder.space or holder.host == socket.gethostname()):
                return holder if _is_alive(holder.pid, holder.began) else None
        last = _last_beat(path, names)
        try:
            age = self._now() - _modified(last)
        except FileNotFoundError:  # of a claim, because a user has deleted it; of a heartbeat, because of the next one
            return None if last == path else holder or _NOBODY
        if age > self.timeout:
            return None
        return holder or _NOBODY

    def _now(self) -> float:
        """Returns the time of the file system's clock, which sets the heartbeat times. Clocks of two machines may
        differ."""
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
    """Creates a file with its content atomically and exclusively; returns False if it exists.

    It makes a hard link to a temporary file with a unique name (open(2), O_EXCL: 'on NFS ... create a unique file and
    use link(2)'). The link count decides whether this succeeded, since an NFS reply may be lost and the call repeated.
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


def _beat_path(path: Path, number: int) -> Path:
    return path.with_name(f'{path.stem}.beat-{number}')


def _released_path(path: Path) -> Path:
    return path.with_name(f'{path.stem}.released')


def _last_beat(path: Path, names: set[str]) -> Path:
    """Returns the newest heartbeat of a claim among the names of its folder; the claim itself before the first."""
    start = f'{path.stem}.beat-'
    numbers = [int(name[len(start) :]) for name in names if name.startswith(start) and name[len(start) :].isdecimal()]
    return _beat_path(path, max(numbers)) if numbers else path


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _text(holder: Holder) -> str:
    return json.dumps(dataclasses.asdict(holder)) + '\n'


def _read(path: Path) -> Holder | None:
    """Reads a claim; None if the file is missing, damaged or (without hard links) not written yet. Then only its age
    counts."""
    try:
        facts = strict_json.read_object(path)
        if all(isinstance(value, type(getattr(_NOBODY, name, None))) for name, value in facts.items()):
            holder = Holder(**facts)
            return holder if 0 < holder.pid < _PIDS else None
    except (OSError, ValueError, TypeError):
        pass
    return None


def _space() -> str:
    """Returns an id of the pid namespace of this process: the boot id of the machine, and the container."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()
        return f'{boot} {os.readlink("/proc/self/ns/pid")}'
    except OSError:  # not Linux: only the host name is compared
        return ''


def _began(pid: int) -> tuple[int, str]:
    """Returns (start time of a process in clock ticks since boot, its state); (0, '') if that cannot be read."""
    try:
        # proc(5): the name, in parentheses, may contain anything. The text after it starts with the third field.
        fields = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8', errors='replace').rpartition(')')[2].split()
        return int(fields[19]), fields[0]
    except (OSError, IndexError, ValueError):
        return 0, ''


def _is_alive(pid: int, began: int) -> bool:
    """Returns whether a pid of this machine exists and is still the same process."""
    now, state = _began(pid)
    if state in ('Z', 'X'):  # a zombie: it has ended, but its parent has not reaped it yet
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
