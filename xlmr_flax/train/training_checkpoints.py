"""Checkpoints for resuming a training: its last states, and the best weights by the dev metric."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlmr_flax.parallel.distributed import on_leader
from xlmr_flax.train.checkpoint import CheckpointError, Checkpoints, OtherRun, saved_facts
from xlmr_flax.util.manifest import ManifestError


class TrainingCheckpoints:
    """The checkpoints of one training in DIRECTORY/last and DIRECTORY/best, written in the background one at a time.

    keep: the number of last states to keep. A state names the step of its best weights (fact `best_step`, 0 = none),
    and these are kept as long as the state. Otherwise a run that resumes from an older state might not get them again:
    on another mesh its numbers differ in the last digits, so that another step may become the best. say: called with a
    message about damaged checkpoints.
    """

    def __init__(
        self, directory: Path, run_hash: str, decides: Mapping[str, Any], keep: int, say: Callable[[str], None]
    ):
        self.directory, self.keep, self.say = directory, keep, say
        self.last = Checkpoints(directory / 'last', run_hash, decides)
        self.best = Checkpoints(directory / 'best', run_hash, decides)

    def start(self) -> dict[str, Any] | None:
        """Returns the facts of the newest undamaged state, None if nothing has been saved. Deletes newer checkpoints.

        Raises CheckpointError if all states are damaged or if they belong to another run.
        """
        choice = on_leader('checkpoint', self._choose)
        if choice['message']:
            self.say(choice['message'])
        return choice['facts']

    def _choose(self) -> dict[str, Any]:
        damaged: list[str] = []
        facts: dict[str, Any] | None = None
        for each in (self.last, self.best):
            each.clean()
        for step in reversed(self.last.steps()):
            try:
                facts = self.last.facts(step)
                if facts['best_step']:
                    self.best.facts(facts['best_step'])
                break
            except OtherRun:
                raise
            except CheckpointError as e:
                facts = None
                damaged.append(str(e))
        if damaged and facts is None:
            raise CheckpointError(
                f'{damaged[0]}; no older checkpoint is intact: delete {self.directory} to train this run from its start'
            )
        start = facts['step'] if facts else 0
        for each in (self.last, self.best):
            each.prune([step for step in each.steps() if step <= start])
        message = f'{"; ".join(damaged)}: resuming from the checkpoint of step {start}, which is intact'
        return {'facts': facts, 'message': message if damaged else ''}

    def restore(self, step: int, like: Any) -> Any:
        """Reads the state of the step that `start` returned, with the shardings of `like`. Raises CheckpointError."""
        return self._read(self.last, step, like)

    def restore_best(self, step: int, like: Any) -> tuple[Any, float]:
        """Reads (parameters, dev metric) of the best step, with the shardings of `like`. Raises CheckpointError."""
        self.wait()
        try:
            facts = on_leader('best checkpoint', lambda: self.best.facts(step))
        except CheckpointError as e:
            raise CheckpointError(f'{e}; delete {self.directory} to train this run from its start') from None
        return self._read(self.best, step, like), facts['metric']

    def _read(self, where: Checkpoints, step: int, like: Any) -> Any:
        try:
            return where.restore(step, like)
        except CheckpointError as e:
            raise CheckpointError(f'{e}; delete {self.directory} to train this run from its start') from e

    def save_last(self, step: int, state: Any, /, **facts: Any) -> None:
        """Starts to save a state. The arrays may be donated when this returns. Raises CheckpointError."""
        with self._saying_what_is_left():
            self.best.wait()
            self.last.save(step, state, then=self._prune, step=step, **facts)

    def save_best(self, step: int, params: Any, /, metric: float) -> None:
        """Starts to save the best weights so far. Raises CheckpointError."""
        with self._saying_what_is_left():
            self.last.wait()
            self.best.save(step, params, then=self._prune, step=step, metric=metric)

    @contextlib.contextmanager
    def _saying_what_is_left(self) -> Iterator[None]:
        try:
            yield
        except CheckpointError as e:
            states = self.last.steps()
            left = f'the checkpoint of step {states[-1]} is intact' if states else 'no checkpoint had been saved before'
            raise CheckpointError(f'{e}; {left}') from None

    def _prune(self) -> None:
        self.last.prune(states := self.last.steps()[-self.keep :])
        best = self.best.steps()
        needed = {max((b for b in best if b <= step), default=0) for step in states}
        self.best.prune({*needed, *best[-1:]})

    def check(self) -> None:
        """Raises the CheckpointError of a save that has failed so far."""
        with self._saying_what_is_left():
            self.last.check()
            self.best.check()

    def wait(self) -> None:
        """Waits until all saves are on disk. Raises CheckpointError."""
        with self._saying_what_is_left():
            self.last.wait()
            self.best.wait()

    def close(self) -> None:
        """Waits for running saves. Does not raise their errors."""
        self.last.close()
        self.best.close()


def newest_decides(directory: Path) -> dict[int, Mapping[str, Any]]:
    """Returns {step: settings that decided the training} of the newest state in a folder; {} = no state."""
    last = Checkpoints(directory / 'last', '')
    with contextlib.suppress(ManifestError):
        return {step: saved_facts(last.path(step))['decides'] for step in last.steps()[-1:]}
    return {}
