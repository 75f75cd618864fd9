"""The files of a workdir: config, metrics, results, runs. Text is written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import socket
import time
import traceback
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlmr_flax.config import Config, ConfigError, to_dict
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.workdir.git_version import source
from xlmr_flax.report.rows import RowsError, check_row
from xlmr_flax.util import strict_json
from xlmr_flax.util.console import say
from xlmr_flax.util.files import write_atomically
from xlmr_flax.util.secrets import hide

# Fields of a record in metrics.jsonl that are read again; the first is of every record.
_RECORD = {
    'run': str, 'intermediate': str, 'target': str, 'task': str, 'seed': int, 'step': int,
    'loss': int | float, 'dev_metric': int | float, 'examples_per_s': int | float,
}  # fmt: skip

# Folders in which any process may be writing; those of a run belong to the one that has claimed it.
_SHARED = ('', 'claims', 'failed', 'report', 'report/figures', 'report/latex')
# Files that have not got their name (scoring/files.py, util/files.py, claims.py), and probes of the file system.
_TEMPORARY = re.compile(r'\..+\.(?:\d+-[0-9a-f]{8}|[0-9a-f]{32}|[a-z0-9_]{8})\.tmp|\.(?:writable|clock)-[0-9a-f]{32}')
_ABANDONED = 3600.0  # seconds: each is there for as long as it takes to write one text


class Workdir:
    """The files of one workdir W:

    config.json, results.jsonl, metrics.jsonl, time.json, runs/NAME/, predictions/NAME/, claims/, failed/, report/.

    Several processes may work in it. What lies below runs/NAME/ is written by the one that has claimed the run,
    its metrics among them; what stands in W itself is put together from those and replaced as a whole.
    shard: of this process ('1/2'), '' = it has the plan for itself. look_only: nothing is made or written (a dry run;
    of several processes of one job all but the first).
    """

    def __init__(self, path: Path, shard: str = '', look_only: bool = False):
        self.path, self.shard, self.look_only = path, shard, look_only
        self.metrics_path, self.results_path = path / 'metrics.jsonl', path / 'results.jsonl'
        if look_only:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Not one name for all: two processes may start at once.
            probe = path / f'.writable-{uuid.uuid4().hex}'
            probe.write_text('')
            now = probe.stat().st_mtime
            probe.unlink()
        except OSError as e:
            raise ConfigError(f'{path}: cannot be written to ({e.strerror})') from None
        for folder in _SHARED:
            _remove_abandoned(path / folder, now)

    def save_config(self, config: Config, command: str) -> None:
        """The config as run last, with the command."""
        text = json.dumps({'command': command, 'config': to_dict(config)}, indent=2, sort_keys=True)
        self._write(self.path / 'config.json', text + '\n')
        if not self.look_only:
            source()  # asked for before the work: the checkout may change meanwhile

    def _write(self, path: Path, text: str) -> None:
        if not self.look_only:
            write_atomically(path, text)

    def weights(self, run: Run) -> Path:
        """Where a run's trained weights lie."""
        return self.run_dir(run) / 'model' / 'model.safetensors'

    def run_dir(self, run: Run) -> Path:
        return self.path / 'runs' / run.name

    def predictions(self, run: Run) -> Path:
        """The root of a system's prediction folders in XTREME's layout: one arm and seed is one system."""
        return self.path / 'predictions' / f'{run.intermediate}-seed{run.seed}'

    def evaluation_path(self, run: Run, language: str, split: str) -> Path:
        return self.run_dir(run) / 'evaluations' / f'{run.target}-{split}-{language}.json'

    def refresh(self, run: Run) -> None:
        """Lists the folders of a run: NFS asks its server again about a folder that is listed, and may else go on
        saying for a while that a file which another machine has just written is not there (nfs(5), lookupcache).
        """
        for folder in (self.path / 'runs', self.run_dir(run), self.run_dir(run) / 'evaluations', self.path / 'failed'):
            with contextlib.suppress(OSError):
                os.listdir(folder)

    def take_over(self, run: Run) -> None:
        """Refreshes a run that this process has just claimed, and deletes what a process that was killed while it wrote
        has left in its folder: files and models that have not got their name.
        """
        self.refresh(run)
        for path in self.run_dir(run).glob('.*'):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def remove_leftovers(self, run: Run, drop_weights: bool = False) -> None:
        """Deletes what a process that was killed behind its last step has left of a finished run: the state to go on
        from, a model that was not whole, and weights that are not to be kept.
        """
        if self.look_only:
            return
        for folder in (self.run_dir(run) / 'checkpoints', *self.run_dir(run).glob('.model.*')):
            shutil.rmtree(folder, ignore_errors=True)
        if drop_weights:
            self.weights(run).unlink(missing_ok=True)

    def forget_partial(self, run: Run, folder: str) -> None:
        """Deletes what a process that was killed while it wrote has left in the folders of a claimed run's
        evaluations and predictions (folder: of its task): files that have not got their name, sentence vectors.
        """
        for vectors in (self.predictions(run) / folder).glob('*.embeddings'):
            shutil.rmtree(vectors, ignore_errors=True)
        for place in (self.run_dir(run) / 'evaluations', self.predictions(run) / folder):
            for path in place.glob('.*.tmp'):
                path.unlink(missing_ok=True)

    def _run_metrics(self, run: str) -> Path:
        return self.path / 'runs' / run / 'metrics.jsonl'

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one record to its run's metrics. Of a process that is alone, metrics.jsonl can be watched too."""
        if self.look_only:
            return
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        line = json.dumps(finite, allow_nan=False) + '\n'
        path = self._run_metrics(record['run'])
        path.parent.mkdir(parents=True, exist_ok=True)
        for each in (path,) if self.shard else (path, self.metrics_path):
            with _named(each), each.open('a', encoding='utf-8') as f:
                f.write(line)

    def metrics(self) -> list[dict[str, Any]]:
        """All whole records by run (a line cut by a kill is left out). Of runs without a file of their own, which
        older versions did not write, those of metrics.jsonl.
        """
        paths = sorted((self.path / 'runs').glob('*/metrics.jsonl'))
        known = {path.parent.name for path in paths}
        records = [r for r in _records(self.metrics_path) if r.get('run') not in known]
        return records + [record for path in paths for record in _records(path)]

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Behind the inside, puts metrics.jsonl together again. What the inside raises counts more than that it cannot
        be written.
        """
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self.gather_metrics()
            raise
        self.gather_metrics()

    def gather_metrics(self) -> None:
        """Puts metrics.jsonl together again."""
        if self.look_only:
            return
        text = ''.join(json.dumps(r) + '\n' for r in self.metrics())
        if text and (not self.metrics_path.is_file() or self.metrics_path.read_text(encoding='utf-8') != text):
            write_atomically(self.metrics_path, text)

    def forget_metrics(self, run: str, after: int, evaluated: bool = True) -> None:
        """Drops a run's records past a step: those that it logs again when it goes on from there, with an evaluation at
        that step where it was not `evaluated`.
        """
        if self.look_only:
            return
        path = self._run_metrics(run)
        records = _records(path if path.is_file() else self.metrics_path)
        kept = [r for r in records if r.get('run') == run and r.get('step', 0) <= after]
        kept = [r for r in kept if evaluated or r.get('step') != after or 'dev_metric' not in r]
        write_atomically(path, ''.join(json.dumps(r) + '\n' for r in kept))
        if not self.shard:
            self.gather_metrics()

    def seconds(self) -> float:
        """Time spent on this workdir by all processes over all starts."""
        return sum(each['seconds'] for each in self._times())

    def sources(self) -> list[str]:
        """The commits that work was done with, as far as they are known (`checkout.source`)."""
        return list(dict.fromkeys(source for each in self._times() for source in each.get('sources', ())))

    def _times(self) -> list[dict[str, Any]]:
        return [_time(path) for path in (self.path / 'time.json', *sorted(self.path.glob('time-*.json')))]

    def add_seconds(self, seconds: float) -> None:
        """Notes work that was done: how long, and with which source. Says it where that cannot be written."""
        path = self.path / (f'time-{self.shard.replace("/", "of")}.json' if self.shard else 'time.json')
        before, now = _time(path), source()
        sources = list(dict.fromkeys([*before.get('sources', ()), *([now] if now else [])]))
        facts = {'seconds': before['seconds'] + seconds} | ({'sources': sources} if sources else {})
        self._write_or_say(path, json.dumps(facts) + '\n')

    def _write_or_say(self, path: Path, text: str) -> None:
        """For what is written behind something that must be heard of first: a failure, a stop."""
        try:
            self._write(path, text)
        except OSError as e:
            say(f'{path}: cannot be written: {e.strerror}')

    def write_results(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._write(self.results_path, ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))

    def failure_path(self, run: Run) -> Path:
        return self.path / 'failed' / f'{run.name}.json'

    def failure(self, run: Run) -> dict[str, Any] | None:
        """What is known of a run that failed: run, type, error, traceback, command, time. None where it did not."""
        try:
            return strict_json.read_object(self.failure_path(run))
        except (FileNotFoundError, strict_json.JsonError):
            return None

    def write_failure(self, run: Run, error: BaseException, command: str) -> None:
        """Records a failure. Says it where that cannot be written."""
        facts = {
            'run': run.name,
            'id': run.id,
            'type': type(error).__name__,
            'error': hide(str(error)),
            'traceback': hide(''.join(traceback.format_exception(error))),
            'command': command,
            'shard': self.shard,
            'host': socket.gethostname(),
            'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'token': uuid.uuid4().hex,
        }
        self._write_or_say(self.failure_path(run), json.dumps(facts, ensure_ascii=False, indent=1) + '\n')

    def forget_failure(self, run: Run) -> None:
        if not self.look_only:
            self.failure_path(run).unlink(missing_ok=True)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Gives an OSError of write() and close(), which name no file, the file's name."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _records(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            record = strict_json.loads(line)
        except strict_json.JsonError:  # a line that was cut by a kill
            continue
        if isinstance(record, dict) and 'run' in record and _is_well_typed(record):
            records.append(record)
    return records


def _is_well_typed(record: Mapping[str, Any]) -> bool:
    """Whether the fields of a record that are read again are of their types."""
    return all(isinstance(record[name], kind) for name, kind in _RECORD.items() if name in record)


def _time(path: Path) -> dict[str, Any]:
    """time.json's content. Raises JsonError naming the file where it is damaged."""
    if not path.is_file():
        return {'seconds': 0.0}
    found = strict_json.read_object(path)
    if not isinstance(found.get('seconds'), int | float) or not isinstance(found.get('sources', []), list):
        raise strict_json.JsonError('a number `seconds` and a list `sources` are expected', path=path)
    return found


def read_evaluation(path: Path, key: str) -> list[dict[str, Any]] | None:
    """The rows of a finished evaluation, None where there is none, a damaged one or one of other settings (`key`)."""
    try:
        saved = strict_json.read_object(path)
    except (FileNotFoundError, strict_json.JsonError):
        return None
    rows = saved.get('rows')
    if saved.get('key') != key or not isinstance(rows, list):
        return None
    try:
        for row in rows:
            check_row(row, str(path))
    except RowsError:
        return None
    return rows


def write_evaluation(path: Path, key: str, rows: list[dict[str, Any]]) -> None:
    """Marks an evaluation as finished."""
    write_atomically(path, json.dumps({'key': key, 'rows': rows}, ensure_ascii=False, indent=1) + '\n')


def _remove_abandoned(folder: Path, now: float) -> None:
    """Deletes the temporary files that a killed process has left in a folder. now: by the file system's clock."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # another process may do the same
                    if now - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED:
                        os.unlink(entry.path)
