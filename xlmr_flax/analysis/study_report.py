"""Writes the report of a workdir (tables, figures, HTML page) from its files, with tests over examples if the data is
there."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlmr_flax.analysis import example_noise
from xlmr_flax.analysis.against import read_workdir
from xlmr_flax.analysis.fertility import fertility
from xlmr_flax.analysis.language_effects import effects
from xlmr_flax.analysis.significance import read_tests, significance
from xlmr_flax.config import Config, ConfigError
from xlmr_flax.experiment.plan.arms import dev_metrics
from xlmr_flax.experiment.plan.reads import read_tasks, reads
from xlmr_flax.experiment.plan.runs import evaluation_languages, make_plan
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.studies import logic as logic_study
from xlmr_flax.experiment.studies import phang2020 as paper
from xlmr_flax.experiment.studies import presets
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.models import embedded
from xlmr_flax.report import RowsError, make_study, read_rows, write_effects, write_report, write_tables
from xlmr_flax.report.by_language import MANY_LANGUAGES
from xlmr_flax.report.rows import distinct
from xlmr_flax.report.study import score_rows
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import Task, TaskError
from xlmr_flax.util import strict_json
from xlmr_flax.util.console import warn
from xlmr_flax.util.errors import quote
from xlmr_flax.util.files import write_atomically

_TOKENS = 'tokens_per_word.json'
_MOST_TOKENS = 10**6  # a word has fewer tokens
_WORLD_NOTE = (
    'world_* tasks are the embedded world: a small grammar with sentences in several languages, written for this '
    'project. They show that the pipeline works, not how good an encoder is.'
)


def write_run_report(runner: Runner, versions: Mapping[str, str]) -> str:
    """Writes WORKDIR/report/ after a run; returns text with the paths."""
    rows, path = read_rows(runner.workdir.results_path), runner.workdir.path / _TOKENS
    if shows_tokens(rows):
        tokens = fertility(runner.plan, runner.setting.tokenizer)
        write_atomically(path, json.dumps(tokens, indent=1, sort_keys=True) + '\n')
    return _write(runner.workdir, runner.config, runner.command, versions)


def shows_tokens(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a report of these result rows has tokens per word: effects by language, or a table of many languages."""
    rows = list(rows)
    languages = Counter(target for target, _ in {(row['target'], row['language']) for row in rows})
    has_effects = len({row['seed'] for row in rows}) > 1 and len({row['intermediate'] for row in rows}) > 1
    return has_effects or any(count > MANY_LANGUAGES for count in languages.values())


def write_results_report(folder: Path) -> str:
    """Writes the tables and effects of a folder of results into that folder; returns lines with the paths.

    The folder needs results.jsonl. It may also have these files of a workdir: config.json (for the order, the plan and
    notes), tokens_per_word.json, example_noise.json (for the intervals of effects) and significance.json (tests over
    examples). No data or weights are needed. Raises RowsError and ConfigError.
    """
    rows, config, command = _rows(folder / 'results.jsonl'), None, ''
    if (folder / 'config.json').is_file():
        config, command = _saved_config(folder)
    title, remarks = (config.title or config.name, notes(config)) if config else ('', [])
    study = make_study(rows, planned(config) if config else {}, read_tests(folder / 'significance.json'))
    paths = write_tables(folder, study, title, remarks, command)
    encoder = config.encoder.source if config else ''
    paths += write_effects(folder, study_effects(folder, rows, encoder), title, remarks, command)
    return '\n'.join(f'written: {path}' for path in paths if path.suffix == '.md')


def _rows(path: Path) -> list[dict[str, Any]]:
    """Reads result rows. Raises RowsError, which names the file, also if the rows of a target give no score."""
    rows = read_rows(path)
    try:
        for target in distinct(rows, 'target'):
            score_rows(rows, target)
    except RowsError as error:
        raise RowsError(f'{path}: {error}') from None
    return rows


def study_effects(
    folder: Path, rows: Sequence[Mapping[str, Any]], encoder: str = ''
) -> dict[str, list[dict[str, Any]]]:
    """Computes `effects` of result rows, with the tokens per word and the noise of test examples that are saved in a
    folder. If the rows have arms of the logic study, its contrasts are included.

    encoder: the one whose tokens per word are saved in the folder; '' = that of the rows, if all have the same. Rows of
    other encoders, which cut words in another way, are without tokens per word.
    """
    encoders = {row['encoder'] for row in rows}
    encoder = encoder or (encoders.pop() if len(encoders) == 1 else '')
    tokens = {encoder: _saved_tokens(folder / _TOKENS)}
    return effects(rows, _contrasts(rows), tokens, example_noise.read_noise(folder / example_noise.FILE))


def _contrasts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return logic_study.contrasts(row['intermediate'] for row in rows)


def _saved_tokens(path: Path) -> dict[str, dict[str, float]]:
    """Reads tokens_per_word.json: target -> language -> value; {} without the file. Warns of a damaged file and of each
    damaged entry, and leaves it out.
    """
    try:
        saved = strict_json.read_object(path)
    except FileNotFoundError:
        return {}
    except strict_json.JsonError as error:
        warn(f'{error}; the report is without tokens per word')
        return {}
    tokens: dict[str, dict[str, float]] = {}
    for target, by_language in saved.items():
        if not isinstance(by_language, dict):
            warn(f'{path}: {quote(target)}: left out: an object is expected, not {quote(by_language)}')
            continue
        for code, value in by_language.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _MOST_TOKENS:
                tokens.setdefault(target, {})[code] = value
            else:
                warn(f'{path}: {quote(target)}, {quote(code)}: left out: {quote(value)} is not a number of tokens')
    return tokens


def write_report_again(path: Path, versions: Mapping[str, str]) -> str:
    """Writes WORKDIR/report/ from the files of the workdir, with tests over examples if the data is there. Raises
    ConfigError if `path` is not a workdir.
    """
    config, command = _saved_config(path)  # before Workdir(path), which would create the folder
    return _write(Workdir(path), config, command, versions)


def _saved_config(path: Path) -> tuple[Config, str]:
    """Reads the config and the command of a workdir. Raises ConfigError, which names the file."""
    file = path / 'config.json'
    config, command = read_workdir(path)
    if not isinstance(command, str):
        raise ConfigError(f"{file}: field 'command' is {quote(command)}")
    try:
        planned(config)  # looks up languages
        used_tasks(config)
    except TaskError as e:
        raise ConfigError(f'{file}: {e}') from None
    return config, command


def _write(workdir: Workdir, config: Config, command: str, versions: Mapping[str, str]) -> str:
    rows = _rows(workdir.results_path)
    report = workdir.path / 'report'
    points = curves(workdir.metrics(), config)
    tested = significance(workdir, config, rows, report / 'significance.json')
    study = make_study(rows, planned(config), tested, points)
    _save_noise(workdir, config, rows)
    title, remarks = config.title or config.name, notes(config) + failures(workdir, config)
    tokens = {config.encoder.source: _saved_tokens(workdir.path / _TOKENS)}
    noise = example_noise.read_noise(workdir.path / example_noise.FILE)
    effect_records = effects(rows, _contrasts(rows), tokens, noise)
    tables = write_tables(report, study, title, remarks, command) + write_effects(
        report, effect_records, title, remarks, command
    )
    info = {
        'title': title,
        'command': command,
        'config': strict_json.read_object(workdir.path / 'config.json')['config'],
        'versions': dict(versions),
        'sources': workdir.sources(),
        'seconds': workdir.seconds(),
        'date': time.strftime('%Y-%m-%d'),
        'notes': remarks,
        'data_notes': data_notes(config),
        'licences': licences(config),
        'effects': effect_records,
        'tokens_per_word': tokens,
    }
    page = write_report(report / 'index.html', study, points, info)
    return f'report: {page}\ntables: {", ".join(str(t) for t in tables if t.suffix == ".md")}'


def _save_noise(workdir: Workdir, config: Config, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds the noise of test examples in new comparisons to example_noise.json."""
    if not (workdir.path / 'predictions').is_dir():
        return
    path = workdir.path / example_noise.FILE
    known = example_noise.read_noise(path)
    found = known | example_noise.example_noise(workdir, config, rows, _contrasts(rows), known)
    if found != known:
        write_atomically(path, json.dumps(example_noise.to_json(found), indent=1) + '\n')


def failures(workdir: Workdir, config: Config) -> list[str]:
    """Returns a line for each failed run of this plan."""
    lines = []
    for path in sorted((workdir.path / 'failed').glob('*.json')):
        try:
            saved = strict_json.read_object(path)
            if str(saved['run']).split('--')[0] in config.intermediate:
                lines.append(f'Failed run {saved["run"]}: {saved["type"]}: {saved["error"]}')
        except (OSError, strict_json.JsonError, KeyError):
            continue
    return lines


def planned(config: Config) -> dict[str, Any]:
    """Returns what the config plans, for comparison with the results: arms, targets, seeds, languages, and which
    checkpoints are kept.
    """
    return {
        'intermediate': list(config.intermediate),
        'targets': list(config.targets),
        'seeds': list(config.seeds),
        'languages': {name: list(evaluation_languages(config, name)) for name in config.targets},
        'keep': {name: config.recipe_for(name).keep for name in config.targets},
    }


def used_tasks(config: Config) -> list[Task]:
    """Returns all tasks whose data a config reads, without duplicates."""
    return read_tasks(reads(make_plan(config)))


def notes(config: Config) -> list[str]:
    """Returns the notes that a reader of the scores needs."""
    lines = [embedded.NOTE] if config.encoder.source == 'embedded' else []
    tasks = used_tasks(config)
    if any(task.name.startswith('world_') for task in tasks):
        lines.append(_WORLD_NOTE)
    lines += presets.remarks(config)
    if config.name.startswith('paper_'):
        lines += [f"this package's choice: {choice}" for choice in paper.CHOICES]
    if config.name == logic_study.NAME:
        lines += logic_study.notes(config)
    return lines


def data_notes(config: Config) -> list[str]:
    """Returns notes on the data of each task, for the end of the page."""
    return [f'{t.name}: {t.note}' for t in used_tasks(config) if t.note and not t.name.startswith('world_')]


def licences(config: Config) -> list[str]:
    """Returns the data licences of the tasks, one line per task."""
    return [f'{task.name}: {task.licence}' for task in used_tasks(config) if task.licence]


def curves(records: Iterable[Mapping[str, Any]], config: Config) -> list[dict[str, Any]]:
    """Converts records of metrics.jsonl to the curve points of the report: training loss and dev metric by step."""
    points = []
    for record in records:
        point = {k: record.get(k) for k in ('run', 'intermediate', 'target', 'seed', 'step')}
        if 'loss' in record:
            points.append(point | {'loss': record['loss']})
        if 'dev_metric' in record:
            recipe = config.recipe_for(str(record.get('target') or record.get('intermediate') or ''))
            metric = _dev_metric(str(record.get('task', '')), recipe.dev_score)
            points.append(point | {'metric': f'dev {metric}', 'value': record['dev_metric']})
    return points


def _dev_metric(task: str, rule: str) -> str:
    """Returns the name of the dev score: the task's metrics joined by 'and', or 'score' for a mean over tasks."""
    return ' and '.join(dev_metrics(get_task(task), rule)) if task in all_tasks() else 'score'
