"""A small training for tests of going on after a stop: two tasks in a mixture, dropout, selection on dev, 12 steps.

As a program it is a server: it imports everything once, then forks a process for each line of JSON on its input, which
trains in a folder and may be told to end itself at a certain point; it answers with the process's exit code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from xlmr_flax.config import OptimizerSpec, Recipe
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.mixture import Mixture, fixed_quotas, stream_seed
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.train import checkpoint, loop
from xlmr_flax.train.phase import Phase, Trained
from xlmr_flax.train.streams import Stream, TrainingData
from xlmr_flax.util.stopping import Stopped

STEPS, STOPPED = 12, 143
HEADS = {'a': HeadSpec('pair', 3), 'b': HeadSpec('pair', 3)}
RECIPE = Recipe(
    steps=STEPS, batch_size=8, max_length=12, lengths=(12,), log_every=1, eval_every=4, keep='best',
    checkpoint_every=3, keep_checkpoints=2, optimizer=OptimizerSpec(learning_rate=1e-3, warmup_steps=2),
)  # fmt: skip
CONFIG = EncoderConfig(
    vocab_size=400, hidden_size=16, num_layers=1, num_heads=2, ffn_size=24, max_positions=34, initializer_range=0.2
)


def rows(name: str, n: int) -> Encoded:
    draw = np.random.default_rng(n)
    tokens = Ragged.from_rows([draw.integers(5, 400, draw.integers(6, 13)) for _ in range(n)])
    return Encoded('pair', tokens, draw.integers(0, 3, n).astype(np.int32), tuple(f'{name}-{i}' for i in range(n)))


DATA = {'a': rows('a', 40), 'b': rows('b', 30)}
NAMES = {tuple(d.tokens[i].tolist()): id for d in DATA.values() for i, id in enumerate(d.ids)}


class Job:
    """The training in a folder. at_batch: called with the number of a step when its batch has been made."""

    def __init__(self, folder: Path, mesh: Any = None, **recipe: Any):
        self.folder, self.at_batch, self.said = folder, lambda step: None, ''
        self.final: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        self.mesh, self.model = mesh or make_mesh(), Model(CONFIG)
        streams = [Stream(k, k, HEADS[k], data, (12,), stream_seed(0, k, 2)) for k, data in DATA.items()]
        self.phase = Phase(
            task='two', model=self.model, recipe=dataclasses.replace(RECIPE, **recipe),
            data=TrainingData(tuple(streams), Mixture(('a', 'b'), fixed_quotas(np.asarray([0.6, 0.4]), STEPS), 5)),
            steps=STEPS, seed=7, pad=1, mesh=self.mesh, directory=folder / 'c', run_hash='h', evaluate=self.evaluate,
            log=lambda r: self._append('log', r), on_start=self._restarted, say=self._say,
        )  # fmt: skip

    def _say(self, text: str) -> None:
        self.said += text

    def evaluate(self, params: Any) -> dict[str, float]:
        """A number that the weights decide. Those of the last evaluation, behind the last step, are noted."""
        self.final = jax.device_get(params)
        return {'dev_metric': float(np.abs(np.asarray(params['heads']['a']['out']['kernel'])).sum())}

    def _append(self, name: str, record: Any) -> None:
        with (self.folder / f'{name}.jsonl').open('a') as f:
            f.write(json.dumps(record) + '\n')

    def read(self, name: str) -> list[Any]:
        path = self.folder / f'{name}.jsonl'
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _restarted(self, step: int, evaluated: bool) -> None:
        """As a workdir does with its metrics."""
        self.step = step
        kept = [r for r in self.read('log') if r['step'] <= step and (evaluated or r['step'] < step or 'best' not in r)]
        (self.folder / 'log.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in kept))
        self._append('starts', step)

    def train(self) -> Trained:
        """Trains; what the devices got is noted by step."""
        real = loop.put_batch

        def put_batch(batch: Any, *rest: Any) -> Any:
            ids = [NAMES[tuple(row[row != 1].tolist())] for row in batch['ids']]
            self._append('consumed', [self.step, ids])
            self.at_batch(self.step)
            self.step += 1
            return real(batch, *rest)

        loop.put_batch = put_batch
        try:
            params = jax.device_get(self.model.init(jax.random.key(3), HEADS))
            trained = loop.train(self.phase, params)
            return dataclasses.replace(trained, params=jax.device_get(trained.params))
        finally:
            loop.put_batch = real

    def losses(self) -> list[dict[str, Any]]:
        """What was logged, without what the clock decides."""
        return [{k: v for k, v in r.items() if k != 'examples_per_s'} for r in self.read('log')]

    def consumed(self) -> dict[int, list[str]]:
        """{step: ids of the examples of its batch}; the same whenever a step was made more than once."""
        found: dict[int, list[str]] = {}
        for step, ids in self.read('consumed'):
            assert found.setdefault(step, ids) == ids
        return found


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(seconds: float, what: Callable[[], None]) -> None:
    """Calls it on a thread, soon."""

    def wait() -> None:
        time.sleep(seconds)
        what()

    threading.Thread(target=wait, daemon=True).start()


class Operations:
    """Counts the file operations below a folder, and ends this process right before number `at`."""

    def __init__(self, folder: Path):
        self.count, self.at, self._folder = 0, 0, str(folder) + os.sep
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in ('open', 'os.rename', 'os.remove', 'os.rmdir', 'os.mkdir', 'os.utime'):
            return
        if event == 'open' and not (isinstance(args[1], str) and set(args[1]) & set('wax+')):
            return
        if args and str(args[0]).startswith(self._folder):
            self.count += 1
            if self.count == self.at:
                die()


def child(
    folder: str,
    devices: int = 1,
    mesh: tuple[int, int, int] | None = None,
    stop: int = -1,
    kill: int = -1,
    save: int = 0,
    operation: int = 0,
    seconds: float = 0.0,
    limit: int = 0,
) -> int:
    """One training; the exit code.

    stop: step at which SIGTERM comes; kill: step in which SIGKILL does; save: number of the save, from 1, in which it
    does, before a file operation or after so many seconds, or from which on no file may be longer than `limit` bytes.
    """
    jax.config.update('jax_num_cpu_devices', devices)
    job = Job(Path(folder), make_mesh(*mesh) if mesh else None)
    operations, saves, real = Operations(job.folder / 'c'), [0], checkpoint.Checkpoints.save

    def at_batch(step: int) -> None:
        if step == stop:
            after(seconds, lambda: os.kill(os.getpid(), signal.SIGTERM))
        if step == kill:
            after(seconds, die)

    def at_save(self: Any, number: int, tree: Any, /, **facts: Any) -> None:
        saves.append(operations.count)
        if len(saves) - 1 == save:
            if operation:
                operations.at = operations.count + operation
            elif limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            else:
                after(seconds, die)
        real(self, number, tree, **facts)

    job.at_batch, checkpoint.Checkpoints.save = at_batch, at_save
    try:
        job.train()
    except Stopped:
        return STOPPED
    except checkpoint.CheckpointError as e:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (job.folder / 'error').write_text(str(e))
        return 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (job.folder / 'operations').write_text(json.dumps([*saves, operations.count]))
    return 0


def serve() -> None:
    for line in sys.stdin:
        process = os.fork()
        if not process:
            code = 2
            try:
                random.seed()
                code = child(**json.loads(line))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == '__main__':
    serve()
