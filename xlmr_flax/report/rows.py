"""Reads, checks and selects result rows, and computes the averages that tables and figures show.

A result row is a dict with the fields of `FIELDS`, `value` being a percentage, and optionally those of `OPTIONAL`:

  run, command, preset     the source of the value
  source, tfds             the origin of the scored rows; the builder of those from TFDS
  left_out                 number of test rows that could not be read
  class_order              how the order of the classes was given
  english                  whether `language` is the training language (without it: whether it is 'en' or 'eng')
  chance                   the score of guessing, a percentage
  stand_in, note           what the data stands in for; a caveat that is printed wherever the score is shown
  collapsed                trainings of the scored model that ended in one class, '' = none; no field: not tested
  qa_decoding              how answers were decoded, 'offsets' or 'reference' (config.Evaluation)
  language_name, script, family, resource_level ('high', 'mid', 'low')
  cc100_gib                size of the language in CC-100, XLM-R's pretraining data
  seen                     whether the encoder has read the language in pretraining; no field: not known

This module uses the rows alone: no config, no task registry.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from xlmr_flax.util import strict_json
from xlmr_flax.util.errors import UserError, quote

NONE = 'none'  # equals config.NONE; a report imports no config
FIELDS: dict[str, type | tuple[type, ...]] = {
    'encoder': str,
    'intermediate': str,
    'target': str,
    'language': str,
    'split': str,
    'metric': str,
    'value': (int, float),
    'n': int,
    'seed': int,
    'step': int,
}
# Optional fields; null stands for a missing one. Other fields are kept and not read.
OPTIONAL: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(('run', 'command', 'preset', 'source', 'tfds', 'note', 'stand_in', 'qa_decoding'), str),
    **dict.fromkeys(('language_name', 'script', 'family', 'resource_level', 'class_order', 'collapsed'), str),
    **dict.fromkeys(('english', 'seen'), bool),
    'chance': (int, float),
    'cc100_gib': (int, float),
    'left_out': int,
}
_NOT_NEGATIVE = ('chance', 'cc100_gib', 'left_out')
_CONTROL = re.compile('[\x00-\x1f\x7f]')  # not allowed in names; html_table.Notes uses control characters as marks
_LARGEST = 10**12  # of a value, a chance or a size: sums and squares of larger ones could overflow
KEY = ('encoder', 'intermediate', 'target', 'language', 'split', 'metric', 'seed')
RESOURCE_LEVELS = ('high', 'mid', 'low')

Row = Mapping[str, Any]
# {language: {seed: value}} of one column of a table (one encoder, intermediate, target, split and metric)
Values = dict[str, dict[int, float]]


class RowsError(UserError, ValueError):
    """Result rows cannot be read, or there are none for a request. The message names file and line, if known."""


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over seeds. sd: the sample standard deviation over them, None for one seed or unequal sets of seeds.

    partial: a language or seed that other scores have is missing, so that the scores cannot be compared.
    mark: signs printed after the number; the notes of its table explain them.
    """

    mean: float
    sd: float | None = None
    seeds: int = 1
    partial: bool = False
    mark: str = ''


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Reads and checks the rows of a jsonl file; of rows with the same KEY it keeps the last, in the first's position.

    Raises RowsError naming file and line; blank lines are allowed.
    """
    rows = []
    for where, row in json_lines(path):
        check_row(row, where)
        rows.append({name: _CONTROL.sub(' ', v) if isinstance(v, str) else v for name, v in row.items()})
    return latest(rows)


def json_lines(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yields ('FILE:LINE', value) of each line of a jsonl file that is not blank. Raises RowsError."""
    with open(path, 'rb') as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f'{path}:{number}'
            try:
                yield where, strict_json.loads(line.decode('utf-8'))
            except strict_json.JsonError as error:
                raise RowsError(f'{where}: not JSON: {error.reason}') from None
            except UnicodeDecodeError as error:
                raise RowsError(f'{where}: not UTF-8 at byte {error.start} of the line') from None


def check_row(row: Any, where: str) -> None:
    """Checks the fields of FIELDS and OPTIONAL.

    Raises RowsError, which names the field, if one is missing or of the wrong type, or if a number is not finite, too
    large for sums, or negative where only a size makes sense.
    """
    if not isinstance(row, dict):
        raise RowsError(f'{where}: a row is a JSON object, not {type(row).__name__}')
    for name, kind in FIELDS.items():
        if name not in row:
            near = difflib.get_close_matches(name, [key for key in row if key not in FIELDS], n=1)
            raise RowsError(f'{where}: field {name!r} is missing' + (f' (there is {near[0]!r})' if near else ''))
        _check_field(row, name, kind, where)
    for name, kind in OPTIONAL.items():
        if row.get(name) is not None:
            _check_field(row, name, kind, where)


def _check_field(row: Row, name: str, kind: type | tuple[type, ...], where: str) -> None:
    value = row[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RowsError(f'{where}: field {name!r} is {quote(value)}, a {type(value).__name__}')
    if name in ('value', *_NOT_NEGATIVE) and not abs(value) <= _LARGEST:  # NaN compares as false
        raise RowsError(f'{where}: field {name!r} is {quote(value)}')
    if name in _NOT_NEGATIVE and value < 0:
        raise RowsError(f'{where}: field {name!r} is {quote(value)}, below 0')


def latest(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Drops rows that a later row with the same KEY replaces; keeps the order in which the keys first appear."""
    by_key: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        by_key[tuple(row[name] for name in KEY)] = dict(row)
    return list(by_key.values())


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose fields equal `wanted`: select(rows, target='xnli', seed=0)."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def distinct(rows: Iterable[Row], field: str) -> list[Any]:
    """The distinct values of a field, in order of first appearance."""
    return list(dict.fromkeys(row[field] for row in rows))


def intermediates(rows: Iterable[Row]) -> list[str]:
    """The intermediate tasks and mixtures: 'none' first, the others in order of first appearance."""
    names = distinct(rows, 'intermediate')
    return [name for name in names if name == NONE] + [name for name in names if name != NONE]


def major_metric(rows: Iterable[Row], target: str) -> str:
    """The metric of a target that comes first in the rows. Raises RowsError for an unknown target."""
    rows = list(rows)
    metrics = distinct(select(rows, target=target), 'metric')
    if not metrics:
        raise RowsError(f'no rows of target {target!r} (there are: {", ".join(distinct(rows, "target")) or "none"})')
    return metrics[0]


def scored(rows: Iterable[Row], target: str, metric: str | None = None, split: str | None = None) -> list[Row]:
    """The rows of one target, metric and split. metric: the major one if None; split: 'test' if there, else the first.

    Raises RowsError when there are none.
    """
    rows = list(rows)
    metric = metric or major_metric(rows, target)
    chosen = select(rows, target=target, metric=metric)
    splits = distinct(chosen, 'split')
    if split is None and splits:
        split = 'test' if 'test' in splits else splits[0]
    chosen = select(chosen, split=split)
    if not chosen:
        raise RowsError(f'no rows of target {target!r} with metric {metric!r} and split {split!r}')
    return list(latest(chosen))


def is_english(row: Row) -> bool:
    """Whether the row's language is the training language, which the zero-shot mean leaves out."""
    flag = row.get('english')
    return row['language'] in ('en', 'eng') if flag is None else bool(flag)


def facts(rows: Iterable[Row], field: str) -> dict[str, Any]:
    """{language: first value of an optional field that is not None or ''}."""
    values: dict[str, Any] = {}
    for row in rows:
        if row.get(field) not in (None, ''):
            values.setdefault(row['language'], row[field])
    return values


def languages(rows: Iterable[Row], zero_shot: bool = False) -> list[str]:
    """The languages in the order of tables: English, then by resource level, CC-100 size (large first) and code.

    zero_shot: without the training language.
    """
    rows = list(rows)
    english = {row['language'] for row in rows if is_english(row)}
    levels, sizes = facts(rows, 'resource_level'), facts(rows, 'cc100_gib')

    def place(code: str) -> tuple:
        level = levels.get(code)
        rank = RESOURCE_LEVELS.index(level) if level in RESOURCE_LEVELS else len(RESOURCE_LEVELS)
        return code not in english, rank, -float(sizes.get(code, -1)), code

    codes = sorted(set(distinct(rows, 'language')), key=place)
    return [code for code in codes if not (zero_shot and code in english)]


def collapsed_runs(rows: Iterable[Row]) -> dict[tuple[str, str, str, int], str]:
    """{(encoder, intermediate, target, seed): how its training collapsed, '' = not} of the runs that were tested."""
    return {
        (row['encoder'], row['intermediate'], row['target'], row['seed']): row['collapsed']
        for row in rows
        if row.get('collapsed') is not None
    }


def language_labels(rows: Sequence[Row], codes: Sequence[str]) -> list[str]:
    """Labels of languages in figures: 'Swahili (sw)'."""
    names = facts(rows, 'language_name')
    return [f'{names[code]} ({code})' if code in names else code for code in codes]


def columns(rows: Iterable[Row]) -> dict[tuple[str, str], Values]:
    """{(encoder, intermediate): values} for rows of one target, metric and split; by encoder, 'none' first."""
    rows = list(rows)
    table: dict[tuple[str, str], Values] = {}
    for encoder in distinct(rows, 'encoder'):
        for name in intermediates(select(rows, encoder=encoder)):
            values = table.setdefault((encoder, name), {})
            for row in select(rows, encoder=encoder, intermediate=name):
                values.setdefault(row['language'], {})[row['seed']] = float(row['value'])
    return table


def over_seeds(by_seed: Mapping[int, float]) -> Score | None:
    """Mean and sample standard deviation over seeds; None without a seed."""
    if not by_seed:
        return None
    numbers = list(by_seed.values())
    return Score(fmean(numbers), stdev(numbers) if len(numbers) > 1 else None, len(numbers))


def seed_means(values: Values, codes: Sequence[str]) -> dict[int, float]:
    """{seed: unweighted mean over the given languages that the seed has}."""
    by_seed: dict[int, list[float]] = {}
    for code in codes:
        for seed, value in values.get(code, {}).items():
            by_seed.setdefault(seed, []).append(value)
    return {seed: fmean(numbers) for seed, numbers in sorted(by_seed.items())}


def language_mean(values: Values, codes: Sequence[str]) -> Score | None:
    """Unweighted mean over languages within a seed, then over seeds.

    If a (language, seed) is missing: the mean over seeds first, then over the languages that have a value; the score is
    partial and has no spread. None without any value.
    """
    if _complete(values, codes):
        return over_seeds(seed_means(values, codes))
    there = [code for code in codes if values.get(code)]
    if not there:
        return None
    seeds = {seed for code in there for seed in values[code]}
    return Score(fmean(fmean(values[code].values()) for code in there), None, len(seeds), partial=True)


def paired(values: Values, base: Values, codes: Sequence[str]) -> tuple[Values, Values]:
    """Returns both without the languages and seeds that one of them lacks. Differences are over what is left."""
    seeds = {code: [seed for seed in values.get(code, {}) if seed in base.get(code, {})] for code in codes}
    ours, theirs = (
        {code: {seed: each[code][seed] for seed in shared} for code, shared in seeds.items() if shared}
        for each in (values, base)
    )
    return ours, theirs


def delta(values: Values, base: Values, codes: Sequence[str]) -> Score | None:
    """Difference `values` - `base` in points, over the seeds that both have: `language_mean` of the differences.

    The score is partial if a language has no seed in both (it is left out), or other ones than the other languages.
    None if no language has one.
    """
    ours, theirs = paired(values, base, codes)
    differences = {code: {seed: x - theirs[code][seed] for seed, x in column.items()} for code, column in ours.items()}
    score = language_mean(differences, list(differences))
    return score and replace(score, partial=score.partial or len(differences) < len(codes))


def _complete(values: Values, codes: Sequence[str]) -> bool:
    seeds = {frozenset(values.get(code, {})) for code in codes}
    return len(seeds) == 1 and frozenset() not in seeds
