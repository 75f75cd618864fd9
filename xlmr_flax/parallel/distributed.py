"""Several processes as one job, one a host: their start, what they agree on, and how they end together.

Every process runs the same program. What is computed is divided by the mesh; what is decided from files, and all
text, is process 0's: `on_leader` runs a function there and gives its result to everyone. Messages between the hosts go
through the key-value store of JAX's coordination service, which process 0 carries, and not through the devices, so that
they arrive while a device waits for a process that will not come.

A process that ends before the job does says so (`leave`), and the others end with its exit code. One that dies without
a word is missed by the coordination service after HEARTBEAT seconds, or by the device's collectives at once.
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

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead
LOST = 134  # exit code where another process died: that of the abort by which JAX's own health check ends a process
_POLL = 2.0  # seconds between two looks for a process that leaves
_GRACE = 10.0  # seconds in which this process may find out by itself why the job ends
_ANSWER = 20.0  # seconds that a failed process waits for the others' outcomes; less than HEARTBEAT
_NONE = 'none'
_SLURM = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_LOCALID')


class DistributedError(UserError, RuntimeError):
    """Processes that cannot start together, do not agree, or of which one is gone; the message names them."""


class ProcessLost(DistributedError):
    """Another process died or hangs."""


class FailedElsewhere(UserError, RuntimeError):
    """Another process failed; the message is its own."""


class Store(Protocol):
    """The part that is used of the coordination service's client."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None: ...

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str: ...

    def key_value_try_get(self, key: str) -> str: ...


class Crew:
    """The processes of a job as one of them sees them. Calls with a label are made by all of them, in one order."""

    def __init__(self, store: Store, index: int, count: int):
        self.index, self.count = index, count
        self._store, self._number = store, 0
        self._end, self._leaving = threading.Event(), threading.Event()
        self._last_words: list[Callable[[], object]] = []
        self._watch: threading.Thread | None = None

    def on_leader(self, label: str, function: Callable[[], Any]) -> Any:
        """See the function of that name."""
        self._number += 1
        if self.index:
            found = self._read(0, label, None)
            if 'error' in found:
                raise FailedElsewhere(f'process 0: {found["error"]}')
            return found['value']
        try:
            value = function()
        except Exception as error:
            self._write(label, error=f'{type(error).__name__}: {error}')
            raise
        self._write(label, value=value)
        return value

    def gather(self, label: str, value: Any, patience: float | None = None) -> list[Any]:
        """See the function of that name."""
        self._number += 1
        self._write(label, value=value)
        until = None if patience is None else time.monotonic() + patience
        return [self._read(process, label, until)['value'] for process in range(self.count)]

    def _write(self, label: str, **content: Any) -> None:
        text = json.dumps({'label': label, **content})
        self._store.key_value_set(f'xlmr_flax/{self._number}/{self.index}', text)

    def _read(self, process: int, label: str, until: float | None) -> dict[str, Any]:
        """What a process wrote under this number; waits for it, to `until` (time.monotonic) or as long as it lives."""
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
        found = json.loads(text)
        if found['label'] != label:
            raise DistributedError(
                f'process {process} is at {found["label"]!r} and process {self.index} at {label!r}: one of them failed'
            )
        return found

    def watch(self) -> None:
        """Starts to look for a process that leaves; ends this one with it."""
        self._watch = threading.Thread(target=self._look, name='processes', daemon=True)
        self._watch.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Looks no more."""
        self._end.set()
        if self._watch and self._watch is not threading.current_thread():
            self._watch.join()

    def _look(self) -> None:
        while not self._end.wait(_POLL):
            try:
                words = json.loads(self._store.key_value_try_get('xlmr_flax/leaving'))
            except Exception:  # NOT_FOUND; and where the service is gone, its client ends this process
                continue
            if words['process'] != self.index and not self._leaving.wait(_GRACE) and not self._end.is_set():
                self.end(words['code'], f'process {words["process"]} of {self.count} ended: {words["text"]}')
            return

    def leave(self, code: int, text: str) -> None:
        """Ends this process and, within seconds, all others; does not return."""
        self._leaving.set()
        words = json.dumps({'process': self.index, 'code': code, 'text': text})
        with contextlib.suppress(Exception):  # another one was first, or process 0 is gone
            self._store.key_value_set('xlmr_flax/leaving', words)
        self.end(code, '')

    def end(self, code: int, text: str) -> None:
        """Last words and exit, without JAX's own end, which would wait for processes that do not come."""
        for function in self._last_words:
            with contextlib.suppress(Exception):
                function()
        if text:
            sys.stderr.write(f'error: {text}\n')
        sys.stdout.flush()
        sys.stderr.flush()
        if self.index == 0:  # with it the store goes: the others have read by then what was said
            time.sleep(2 * _POLL)
        os._exit(code)


_crew: Crew | None = None  # of the process, as the runtime that jax.distributed starts once


def start(coordinator: str = '', num_processes: int = 0, process_id: int = -1) -> None:
    """Makes this process one of a job's; to be called before any JAX computation. Without effect where it is alone.

    coordinator: HOST:PORT of process 0 with num_processes and process_id (from 0); '' = SLURM (a step of several tasks)
    and TPU slices are recognised, as jax.distributed.initialize does; 'none' = alone. JAX_LOCAL_DEVICE_IDS stands: a
    process may drive all the devices of its host. Raises DistributedError.
    """
    global _crew
    explicit = coordinator not in ('', _NONE)
    if explicit != (num_processes > 0) or explicit != (process_id >= 0):
        raise DistributedError(
            f'--coordinator={coordinator} --num_processes={num_processes} --process_id={process_id}: '
            'give all three of them (process_id from 0), or none'
        )
    if explicit and not (coordinator.rpartition(':')[0] and coordinator.rpartition(':')[2].isdigit()):
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
        _crew = Crew(global_state.client, jax.process_index(), jax.process_count())
        _crew.watch()


def _on_slurm() -> bool:
    """Whether this is a task of a SLURM step (srun) that has several: the variables that JAX goes by."""
    return all(name in os.environ for name in _SLURM) and int(os.environ['SLURM_NTASKS']) > 1


def _on_tpu() -> bool:
    """Whether this machine has a TPU that JAX will use; of how many hosts, JAX finds in its metadata."""
    wanted = os.environ.get('JAX_PLATFORMS', '')
    if (wanted and 'tpu' not in wanted.split(',')) or importlib.util.find_spec('libtpu') is None:
        return False
    return any(Path('/dev').glob('accel*')) or any(Path('/dev/vfio').glob('[0-9]*'))


def count() -> int:
    """Processes of this job."""
    return _crew.count if _crew else 1


def index() -> int:
    """This process's number, from 0."""
    return _crew.index if _crew else 0


def is_leader() -> bool:
    """Whether this is process 0, which decides and writes."""
    return index() == 0


def on_leader(label: str, function: Callable[[], Any]) -> Any:
    """Calls the function on process 0 alone; every process returns its result, which JSON can hold.

    What it raises is raised on process 0, and FailedElsewhere with its text on the others.
    """
    return _crew.on_leader(label, function) if _crew else function()


def gather(label: str, value: Any, patience: float | None = None) -> list[Any]:
    """Every process's value, which JSON can hold, by process. patience: seconds to wait for the others, None = as long
    as they live. Raises ProcessLost.
    """
    return _crew.gather(label, value, patience) if _crew else [value]


def barrier(label: str) -> None:
    """Returns when every process is here."""
    gather(label, None)


def agreed(error: Exception | None) -> Exception | None:
    """The outcome of a piece of work that all processes did: None where none of them failed, else an error, this
    process's own where it has one. Raises ProcessLost where another does not come to an end with it.
    """
    if _crew is None:
        return error
    own = None if error is None else f'{type(error).__name__}: {error}'
    try:
        texts = gather('outcome', own, None if own is None else _ANSWER)
    except DistributedError as lost:
        raise type(lost)(f'{lost}; process {index()}: {own}' if own else str(lost)) from error
    failed = next(((process, text) for process, text in enumerate(texts) if text), None)
    if error is None and failed:
        return FailedElsewhere(f'process {failed[0]}: {failed[1]}')
    return error


def require_equal(facts: Mapping[str, str]) -> None:
    """Raises DistributedError unless every process has the same facts; names the first that differs from process 0."""
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
    if _crew is None:
        return
    mark = folder / on_leader('shared folder', lambda: _marked(folder))
    with contextlib.suppress(OSError):
        os.listdir(folder)  # NFS then asks its server again
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


def meet(mesh: Mesh) -> None:
    """Opens the connections between the processes for every group of devices that a program on this mesh may sum over.

    Gloo, which joins the processes of CPUs, does it at a group's first collective, and gives up where two processes
    come to it more than 30 seconds apart: when one of them has to compile what another finds in its cache. Here they
    come together. Without effect on accelerators and where this process is alone.
    """
    axes = [name for name in mesh.axis_names if mesh.shape[name] > 1]
    if _crew is None or jax.default_backend() != 'cpu' or not axes:
        return
    groups = [group for n in range(1, len(axes) + 1) for group in itertools.combinations(axes, n)]

    def sums() -> jax.Array:
        own = sum(jax.lax.axis_index(name) for name in axes)  # of a constant, the compiler knows the sum
        return jnp.stack([jax.lax.psum(own, group) for group in groups]).sum()

    program = jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=(), out_specs=PartitionSpec(), check_vma=False))
    compiled = program.lower().compile()
    barrier('meet')
    jax.block_until_ready(compiled())


def leave(code: int, text: str) -> None:
    """Ends this process and all others with that exit code; returns where it is alone."""
    if _crew:
        _crew.leave(code, text)


def last_words(function: Callable[[], object]) -> None:
    """Has a function called when this process must end because another one did."""
    if _crew:
        _crew._last_words.append(function)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
