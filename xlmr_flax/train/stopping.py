"""Stop requests during training: signals, and a vote where several processes must stop at the same step."""

from __future__ import annotations

import contextlib
import signal
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_BEHIND = 2  # votes on their way: the host waits for none that the devices have not had time to count


class Stopped(RuntimeError):
    """The run was asked to stop (SIGTERM, SIGINT) and saved its state first."""


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields `asked()`; while inside, SIGTERM and SIGINT only set it. A second signal acts at once.

    What is inside answers a request with Stopped. One that it leaves unanswered, since it came too late or something
    failed, is handed on at the end to whoever handled the signals before.
    """
    asked: list[int] = []
    answered = failed = False
    try:
        old: dict[int, Any] = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

        def handle(number: int, frame: Any) -> None:
            asked.append(number)
            signal.signal(number, old[number])

        for number in old:
            signal.signal(number, handle)
    except ValueError:  # not the main thread (notebooks, tests): signals stay as they are
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    except Stopped:
        answered = True
        raise
    except BaseException:
        failed = True
        raise
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
        # The system's own way of handling it would end the process before the failure is heard of.
        if len(asked) == 1 and not answered and not (failed and old[asked[0]] is signal.SIG_DFL):
            signal.raise_signal(asked[0])


class StopVote:
    """Whether to stop behind this step; all processes of the mesh get the same answer at the same step.

    With one process it is `asked()`. With several, every process votes at every step, the votes are counted on the
    devices, and the answer is the count of a few steps ago, so that nobody waits for it.
    """

    def __init__(self, mesh: Mesh, asked: Callable[[], bool]):
        self._mesh, self._asked = mesh, asked
        self._several = jax.process_count() > 1
        self._votes: deque[jax.Array] = deque()

    def __call__(self, after: jax.Array, last: bool) -> bool:
        """after: a finite scalar that the step computed, so that votes and steps come in one order on every process.
        last: no step follows, so that every vote is counted now.
        """
        if not self._several:
            return self._asked()
        sharding = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        own = np.full(self._mesh.size, self._asked(), np.float32)
        votes = jax.make_array_from_callback(own.shape, sharding, lambda place: own[place])
        self._votes.append(_counter(self._mesh)(votes, after))
        behind = 0 if last else _BEHIND
        stop = False
        while len(self._votes) > behind:
            stop |= bool(np.asarray(self._votes.popleft()) > 0)
        return stop


@lru_cache(maxsize=8)
def _counter(mesh: Mesh) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def total(votes: jax.Array, after: jax.Array) -> jax.Array:
        return jnp.maximum(votes.max(), 0 * after)

    return partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))(total)
