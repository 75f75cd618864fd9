"""The files of a workdir: config, metrics, results, runs. Text is written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xlmr_flax.config import Config, ConfigError, to_dict
from xlmr_flax.eval.files import write_atomic
from xlmr_flax.experiment.plan import Run


class Workdir:
    """W/config.json, W/metrics.jsonl, W/results.jsonl, W/runs/NAME/, W/predictions/NAME/, W/report/."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics_path, self.results_path = path / 'metrics.jsonl', path / 'results.jsonl'
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / '.writable'
            probe.write_text('')
            probe.unlink()
        except OSError as e:
            raise ConfigError(f'{path}: cannot be written to ({e.strerror})') from None

    def save_config(self, config: Config, command: str) -> None:
        """The config as run last, with the command."""
        text = json.dumps({'command': command, 'config': to_dict(config)}, indent=2, sort_keys=True)
        write_atomic(self.path / 'config.json', text + '\n')

    def run_dir(self, run: Run) -> Path:
        return self.path / 'runs' / run.name

    def predictions(self, run: Run) -> Path:
        """The root of a system's prediction folders in XTREME's layout: one arm and seed is one system."""
        return self.path / 'predictions' / f'{run.intermediate}-seed{run.seed}'

    def evaluation_path(self, run: Run, language: str, split: str) -> Path:
        return self.run_dir(run) / 'evaluations' / f'{run.target}-{split}-{language}.json'

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends one record to metrics.jsonl."""
        with self.metrics_path.open('a', encoding='utf-8') as f:
            f.write(json.dumps(record) + '\n')

    def metrics(self) -> list[dict[str, Any]]:
        """All whole records of metrics.jsonl (a line cut by a kill is left out)."""
        if not self.metrics_path.is_file():
            return []
        records = []
        for line in self.metrics_path.read_text(encoding='utf-8').splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def forget_metrics(self, run: str, after: int) -> None:
        """Drops a run's records past a step: those that it logs again when it goes on from there."""
        if self.metrics_path.is_file():
            kept = [r for r in self.metrics() if r.get('run') != run or r.get('step', 0) <= after]
            write_atomic(self.metrics_path, ''.join(json.dumps(r) + '\n' for r in kept))

    def seconds(self) -> float:
        """Time spent on this workdir over all starts."""
        path = self.path / 'time.json'
        return json.loads(path.read_text(encoding='utf-8'))['seconds'] if path.is_file() else 0.0

    def add_seconds(self, seconds: float) -> None:
        write_atomic(self.path / 'time.json', json.dumps({'seconds': self.seconds() + seconds}) + '\n')

    def write_results(self, rows: Iterable[Mapping[str, Any]]) -> None:
        write_atomic(self.results_path, ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))


def read_evaluation(path: Path, key: str) -> list[dict[str, Any]] | None:
    """The rows of a finished evaluation, None where there is none or it was made under other settings (`key`)."""
    try:
        saved = json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return saved['rows'] if saved.get('key') == key else None


def write_evaluation(path: Path, key: str, rows: list[dict[str, Any]]) -> None:
    """Marks an evaluation as finished."""
    write_atomic(path, json.dumps({'key': key, 'rows': rows}, ensure_ascii=False, indent=1) + '\n')
