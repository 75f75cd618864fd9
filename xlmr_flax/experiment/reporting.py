"""Tables and the HTML page of a workdir, from its files alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xlmr_flax.config import Config, ConfigError, parse
from xlmr_flax.experiment import presets
from xlmr_flax.experiment.plan import NONE, task_of, training_task
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.workdir import Workdir
from xlmr_flax.models import embedded
from xlmr_flax.report import read_rows, write_report, write_tables
from xlmr_flax.tasks.base import Task

_WORLD_NOTE = (
    'world_* tasks are the embedded world: a small grammar with sentences in several languages, written for this '
    'project. They show that the pipeline works, not how good an encoder is.'
)


def write_run_report(runner: Runner, versions: Mapping[str, str]) -> str:
    """Writes W/report/ after a run; returns a line that says where."""
    return _write(runner.workdir, runner.config, runner.command, versions)


def write_report_again(path: Path, versions: Mapping[str, str]) -> str:
    """Writes W/report/ from W's files. Raises ConfigError where W is no workdir."""
    try:
        saved = json.loads((path / 'config.json').read_text(encoding='utf-8'))
        config, command = parse(saved['config']), saved['command']
    except (OSError, json.JSONDecodeError, KeyError) as e:
        raise ConfigError(f'{path / "config.json"}: no workdir of xlmr-flax run ({e})') from None
    return _write(Workdir(path), config, command, versions)


def _write(workdir: Workdir, config: Config, command: str, versions: Mapping[str, str]) -> str:
    rows = read_rows(workdir.results_path)
    report = workdir.path / 'report'
    tables = write_tables(report, rows)
    info = {
        'title': config.title or config.name,
        'command': command,
        'config': json.loads((workdir.path / 'config.json').read_text(encoding='utf-8'))['config'],
        'versions': dict(versions),
        'seconds': workdir.seconds(),
        'date': time.strftime('%Y-%m-%d'),
        'notes': notes(config),
        'licences': licences(config),
    }
    page = write_report(report / 'index.html', rows, curves(workdir.metrics()), info)
    return f'report: {page}\ntables: {next(t for t in tables if t.suffix == ".md")}'


def used_tasks(config: Config) -> list[Task]:
    """Every task whose data a plan reads, once."""
    found: dict[str, Task] = {}
    for name in (*config.intermediate, *config.targets):
        if name != NONE:
            task = task_of(config, name)
            found[name] = task
            if name in config.targets and task.kind != 'retrieval':
                train = training_task(config, task)
                found[train.name] = train
    return list(found.values())


def notes(config: Config) -> list[str]:
    """What a reader of the numbers must know."""
    found = [embedded.NOTE] if config.encoder.source == 'embedded' else []
    tasks = used_tasks(config)
    if any(task.name.startswith('world_') for task in tasks):
        found.append(_WORLD_NOTE)
    found += presets.remarks(config)
    return found + [f'{task.name}: {task.note}' for task in tasks if task.note and not task.name.startswith('world_')]


def licences(config: Config) -> list[str]:
    """Data licences by task."""
    return [f'{task.name}: {task.licence}' for task in used_tasks(config) if task.licence]


def curves(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """metrics.jsonl records -> the report's curve points: training loss and dev metric by step."""
    points = []
    for record in records:
        point = {k: record.get(k) for k in ('run', 'intermediate', 'target', 'seed', 'step')}
        if 'loss' in record:
            points.append(point | {'loss': record['loss']})
        if 'dev_metric' in record:
            points.append(point | {'metric': 'dev accuracy', 'value': record['dev_metric']})
    return points
