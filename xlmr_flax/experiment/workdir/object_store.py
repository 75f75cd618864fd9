"""Workdirs on an object store (gs://, s3://, anything that fsspec opens): keeps a local copy in sync with the store.

All work is done in the copy, because it needs operations that an object store lacks (renaming folders, appending to
files). Changes are uploaded every half minute and at the end, in the order in which they were written, so that the
store never refers to data that it does not have. A checkpoint or model without its manifest.json was not uploaded
completely; another machine that starts from the store ignores it. A local copy that may have files which were never
uploaded is not deleted but renamed when the store's contents replace it.

Only one process may use the workdir at a time. It writes its name and the time into the object mirror.json. Others wait
until it has released the workdir or has not updated this object for ten minutes. Several processes or hosts need a
folder that all of them see: mount the bucket.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlmr_flax.config import ConfigError
from xlmr_flax.util import strict_json
from xlmr_flax.util.console import say
from xlmr_flax.util.files import absolute, write_atomically
from xlmr_flax.util.manifest import MANIFEST
from xlmr_flax.util.stopping import Stopped, pause

_SIGN, _STATE = 'mirror.json', '.mirror.json'
_EVERY = 30.0  # seconds between two uploads
_SIGNED = {'token': str, 'who': str, 'time': float, 'released': bool}  # fields of mirror.json
_GONE = 600.0  # seconds without an update of mirror.json after which a process counts as gone
# Folders that are complete once they have their manifest.
_LISTED = re.compile(r'(runs/[^/]+/(?:checkpoints/[^/]+/\d+|model))/')


class MirrorError(ConfigError):
    """A workdir on an object store that cannot be opened, read or written; the message names its address."""


def is_address(workdir: str) -> bool:
    """Returns whether a workdir is an address such as gs://BUCKET/PATH instead of a path."""
    return '://' in workdir


@contextlib.contextmanager
def opened(workdir: str, *, shared: bool = False, look_only: bool = False) -> Iterator[Path]:
    """Context that gives the local folder of a workdir, which is a path or an address. shared: several processes work
    in it, which an address does not allow. Raises MirrorError."""
    if not is_address(workdir):
        yield Path(absolute(workdir))
    elif shared:
        raise MirrorError(
            f'--workdir={workdir}: several processes need a folder that all of them see; mount the bucket (gcsfuse; '
            'launch/README.md) and give the path'
        )
    else:
        with Mirror(workdir, look_only=look_only) as mirror:
            say(f'{workdir}: worked on in {mirror.folder}')
            yield mirror.folder


def local_folder(address: str) -> Path:
    """Returns the folder of the local copy of a workdir, below XDG_CACHE_HOME or ~/.cache."""
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    name = re.sub(r'[^\w.-]', '-', address.rstrip('/').rpartition('/')[2])
    return home / 'xlmr_flax' / 'workdirs' / f'{name}-{hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:8]}'


class Mirror:
    """A local copy of a workdir. Inside its context, work in `folder`. Raises MirrorError.

    look_only: upload nothing. every: seconds between uploads. gone: seconds after which a process that does not update
    mirror.json counts as gone.
    """

    def __init__(
        self,
        address: str,
        folder: Path | None = None,
        *,
        look_only: bool = False,
        every: float = _EVERY,
        gone: float = _GONE,
    ):
        self.address, self.folder, self.look_only = address.rstrip('/'), folder or local_folder(address), look_only
        self.every, self.gone = every, gone
        self._fs, self._root = _open(self.address)
        self._token, self._signed = uuid.uuid4().hex, 0.0
        self._pushed: dict[str, list[int]] = {}  # the files in the store, in the format of `_scan`
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Mirror:
        try:
            self._begin()
        except MirrorError:
            raise
        except Exception as e:  # raised by the library of the store
            raise MirrorError(f'{self.address}: cannot be read: {_text(e)}') from e
        if not self.look_only:
            self._thread = threading.Thread(target=self._keep_up, name='mirror', daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._thread is None:
            return
        self._end.set()
        self._thread.join()
        try:
            self.push()
            self._sign(released=True)
        except Exception as e:
            text = f'{self.address}: cannot be written: {_text(e)}; what is missing there is in {self.folder}'
            if error is None or isinstance(error, Stopped):  # the message of Stopped says that the state is saved
                stopped = f'{error}, but on this machine alone: ' if error else ''
                raise MirrorError(f'{stopped}{text}, and the same command uploads it') from e
            say(text)

    def _begin(self) -> None:
        """Waits until no other process uses the workdir, then keeps the local copy if it is current, else downloads."""
        own = self._own_state()
        since = ''
        while True:
            sign = self._read_sign()
            self._fs.invalidate_cache()
            mine = bool(sign) and sign['token'] == own.get('token')
            age = time.time() - sign['time'] if sign else 0.0
            if self.look_only or not sign or mine or sign['released'] or age > self.gone:
                break
            if since != sign['token']:
                since = sign['token']
                say(f'{self.address}: waiting for {sign["who"]}, which works in it (last sign {age:.0f} s ago)')
            pause(min(10.0, self.every))
        if mine:
            # The next push deletes files that an interrupted upload left in the store and that do not exist here.
            self._pushed = {name: [-1, -1] for name in self._names()} | own['pushed']
        else:
            self.pull(signed=bool(sign))
        if not self.look_only:
            self._remember()
            self._sign()

    def pull(self, signed: bool = True) -> None:
        """Replaces the copy by the contents of the store, without incompletely uploaded folders. signed: mirror.json
        exists.
        """
        names = self._names()
        self._clear(names, signed)
        # Renamed when complete, so that an interrupted download is not taken for a copy with work in it.
        part = self.folder.with_name(f'{self.folder.name}.download')
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name in sorted(names):
            listed = _LISTED.match(name)
            if not listed or f'{listed[1]}/{MANIFEST}' in names:
                path = part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(f'{self._root}/{name}', str(path))
        part.rename(self.folder)
        self._pushed = {name: stamp for name, stamp in self._scan().items() if name in names}
        self._remember()  # also with look_only: the next pull may delete these files
        # Delete folders without a manifest from the store: their step may be saved again with other files.
        for name in names - self._pushed.keys():
            if not self.look_only:
                self._fs.rm_file(f'{self._root}/{name}')

    def _clear(self, names: set[str], signed: bool) -> None:
        """Deletes the local copy if the notes of its last process say that every file was uploaded; else renames it.

        names: the files in the store. signed: mirror.json exists. Without it, the store may have lost files, so that an
        uploaded file must still be there.
        """
        pushed = self._own_state().get('pushed', {})
        here = self._scan()
        if all(pushed.get(name) == stamp and (signed or name in names) for name, stamp in here.items()):
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        places = (self.folder.with_name(f'{self.folder.name}.old{number}') for number in itertools.count(1))
        place = next(place for place in places if not place.exists())
        self.folder.rename(place)
        say(
            f'{self.address}: the local copy has files that may not have been uploaded; it is kept as {place}; '
            'delete that folder if nothing in it is needed'
        )

    def push(self) -> None:
        """Uploads the files that have changed since the last push, then deletes removed files from the store. Raises
        the exceptions of the store's library.
        """
        here = self._scan()
        changed = [name for name, stamp in here.items() if self._pushed.get(name) != stamp]
        for name in sorted(changed, key=lambda name: (here[name][1], name.endswith(MANIFEST), name)):
            try:
                self._fs.put_file(str(self.folder / name), f'{self._root}/{name}')
            except FileNotFoundError:  # deleted in the meantime
                if (self.folder / name).exists():
                    raise
                continue
            self._pushed[name] = here[name]
            if time.time() - self._signed > self.every:
                self._sign()
        gone = [name for name in self._pushed if name not in here]
        for name in sorted(gone, key=lambda name: (not name.endswith(MANIFEST), name)):
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(f'{self._root}/{name}')
            del self._pushed[name]
        self._remember()
        self._sign()

    def _scan(self) -> dict[str, list[int]]:
        """Lists the files to upload as {name: [bytes, modification time in ns]}: without claims (they belong to
        processes of this machine) and without files that are being written.
        """
        files = {}
        for folder, folders, names in os.walk(self.folder):
            inside = os.path.relpath(folder, self.folder)
            folders[:] = [n for n in folders if not _is_partial(n) and (inside, n) != ('.', 'claims')]
            for name in names:
                path = os.path.join(folder, name)
                try:
                    stat = os.stat(path)
                except FileNotFoundError:
                    continue
                if not _is_partial(name):
                    files[os.path.relpath(path, self.folder).replace(os.sep, '/')] = [stat.st_size, stat.st_mtime_ns]
        return files

    def _keep_up(self) -> None:
        failed = False
        while not self._end.wait(self.every):
            try:
                self.push()
                failed = False
            except Exception as e:
                if not failed:
                    say(f'{self.address}: cannot be written: {_text(e)}; trying again')
                failed = True

    def _names(self) -> set[str]:
        """Returns the names of the workdir's files in the store."""
        return {path.removeprefix(self._root).lstrip('/') for path in self._fs.find(self._root)} - {_SIGN}

    def _read_sign(self) -> dict[str, Any]:
        """Reads mirror.json, which the last process wrote; {} if it does not exist. Raises MirrorError if damaged."""
        try:
            sign = strict_json.loads(self._fs.cat_file(f'{self._root}/{_SIGN}').decode('utf-8'))
        except FileNotFoundError:
            return {}
        except ValueError:  # malformed JSON, or not UTF-8
            sign = None
        if isinstance(sign, dict) and all(isinstance(sign.get(name), kind) for name, kind in _SIGNED.items()):
            return sign
        raise MirrorError(
            f'{self.address}/{_SIGN}: damaged, so that it does not say which process works here; '
            'if there is none, delete it; what this machine has not uploaded is then kept in another folder'
        )

    def _sign(self, released: bool = False) -> None:
        self._signed = time.time()
        who = f'{socket.gethostname()}, process {os.getpid()}'
        sign = {'token': self._token, 'who': who, 'time': self._signed, 'released': released}
        self._fs.pipe_file(f'{self._root}/{_SIGN}', json.dumps(sign).encode())

    def _own_state(self) -> dict[str, Any]:
        try:
            own = strict_json.read_object(self.folder / _STATE)
        except (OSError, ValueError):
            return {}
        return own if isinstance(own.get('pushed'), dict) else {}

    def _remember(self) -> None:
        write_atomically(self.folder / _STATE, json.dumps({'token': self._token, 'pushed': self._pushed}))


def _is_partial(name: str) -> bool:
    return name.startswith('.') or '.orbax-checkpoint-tmp' in name


def _open(address: str) -> tuple[Any, str]:
    """Opens an address with fsspec; returns (file system, path in it). Raises MirrorError."""
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    try:
        fs, root = fsspec.core.url_to_fs(address)
    except ImportError as e:
        extra = " (pip install -e '.[gcs]' in the checkout)" if address.startswith(('gs://', 'gcs://')) else ''
        raise MirrorError(f'--workdir={address}: {e}{extra}; or mount the bucket and give a path') from None
    except Exception as e:  # for example an unknown protocol or missing credentials
        raise MirrorError(f'--workdir={address}: cannot be opened: {_text(e)}') from None
    if isinstance(fs, LocalFileSystem):
        fs.auto_mkdir = True
    return fs, root.rstrip('/')


def _text(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
