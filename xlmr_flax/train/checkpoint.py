"""Orbax checkpoints of a training run: the last state to go on from, and the best weights by the dev metric.

An atomic save is Orbax's (a step directory appears when it is whole). Each save carries the hash of what decides the
run; a checkpoint of another configuration is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class CheckpointError(RuntimeError):
    """A checkpoint that does not fit or cannot be read; the message names its directory."""


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


class Checkpoints:
    """One directory with at most `keep` whole steps; every save replaces the oldest."""

    def __init__(self, directory: Path, run_hash: str, keep: int = 1):
        self.directory, self.run_hash = directory, run_hash
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, tree: Any, /, **facts: Any) -> None:
        """Saves a tree of arrays and JSON-able facts under a step number; returns when it is on disk."""
        args = ocp.args.Composite(
            tree=ocp.args.StandardSave(tree), facts=ocp.args.JsonSave({'run_hash': self.run_hash, **facts})
        )
        self.forget(step)
        self._manager.save(step, args=args, force=True)
        self._manager.wait_until_finished()

    def forget(self, since: int) -> None:
        """Deletes the saves of step `since` and later ones: what a run that went on from an earlier step makes
        again.
        """
        for step in list(self._manager.all_steps()):
            if step >= since:
                self._manager.delete(step)

    def latest(self) -> int | None:
        """The newest whole step, or None."""
        return self._manager.latest_step()

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """(tree placed as `like`, facts) of the newest step. Raises CheckpointError."""
        step = self.latest()
        if step is None:
            raise CheckpointError(f'{self.directory}: no checkpoint')
        where = self.directory / str(step)
        try:
            facts = self._manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))['facts']
        except Exception as e:
            raise CheckpointError(f'{where}: cannot be read ({e}); delete it to start this run again') from e
        if facts['run_hash'] != self.run_hash:
            raise CheckpointError(
                f'{where}: belongs to run {facts["run_hash"]}, this is {self.run_hash}; use another workdir'
            )
        try:
            args = ocp.args.Composite(tree=ocp.args.StandardRestore(_abstract(like)))
            return self._manager.restore(step, args=args)['tree'], facts
        except Exception as e:
            raise CheckpointError(f'{where}: cannot be read ({e}); delete it to start this run again') from e

    def close(self) -> None:
        """Releases the manager's threads."""
        self._manager.close()
