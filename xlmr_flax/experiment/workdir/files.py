"""Reads and writes the files of a workdir: config, metrics, results, runs.

Files are written atomically, except the metrics, to which lines are appended: a killed process may leave the last one
unfinished.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import time
import traceback
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlmr_flax.config import Config, to_dict
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.workdir.file_system import check_writable, remove_abandoned
from xlmr_flax.experiment.workdir.git_version import commit
from xlmr_flax.experiment.workdir.log_writer import LogWriter
from xlmr_flax.report.rows import RowsError, check_row
from xlmr_flax.util import strict_json
from xlmr_flax.util.console import say, warn
from xlmr_flax.util.errors import quote
from xlmr_flax.util.files import write_atomically
from xlmr_flax.util.secrets import hide

# Fields of a metrics.jsonl record that are read later, with their types. Every record has run and step.
_RECORD = {
    'run': str, 'intermediate': str, 'target': str, 'task': str, 'seed': int, 'step': int,
    'loss': int | float, 'dev_metric': int | float, 'examples_per_s': int | float,
}  # fmt: skip

# Folders in which any process may write. The folders of a run belong to the process that has claimed it.
_SHARED = ('', 'claims', 'failed', 'report', 'report/figures', 'report/latex')
_LONGEST = 1e12  # seconds; a larger number is not plausible


class Workdir:
    """The files of one workdir W:

    config.json, results.jsonl, metrics.jsonl, time.json, runs/NAME/, predictions/NAME/, claims/, failed/, report/.

    Several processes may work in it. Only the process that has claimed a run writes below runs/NAME/, which includes
    the run's metrics. The files directly in W are assembled from these. They are replaced as a whole, except that
    records are also appended to metrics.jsonl while runs train.
    shard: the part of this process ('1/2'), '' = it does the whole plan. look_only: create and write nothing (in a dry
    run, and in all but the first process of a multi-process job).
    """

    def __init__(self, path: Path, shard: str = '', look_only: bool = False):
        self.path, self.shard, self.look_only = path, shard, look_only
        self.metrics_path, self.results_path = path / 'metrics.jsonl', path / 'results.jsonl'
        self._log = LogWriter()
        if look_only:
            return
        now = check_writable(path)
        for folder in _SHARED:
            remove_abandoned(path / folder, now)

    def save_config(self, config: Config, command: str) -> None:
        """Writes the config and the command of the latest call to config.json."""
        text = json.dumps({'command': command, 'config': to_dict(config)}, indent=2, sort_keys=True)
        self._write(self.path / 'config.json', text + '\n')
        if not self.look_only:
            commit()  # cached before the work starts, since the checkout may change later

    def _write(self, path: Path, text: str) -> None:
        if not self.look_only:
            write_atomically(path, text)

    def weights(self, run: Run) -> Path:
        """The path of a run's trained weights."""
        return self.run_dir(run) / 'model' / 'model.safetensors'

    def run_dir(self, run: Run) -> Path:
        return self.path / 'runs' / run.name

    def predictions(self, run: Run) -> Path:
        """The root of the prediction folders, in XTREME's layout, of one system, that is one arm and seed."""
        return self.path / 'predictions' / f'{run.intermediate}-seed{run.seed}'

    def evaluation_path(self, run: Run, language: str, split: str) -> Path:
        return self.run_dir(run) / 'evaluations' / f'{run.target}-{split}-{language}.json'

    def refresh(self, run: Run) -> None:
        """Lists the folders of a run to refresh the NFS cache. Otherwise NFS may for some time report that a file which
        another machine has just written does not exist (nfs(5), lookupcache).
        """
        for folder in (self.path / 'runs', self.run_dir(run), self.run_dir(run) / 'evaluations', self.path / 'failed'):
            with contextlib.suppress(OSError):
                os.listdir(folder)

    def take_over(self, run: Run) -> None:
        """Refreshes a run that this process has just claimed, and deletes temporary files and partial models that a
        killed process has left in its folder.
        """
        self.refresh(run)
        for path in self.run_dir(run).glob('.*'):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def remove_leftovers(self, run: Run, drop_weights: bool = False) -> None:
        """Deletes what a process that was killed after the last step has left of a finished run: checkpoints, partial
        models, and (drop_weights) the trained weights.
        """
        if self.look_only:
            return
        for folder in (self.run_dir(run) / 'checkpoints', *self.run_dir(run).glob('.model.*')):
            shutil.rmtree(folder, ignore_errors=True)
        if drop_weights:
            self.weights(run).unlink(missing_ok=True)

    def forget_partial(self, run: Run, folder: str) -> None:
        """Deletes temporary files and sentence vectors that a killed process has left in the evaluations and
        predictions of a claimed run. folder: the prediction folder of its task.
        """
        for vectors in (self.predictions(run) / folder).glob('*.embeddings*'):
            shutil.rmtree(vectors, ignore_errors=True)
        for place in (self.run_dir(run) / 'evaluations', self.predictions(run) / folder):
            for path in place.glob('.*.tmp'):
                path.unlink(missing_ok=True)

    def _run_metrics(self, run: str) -> Path:
        return self.path / 'runs' / run / 'metrics.jsonl'

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one record to the metrics of its run; without shards, also to metrics.jsonl. Within `gathering`, a
        thread writes it (log_writer.py)."""
        if self.look_only:
            return
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        line = json.dumps(finite, allow_nan=False) + '\n'
        path = self._run_metrics(record['run'])
        path.parent.mkdir(parents=True, exist_ok=True)
        self._log.add((path,) if self.shard else (path, self.metrics_path), line)

    def write_log(self) -> None:
        """Writes all records that were logged so far. Raises OSError."""
        self._log.flush()

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the records of all runs, with a warning for each line that is no record (`_records`). Runs of older
        versions have no file of their own; their records come from metrics.jsonl.
        """
        self.write_log()
        paths = sorted((self.path / 'runs').glob('*/metrics.jsonl'))
        known = {path.parent.name for path in paths}
        records = [r for r in _records(self.metrics_path) if r.get('run') not in known]
        return records + [record for path in paths for record in _records(path)]

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Context in which records are written in the background; it rebuilds metrics.jsonl when it ends. If the block
        raises, its exception takes precedence over a failure to write.
        """
        try:
            with self._log.background():
                yield
        except BaseException:
            with contextlib.suppress(OSError):
                self.gather_metrics()
            raise
        self.gather_metrics()

    def gather_metrics(self) -> None:
        """Rebuilds metrics.jsonl from the metrics of the runs."""
        if self.look_only:
            return
        text = ''.join(json.dumps(r) + '\n' for r in self.metrics())
        if text and (not self.metrics_path.is_file() or self.metrics_path.read_text(encoding='utf-8') != text):
            write_atomically(self.metrics_path, text)

    def forget_metrics(self, run: str, after: int, evaluated: bool = True) -> None:
        """Drops the records of a run after a step, because the run logs them again when it resumes from there. If the
        checkpoint was not `evaluated`, the evaluation at that step is dropped as well.
        """
        if self.look_only:
            return
        self.write_log()
        path = self._run_metrics(run)
        records = _records(path if path.is_file() else self.metrics_path)
        kept = [r for r in records if r.get('run') == run and r['step'] <= after]
        kept = [r for r in kept if evaluated or r['step'] != after or 'dev_metric' not in r]
        write_atomically(path, ''.join(json.dumps(r) + '\n' for r in kept))
        if not self.shard:
            self.gather_metrics()

    def seconds(self) -> float:
        """Returns the total seconds of work in this workdir, over all processes and starts."""
        return sum(each['seconds'] for each in self._times())

    def sources(self) -> list[str]:
        """Returns the known git commits of the code that did the work (`git_version.commit`)."""
        return list(dict.fromkeys(source for each in self._times() for source in each.get('sources', ())))

    def _times(self) -> list[dict[str, Any]]:
        return [_time(path) for path in (self.path / 'time.json', *sorted(self.path.glob('time-*.json')))]

    def add_seconds(self, seconds: float) -> None:
        """Records seconds of work and the git commit. Prints a message if the file cannot be written."""
        path = self.path / (f'time-{self.shard.replace("/", "of")}.json' if self.shard else 'time.json')
        before, now = _time(path), commit()
        sources = list(dict.fromkeys([*before.get('sources', ()), *([now] if now else [])]))
        facts = {'seconds': before['seconds'] + seconds} | ({'sources': sources} if sources else {})
        self._write_or_say(path, json.dumps(facts) + '\n')

    def _write_or_say(self, path: Path, text: str) -> None:
        """Writes a file, but prints a message instead of raising OSError, which would hide a failure or a stop."""
        try:
            self._write(path, text)
        except OSError as e:
            say(f'{path}: cannot be written: {e.strerror}')

    def write_results(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._write(self.results_path, ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))

    def failure_path(self, run: Run) -> Path:
        return self.path / 'failed' / f'{run.name}.json'

    def failure(self, run: Run) -> dict[str, Any] | None:
        """Returns the record of a failed run (run, type, error, traceback, command, time); None if it did not fail."""
        try:
            return strict_json.read_object(self.failure_path(run))
        except (FileNotFoundError, strict_json.JsonError):
            return None

    def write_failure(self, run: Run, error: BaseException, command: str) -> None:
        """Records the failure of a run. Prints a message if the file cannot be written."""
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


def _records(path: Path) -> list[dict[str, Any]]:
    """Reads a metrics.jsonl. Warns of lines that are not records, and leaves them out.

    There is no warning for an incomplete last line (another process is writing it, or was killed while writing) and for
    records with a value that was not finite (`Workdir.log` writes null).
    """
    if not path.is_file():
        return []
    records = []
    *lines, unfinished = path.read_bytes().split(b'\n')
    for number, line in enumerate([*lines, unfinished], 1):
        if not line.strip():
            continue
        record, reason = _record(line)
        if not reason:
            records.append(record)
        elif number <= len(lines) and not _is_not_finite(record):
            warn(f'{path}, line {number}: left out: {reason}')
    return records


def _record(line: bytes) -> tuple[Any, str]:
    """Returns (parsed line, reason): why the line is no record, '' = it is one."""
    try:
        record = strict_json.loads(line.decode('utf-8'))
    except strict_json.JsonError as error:
        return None, error.described()
    except UnicodeDecodeError as error:
        return None, f'not UTF-8 at byte {error.start} of the line'
    if not isinstance(record, dict):
        return record, f'an object is expected, not {type(record).__name__}'
    if missing := [name for name in ('run', 'step') if name not in record]:
        return record, f'field {missing[0]!r} is missing'
    wrong = [name for name, kind in _RECORD.items() if name in record and not isinstance(record[name], kind)]
    return record, f'field {wrong[0]!r} is {quote(record[wrong[0]])}' if wrong else ''


def _is_not_finite(record: Any) -> bool:
    return isinstance(record, dict) and any(record.get(name, 0) is None for name in ('loss', 'dev_metric'))


def _time(path: Path) -> dict[str, Any]:
    """Reads a time.json. Raises JsonError, which names the file, if it is damaged."""
    if not path.is_file():
        return {'seconds': 0.0}
    saved = strict_json.read_object(path)
    seconds, sources = saved.get('seconds'), saved.get('sources', [])
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < _LONGEST:
        raise strict_json.JsonError(f'seconds: a number from 0 on is expected, not {quote(seconds)}', path=path)
    if not isinstance(sources, list) or not all(isinstance(each, str) for each in sources):
        raise strict_json.JsonError(f'sources: a list of texts is expected, not {quote(sources)}', path=path)
    return saved


def read_evaluation(path: Path, key: str) -> list[dict[str, Any]] | None:
    """Reads the rows of a finished evaluation; None if it is missing, damaged, or has other settings (`key`)."""
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
    """Saves the rows of an evaluation, which marks it as finished."""
    write_atomically(path, json.dumps({'key': key, 'rows': rows}, ensure_ascii=False, indent=1) + '\n')
