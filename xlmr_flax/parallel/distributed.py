"""Multi-process jobs (one process per host): start-up, exchange of values between processes, and joint exit.

Every process runs the same program, and the mesh divides the computation. Only process 0 reads files to decide and
writes text: `on_leader` runs a function there and gives its result to all processes. Messages use the key-value store
of JAX's coordination service on process 0, and not the devices, so that they also arrive while a device waits in a
collective for a process that has failed.

A process that exits early announces it (`leave`), and the others exit with its exit code. If a process dies without
that, the coordination service notices it after HEARTBEAT seconds, or the devices' collectives fail at once.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from xlmr_flax.util.errors import UserError
from xlmr_flax.util.stopping import check

HEARTBEAT = 30  # seconds without a heartbeat after which a process counts as dead
LOST = 134  # exit code if another process died: the code with which JAX's own health check aborts a process
_POLL = 2.0  # seconds between two checks for a process that leaves
_GRACE = 10.0  # seconds for this process to report its own error before another's exit ends it
_ANSWER = 20.0  # seconds that a failed process waits for the others' outcomes; less than HEARTBEAT
_NONE = 'none'
_SLURM = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_LOCALID')


class DistributedError(UserError, RuntimeError):
    """Raised if processes cannot start together, do not agree, or if one is lost. The message names them."""


class ProcessLost(DistributedError):
    """Raised if another process died or hangs."""


class FailedElsewhere(UserError, RuntimeError):
    """Raised if another process failed. The message contains that of the other process."""


class Store(Protocol):
    """The methods of the coordination service's client that are used here."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None: ...

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str: ...

    def key_value_try_get(self, key: str) -> str: ...


class ProcessGroup:
    """One process's view of the job. All processes must call the methods that take a label, in the same order."""

    def __init__(self, store: Store, index: int, count: int):
        self.index, self.count = index, count
        self._store, self._number = store, 0
        self._end, self._leaving = threading.Event(), threading.Event()
        self._before_exit: list[Callable[[], object]] = []
        self._watch: threading.Thread | None = None

    def on_leader(self, label: str, function: Callable[[], Any]) -> Any:
        """See the module's function `on_leader`."""
        self._number += 1
        if self.index:
            answer = self._read(0, label, None)
            if 'error' in answer:
                raise FailedElsewhere(f'process 0: {answer["error"]}')
            return answer['value']
        try:
            value = function()
        except Exception as error:
            self._write(label, error=f'{type(error).__name__}: {error}')
            raise
        self._write(label, value=value)
        return value

    def gather(self, label: str, value: Any, patience: float | None = None) -> list[Any]:
        """See the module's function `gather`."""
        self._number += 1
        self._write(label, value=value)
        until = None if patience is None else time.monotonic() + patience
        return [self._read(process, label, until)['value'] for process in range(self.count)]

    def _write(self, label: str, **content: Any) -> None:
        text = json.dumps({'label': label, **content})
        self._store.key_value_set(f'xlmr_flax/{self._number}/{self.index}', text)

    def _read(self, process: int, label: str, until: float | None) -> dict[str, Any]:
        """Reads another process's message of this call; waits until `until` (time.monotonic), None = while it lives."""
        while True:
            check()
            left = 5.0 if until is None else min(5.0, until - time.monotonic())
            try:
                text = self._store.blocking_key_value_get(
                    f'xlmr_flax/{self._number}/{process}', max(1, round(1000 * left))
                )
                break
            except Exception as error:
                if 'DEADLINE_EXCEEDED' not in str(error):
                    raise ProcessLost(f'process 0 of {self.count} cannot be reached: {_first_line(error)}') from None
                if until is not None and time.monotonic() >= until:
                    text = f'process {process} of {self.count} gave no answer ({label}): it died or hangs'
                    raise ProcessLost(text) from None
        reply = json.loads(text)
        if reply['label'] != label:
            raise DistributedError(
                f'process {process} is at {reply["label"]!r} and process {self.index} at {label!r}: one of them failed'
            )
        return reply

    def watch(self) -> None:
        """Starts a thread that ends this process when another one announces its exit."""
        self._watch = threading.Thread(target=self._watch_exits, name='processes', daemon=True)
        self._watch.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Stops the thread of `watch`."""
        self._end.set()
        if self._watch and self._watch is not threading.current_thread():
            self._watch.join()

    def _watch_exits(self) -> None:
        while not self._end.wait(_POLL):
            try:
                words = json.loads(self._store.key_value_try_get('xlmr_flax/leaving'))
            except Exception:  # NOT_FOUND; if the service has gone away, its client ends this process
                continue
            if words['process'] != self.index and not self._leaving.wait(_GRACE) and not self._end.is_set():
                self.end(words['code'], f'process {words["process"]} of {self.count} ended: {words["text"]}')
            return

    def leave(self, code: int, text: str) -> None:
        """Ends this process and, within seconds, all others. Does not return."""
        self._leaving.set()
        words = json.dumps({'process': self.index, 'code': code, 'text': text})
        with contextlib.suppress(Exception):  # another one was first, or process 0 is gone
            self._store.key_value_set('xlmr_flax/leaving', words)
        self.end(code, '')

    def end(self, code: int, text: str) -> None:
        """Calls the functions of `before_forced_exit` and exits at once, as JAX's shutdown waits for lost processes."""
        for function in self._before_exit:
            with contextlib.suppress(Exception):
                function()
        if text:
            sys.stderr.write(f'error: {text}\n')
        sys.stdout.flush()
        sys.stderr.flush()
        if self.index == 0:  # the store ends with process 0: give the others time to read the announcement
            time.sleep(2 * _POLL)
        os._exit(code)


_group: ProcessGroup | None = None  # one per process, like the runtime that jax.distributed starts


def start(coordinator: str = '', num_processes: int = 0, process_id: int = -1) -> None:
    """Joins this process to a multi-process job. Call it before any JAX computation. No effect for a single process.

    coordinator: HOST:PORT of process 0, with num_processes and process_id (from 0); '' = detect SLURM (a step of
    several tasks) and TPU slices, as jax.distributed.initialize does; 'none' = a single process. JAX_LOCAL_DEVICE_IDS
    keeps its meaning: a process may use all the devices of its host. Raises DistributedError.
    """
    global _group
    explicit = coordinator not in ('', _NONE)
    if explicit != (num_processes > 0) or explicit != (process_id >= 0):
        raise DistributedError(
            f'--coordinator={coordinator} --num_processes={num_processes} --process_id={process_id}: '
            'give all three of them (process_id from 0), or none'
        )
    if explicit and not (coordinator.rpartition(':')[0] and coordinator.rpartition(':')[2].isdecimal()):
        raise DistributedError(f'--coordinator={coordinator}: expected HOST:PORT of process 0')
    if process_id >= max(num_processes, 1):
        raise DistributedError(f'--process_id={process_id}: expected 0 to {num_processes - 1} (--num_processes)')
    if coordinator == _NONE or num_processes == 1 or not (explicit or _on_slurm() or _on_tpu()):
        return
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    limits: dict[str, Any] = {'heartbeat_timeout_seconds': HEARTBEAT, 'shutdown_timeout_seconds': HEARTBEAT}
    try:
        if explicit:
            jax.distributed.initialize(
                coordinator, num_processes, process_id, cluster_detection_method='deactivate', **limits
            )
        else:
            jax.distributed.initialize(**limits)
    except ValueError as error:
        if not explicit and 'should be defined' in str(error):  # a TPU of one host, outside any cluster
            return
        raise DistributedError(f'the processes cannot start together: {error}') from None
    except RuntimeError as error:
        raise DistributedError(f'the processes cannot start together: {_first_line(error)}') from None
    from jax._src.distributed import global_state  # the client has no public name; orbax takes it from here, too

    if jax.process_count() > 1:
        assert global_state.client is not None
        _group = ProcessGroup(global_state.client, jax.process_index(), jax.process_count())
        _group.watch()


def _on_slurm() -> bool:
    """Whether this is a task of a SLURM step (srun) with several tasks, by the variables that JAX reads."""
    return all(name in os.environ for name in _SLURM) and int(os.environ['SLURM_NTASKS']) > 1


def _on_tpu() -> bool:
    """Whether this machine has a TPU that JAX will use. JAX reads the number of hosts from the TPU's metadata."""
    wanted = os.environ.get('JAX_PLATFORMS', '')
    if (wanted and 'tpu' not in wanted.split(',')) or importlib.util.find_spec('libtpu') is None:
        return False
    return any(Path('/dev').glob('accel*')) or any(Path('/dev/vfio').glob('[0-9]*'))


def process_count() -> int:
    """The number of processes of this job."""
    return _group.count if _group else 1


def process_index() -> int:
    """This process's number, from 0."""
    return _group.index if _group else 0


def is_leader() -> bool:
    """Whether this is process 0, which decides and writes."""
    return process_index() == 0


def on_leader(label: str, function: Callable[[], Any]) -> Any:
    """Calls the function only on process 0; every process returns its result, which must be JSON-serialisable.

    An exception of the function is raised on process 0; the others raise FailedElsewhere with its text.
    """
    return _group.on_leader(label, function) if _group else function()


def gather(label: str, value: Any, patience: float | None = None) -> list[Any]:
    """Returns the values of all processes, by process. A value must be JSON-serialisable.

    patience: seconds to wait for the others, None = as long as they live. Raises ProcessLost."""
    return _group.gather(label, value, patience) if _group else [value]


def barrier(label: str) -> None:
    """Waits until every process has called it."""
    gather(label, None)


def agreed(error: Exception | None) -> Exception | None:
    """Exchanges the outcomes of work that all processes did. Returns None if all succeeded, else an error.

    The error is that of this process if it has one. Raises ProcessLost if another process does not finish the work."""
    if _group is None:
        return error
    own = None if error is None else f'{type(error).__name__}: {error}'
    try:
        texts = gather('outcome', own, None if own is None else _ANSWER)
    except DistributedError as lost:
        raise type(lost)(f'{lost}; process {process_index()}: {own}' if own else str(lost)) from error
    failed = next(((process, text) for process, text in enumerate(texts) if text), None)
    if error is None and failed:
        return FailedElsewhere(f'process {failed[0]}: {failed[1]}')
    return error


def require_equal(facts: Mapping[str, str]) -> None:
    """Raises DistributedError unless all processes have the same facts. Names the first that differs from process 0."""
    first, *others = gather('facts', dict(facts))
    for process, other in enumerate(others, 1):
        for name in [*first, *(name for name in other if name not in first)]:
            if first.get(name) != other.get(name):
                raise DistributedError(
                    f'process {process} differs from process 0 in {name}: {other.get(name)} and {first.get(name)}; '
                    'all processes need the same command, package and data'
                )


def require_shared(folder: Path) -> None:
    """Raises DistributedError unless every process sees the files that process 0 writes into a folder."""
    if _group is None:
        return
    mark = folder / on_leader('shared folder', lambda: _marked(folder))
    with contextlib.suppress(OSError):
        os.listdir(folder)  # makes NFS ask its server again
    seen = gather('shared folder', mark.is_file())
    if is_leader():
        mark.unlink(missing_ok=True)
    if not all(seen):
        raise DistributedError(
            f'{folder}: process {seen.index(False)} does not see what process 0 writes there; a workdir must lie on a '
            'file system that all hosts share'
        )


def _marked(folder: Path) -> str:
    name = f'.shared-{os.getpid()}-{time.time_ns()}'
    (folder / name).touch()
    return name


def connect(mesh: Mesh) -> None:
    """Opens Gloo's connections for every group of devices that a program on this mesh may sum over.

    On CPUs, Gloo connects the processes of a group at its first collective. It fails if they reach it more than 30
    seconds apart, for example if one compiles a program that another reads from its cache. This function connects them
    after a barrier. No effect on accelerators and for a single process.
    """
    axes = [name for name in mesh.axis_names if mesh.shape[name] > 1]
    if _group is None or jax.default_backend() != 'cpu' or not axes:
        return
    groups = [group for n in range(1, len(axes) + 1) for group in itertools.combinations(axes, n)]

    def sums() -> jax.Array:
        own = sum(jax.lax.axis_index(name) for name in axes)  # the compiler would fold the sum of a constant
        return jnp.stack([jax.lax.psum(own, group) for group in groups]).sum()

    program = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=(), out_specs=PartitionSpec(), check_vma=False))
    compiled = program.lower().compile()
    barrier('connect')
    jax.block_until_ready(compiled())


def leave(code: int, text: str) -> None:
    """Ends this process and all others with this exit code. Returns if this is a single process."""
    if _group:
        _group.leave(code, text)


def before_forced_exit(function: Callable[[], object]) -> None:
    """Registers a function to call when this process must end because another one did."""
    if _group:
        _group._before_exit.append(function)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
