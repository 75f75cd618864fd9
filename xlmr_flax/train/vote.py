"""Agreement on a stop request: several processes must stop at the same step of a training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_IN_FLIGHT = 2  # votes in flight: the host reads a vote this many steps later, so that it does not wait for the devices


class StopVote:
    """Decides whether to stop after a step. All processes of the mesh get the same answer at the same step.

    A single process uses `asked()`. With several, every process votes at every step, the devices compute the maximum
    of the votes, and the answer is that of a few steps ago, so that no process waits for it.
    """

    def __init__(self, mesh: Mesh, asked: Callable[[], bool]):
        self._mesh, self._asked = mesh, asked
        self._several = jax.process_count() > 1
        self._votes: deque[jax.Array] = deque()

    def __call__(self, after: jax.Array, last: bool) -> bool:
        """Votes and returns whether to stop.

        after: a finite scalar that the step computed; the dependency gives votes and steps the same order on every
        process. last: whether this is the last step, so that all votes are read now.
        """
        if not self._several:
            return self._asked()
        sharding = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        own = np.full(self._mesh.size, self._asked(), np.float32)
        votes = jax.make_array_from_callback(own.shape, sharding, lambda place: own[place])
        self._votes.append(_any_vote(self._mesh)(votes, after))
        in_flight = 0 if last else _IN_FLIGHT
        stop = False
        while len(self._votes) > in_flight:
            stop |= bool(np.asarray(self._votes.popleft()) > 0)
        return stop


@lru_cache(maxsize=8)
def _any_vote(mesh: Mesh) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The compiled maximum over all votes. Cached, so that later runs of a plan do not compile it again."""

    def largest(votes: jax.Array, after: jax.Array) -> jax.Array:
        return jnp.maximum(votes.max(), 0 * after)

    return partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))(largest)
