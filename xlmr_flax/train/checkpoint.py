"""Checkpoints in a folder: written by Orbax while training goes on, checked file by file before one is read.

A save copies the arrays to the host, then a thread writes them: into a folder of another name, the list of its files
with their sha256 (util/manifest.py) last, then renamed. So a folder that is called by a step number is whole,
whatever ended the process. Each save carries what decides the run; a checkpoint of another configuration is refused
with the difference. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from xlmr_flax.parallel.distributed import is_leader
from xlmr_flax.util.errors import UserError
from xlmr_flax.util.manifest import ManifestError, check_manifest, write_manifest

_PARTIAL = '*.orbax-checkpoint-tmp*'  # Orbax's name of a step that is being written
_NOTES = ('_CHECKPOINT_METADATA',)  # Orbax's, of times and handlers: written behind the list, and not needed
_TIMEOUT = 3600  # seconds for one save; Orbax's own, 10 minutes, are short for a large state on a slow disk
_SHOWN = 8  # differences of two configurations in one message
# What a file system says, in the texts of Orbax and TensorStore, which wrap it several times.
_CAUSES = [os.strerror(n) for n in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)]


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that does not fit, cannot be written or cannot be read; the message names its folder or file."""


class Handler(ocp.CompositeCheckpointHandler):
    """Orbax's handler of several items; lists the files before the folder gets its name (process 0 alone does that)."""

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        write_manifest(Path(directory), leave_out=_NOTES)


@ocp.args.register_with_handler(Handler, for_save=True, for_restore=True)
class Items(ocp.args.Composite):
    """The items of a checkpoint: `tree` (arrays) and `facts` (JSON)."""


def abstract(tree: Any) -> Any:
    """Shapes, dtypes and shardings of a tree of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """'recipe.steps: 100 in the checkpoint, 200 now' for every value that differs between two nested mappings."""
    before, after = _flat(saved), _flat(now)
    return [
        f'{key}: {_shown(before, key)} in the checkpoint, {_shown(after, key)} now'
        for key in dict.fromkeys([*before, *after])
        if before.get(key, _flat) != after.get(key, _flat)
    ]


def _flat(value: Any, where: str = '') -> dict[str, Any]:
    """{'a.b[0]': value}; as JSON gives it back, in which a tuple is a list."""
    if isinstance(value, Mapping) and value:
        items = [(f'{where}.{k}' if where else str(k), v) for k, v in value.items()]
    elif isinstance(value, list | tuple) and value:
        items = [(f'{where}[{i}]', v) for i, v in enumerate(value)]
    else:
        return {where: list(value) if isinstance(value, tuple) else value}
    return {k: v for key, part in items for k, v in _flat(part, key).items()}


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else 'nothing'


class Checkpoints:
    """One folder of checkpoints, each called by its step.

    run_hash: a checkpoint of another run is refused. decides: what that hash was made of, kept beside it to show the
    difference. All processes of a job call the same methods in the same order; process 0 chooses and deletes.
    """

    def __init__(self, directory: Path, run_hash: str, decides: Mapping[str, Any] | None = None):
        self.directory = Path(os.path.abspath(directory))  # Orbax refuses a relative path
        self.run_hash, self.decides = run_hash, dict(decides or {})
        self._saver: ocp.AsyncCheckpointer | None = None
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | None = None
        _quiet_background_errors()

    def steps(self) -> list[int]:
        """The steps that have been saved, in ascending order."""
        try:
            return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdecimal())
        except FileNotFoundError:
            return []

    def path(self, step: int) -> Path:
        """Where a step is saved."""
        return self.directory / str(step)

    def save(self, step: int, tree: Any, /, then: Callable[[], None] | None = None, **facts: Any) -> None:
        """Begins to save a tree of arrays and JSON-able facts under a step number; an earlier save is waited for.

        The arrays may be donated as soon as this returns; `wait` returns when the checkpoint is on disk and `then` was
        called, on process 0 alone. Raises CheckpointError, also for the save before this one.
        """
        self.wait()
        facts = {'run_hash': self.run_hash, 'decides': self.decides, **facts}
        items = Items(tree=ocp.args.StandardSave(tree), facts=ocp.args.JsonSave(facts))
        need = sum(x.nbytes for x in jax.tree.leaves(tree))
        try:
            if is_leader():
                self.directory.mkdir(parents=True, exist_ok=True)
                self.clean()
            self._orbax().save(self.path(step), args=items, force=True)
        except Exception as e:
            self._fail(step, need, e)
            self.check()
        self._thread = threading.Thread(target=self._finish, args=(step, need, then), name='checkpoint')
        self._thread.start()

    def _finish(self, step: int, need: int, then: Callable[[], None] | None) -> None:
        try:
            self._orbax().wait_until_finished()
            if then is not None and is_leader():
                then()
        except Exception as e:
            self._fail(step, need, e)

    def _fail(self, step: int, need: int, error: Exception) -> None:
        text = str(error).strip() or type(error).__name__
        cause = next((c for c in _CAUSES if c in text), text.splitlines()[0][:300])
        try:
            free = f'{_amount(shutil.disk_usage(self.directory).free)} free'
        except OSError:
            free = 'free space unknown'
        self._error = CheckpointError(f'{self.path(step)}: cannot be saved: {cause} ({_amount(need)} needed, {free})')
        if is_leader():
            self.clean()

    def check(self) -> None:
        """Raises the CheckpointError of a save that has failed by now, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Returns when the last save is on disk. Raises CheckpointError."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def clean(self) -> None:
        """Deletes what a save that failed or was interrupted has left."""
        for _ in range(50):  # other threads of Orbax may not have heard yet of one that failed
            paths = list(self.directory.glob(_PARTIAL))
            if not paths:
                return
            for path in paths:
                shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.1)

    def prune(self, keep: Collection[int]) -> None:
        """Deletes all steps but these."""
        for step in self.steps():
            if step not in keep:
                # A folder that is half deleted must not look like a damaged checkpoint.
                path = self.path(step)
                gone = path.with_name(f'{path.name}.orbax-checkpoint-tmp-deleted')
                shutil.rmtree(gone, ignore_errors=True)
                os.replace(path, gone)
                shutil.rmtree(gone, ignore_errors=True)

    def facts(self, step: int) -> dict[str, Any]:
        """The facts of a checkpoint whose files are all as they were written. Raises CheckpointError: for a damaged
        one naming the file, for another run's with the differences.
        """
        try:
            check_manifest(self.path(step))
            facts = saved_facts(self.path(step))
        except ManifestError as e:
            raise CheckpointError(str(e)) from None
        if facts['run_hash'] != self.run_hash:
            raise OtherRun(self.path(step), facts, self.run_hash, self.decides)
        return facts

    def restore(self, step: int, like: Any) -> Any:
        """The tree of a step, placed as `like`: on any mesh and number of hosts. Raises CheckpointError."""
        items = Items(tree=ocp.args.StandardRestore(abstract(like)))
        try:
            return self._orbax().restore(self.path(step), args=items)['tree']
        except Exception as e:
            text = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise CheckpointError(f'{self.path(step)}: cannot be read ({text})') from e

    def close(self) -> None:
        """Waits for a save that is under way and releases Orbax's threads; raises nothing."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._saver is not None:
            with contextlib.suppress(Exception):
                self._saver.close()
            self._saver = None
            if is_leader():
                self.clean()

    def _orbax(self) -> ocp.AsyncCheckpointer:
        if self._saver is None:
            self._saver = ocp.AsyncCheckpointer(Handler(), _TIMEOUT)
        return self._saver


class OtherRun(CheckpointError):
    """A checkpoint of another configuration."""

    def __init__(self, path: Path, facts: Mapping[str, Any], run_hash: str, decides: Mapping[str, Any]):
        found = differences(facts.get('decides', {}), decides)
        text = f'{path}: belongs to run {facts["run_hash"]}, this is {run_hash}; use another workdir'
        if found:
            more = [f'and {len(found) - _SHOWN} more'] if len(found) > _SHOWN else []
            text += f' ({"; ".join(found[:_SHOWN] + more)})'
        super().__init__(text)


def saved_facts(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint's folder. Raises ManifestError where they cannot be read."""
    file = path / 'facts' / 'metadata'
    try:
        # Not strict_json: a training without an evaluation has no metric (NaN) and no best one (-Infinity).
        facts = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as e:
        raise ManifestError(f'{file} cannot be read ({type(e).__name__})') from None
    if not isinstance(facts, dict) or not isinstance(facts.get('run_hash'), str):
        raise ManifestError(f'{file} does not hold the facts of a checkpoint')
    return facts


def _amount(size: int) -> str:
    return f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.2f} MB'


class _NoBackgroundErrors(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and f'{os.sep}orbax{os.sep}' in record.pathname)


def _quiet_background_errors() -> None:
    """Each of Orbax's threads logs with a traceback what a save in the background raises, and it is raised later.

    Orbax closes the event loop of a save when its first write fails. TensorStore's callbacks of the other writes find
    it closed, which Python reports with a traceback each.
    """
    logger = absl_logging.get_absl_logger()
    if not any(isinstance(each, _NoBackgroundErrors) for each in logger.filters):
        logger.addFilter(_NoBackgroundErrors())
    if not isinstance(sys.unraisablehook, _NoClosedLoops):
        sys.unraisablehook = _NoClosedLoops(sys.unraisablehook)


class _NoClosedLoops:
    """Python's hook for exceptions that nobody can catch, without those of C code that calls a closed event loop."""

    def __init__(self, real: Callable[[Any], Any]):
        self.real = real

    def __call__(self, found: Any, /) -> None:
        trace = found.exc_traceback
        called = trace.tb_frame.f_code.co_name if trace else ''  # by C code: nothing of Python is outside of it
        closed = isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == 'Event loop is closed'
        if not (closed and called == 'call_soon_threadsafe' and found.object is None):
            self.real(found)
