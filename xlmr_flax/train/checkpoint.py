"""Asynchronous checkpoints with Orbax, verified by sha256 before they are read.

A save copies the arrays to the host; then a thread writes them to a temporary folder, writes a manifest of the files
with their sha256 (util/manifest.py) last, and renames the folder. So a folder with a step number as its name is always
complete, however the process ended. Each checkpoint contains the settings that decide the run; a checkpoint of another
configuration gives an error with the differences. Nothing is unpickled.
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

_PARTIAL = '*.orbax-checkpoint-tmp*'  # Orbax's folder name of a step that is being written
_NOTES = ('_CHECKPOINT_METADATA',)  # Orbax's times and handlers: written after the manifest, and not needed
_TIMEOUT = 3600  # seconds for one save; Orbax's default of 10 minutes is too short for a large state on a slow disk
_SHOWN = 8  # most differences of two configurations in one message
# Messages of the file system; Orbax and TensorStore wrap them several times in their own texts.
_CAUSES = [os.strerror(n) for n in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)]


class CheckpointError(UserError, RuntimeError):
    """Raised for a checkpoint that does not fit, cannot be written or cannot be read. Names its folder or file."""


class Handler(ocp.CompositeCheckpointHandler):
    """Orbax's handler of several items; on process 0, it writes the manifest before Orbax renames the folder."""

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        write_manifest(Path(directory), leave_out=_NOTES)


@ocp.args.register_with_handler(Handler, for_save=True, for_restore=True)
class Items(ocp.args.Composite):
    """Orbax's arguments for the items of a checkpoint: `tree` (arrays) and `facts` (JSON)."""


def abstract(tree: Any) -> Any:
    """Returns a tree of arrays as ShapeDtypeStructs with shardings."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def changed_settings(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lists the differences of two nested mappings, such as 'recipe.steps: 100 in the checkpoint, 200 now'."""
    before, after = _flat(saved), _flat(now)
    return [
        f'{key}: {_shown(before, key)} in the checkpoint, {_shown(after, key)} now'
        for key in dict.fromkeys([*before, *after])
        if before.get(key, _flat) != after.get(key, _flat)
    ]


def _flat(value: Any, where: str = '') -> dict[str, Any]:
    """Flattens a nested value to {'a.b[0]': value}. Tuples become lists, as in JSON."""
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
    """One folder of checkpoints, each in a subfolder with its step as name.

    run_hash: `facts` raises OtherRun for a checkpoint with another hash. decides: the settings that the hash covers,
    stored to show differences. All processes of a job must call the same methods in the same order; process 0 chooses
    and deletes checkpoints.
    """

    def __init__(self, directory: Path, run_hash: str, decides: Mapping[str, Any] | None = None):
        self.directory = Path(os.path.abspath(directory))  # Orbax refuses a relative path
        self.run_hash, self.decides = run_hash, dict(decides or {})
        self._saver: ocp.AsyncCheckpointer | None = None
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | None = None
        _quiet_background_errors()

    def steps(self) -> list[int]:
        """Returns the saved steps in ascending order."""
        try:
            return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdecimal())
        except FileNotFoundError:
            return []

    def path(self, step: int) -> Path:
        """Returns the folder of a step."""
        return self.directory / str(step)

    def save(self, step: int, tree: Any, /, then: Callable[[], None] | None = None, **facts: Any) -> None:
        """Starts to save a tree of arrays and JSON-serialisable facts for a step. Waits first for an earlier save.

        The arrays may be donated as soon as this returns. When the checkpoint is on disk, process 0 calls `then`;
        `wait` returns after that. Raises CheckpointError, also for the earlier save.
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
        """Raises the CheckpointError of a save that has failed so far. Raises each error only once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Waits until the last save is on disk. Raises CheckpointError."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def clean(self) -> None:
        """Deletes the partial folders of failed or interrupted saves."""
        for _ in range(50):  # other threads of Orbax may still write files after one thread has failed
            paths = list(self.directory.glob(_PARTIAL))
            if not paths:
                return
            for path in paths:
                shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.1)

    def prune(self, keep: Collection[int]) -> None:
        """Deletes all steps except those in `keep`."""
        for step in self.steps():
            if step not in keep:
                # Renamed first, so that a half-deleted folder does not look like a damaged checkpoint.
                path = self.path(step)
                gone = path.with_name(f'{path.name}.orbax-checkpoint-tmp-deleted')
                shutil.rmtree(gone, ignore_errors=True)
                os.replace(path, gone)
                shutil.rmtree(gone, ignore_errors=True)

    def facts(self, step: int) -> dict[str, Any]:
        """Verifies all files of a checkpoint and returns its facts.

        Raises CheckpointError for a damaged checkpoint (names the file), and OtherRun for another run's (names the
        differences).
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
        """Reads the tree of a step with the shardings of `like`, on any mesh and any number of hosts.

        Raises CheckpointError.
        """
        items = Items(tree=ocp.args.StandardRestore(abstract(like)))
        try:
            return self._orbax().restore(self.path(step), args=items)['tree']
        except Exception as e:
            text = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise CheckpointError(f'{self.path(step)}: cannot be read ({text})') from e

    def close(self) -> None:
        """Waits for a running save and releases Orbax's threads. Does not raise the errors of a save."""
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
    """Raised for a checkpoint of another configuration. The message lists the differences."""

    def __init__(self, path: Path, facts: Mapping[str, Any], run_hash: str, decides: Mapping[str, Any]):
        different = changed_settings(facts.get('decides', {}), decides)
        text = f'{path}: belongs to run {facts["run_hash"]}, this is {run_hash}; use another workdir'
        if different:
            more = [f'and {len(different) - _SHOWN} more'] if len(different) > _SHOWN else []
            text += f' ({"; ".join(different[:_SHOWN] + more)})'
        super().__init__(text)


def saved_facts(path: Path) -> dict[str, Any]:
    """Reads the facts of a checkpoint from its folder. Raises ManifestError if they cannot be read."""
    file = path / 'facts' / 'metadata'
    try:
        # Not strict_json: without an evaluation the metric is NaN and the best metric -Infinity.
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
    """Silences the tracebacks of background saves. `Checkpoints` raises their errors itself, later.

    Each of Orbax's threads logs the error of a background save with a traceback. Also, Orbax closes the event loop of a
    save when its first write fails; for each other write, TensorStore's callback then calls the closed loop, and Python
    reports a traceback.
    """
    logger = absl_logging.get_absl_logger()
    if not any(isinstance(each, _NoBackgroundErrors) for each in logger.filters):
        logger.addFilter(_NoBackgroundErrors())
    if not isinstance(sys.unraisablehook, _NoClosedLoops):
        sys.unraisablehook = _NoClosedLoops(sys.unraisablehook)


class _NoClosedLoops:
    """A sys.unraisablehook that ignores the errors of C code calling a closed event loop."""

    def __init__(self, real: Callable[[Any], Any]):
        self.real = real

    def __call__(self, unraisable: Any, /) -> None:
        trace = unraisable.exc_traceback
        called = trace.tb_frame.f_code.co_name if trace else ''  # called by C code: it is the outermost Python frame
        closed = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == 'Event loop is closed'
        if not (closed and called == 'call_soon_threadsafe' and unraisable.object is None):
            self.real(unraisable)
