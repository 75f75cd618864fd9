"""usage: xlmr-flax prepare --check [--tasks=a,b | --config=FILE] [--data_root=DIR]
       xlmr-flax prepare --config=FILE
       xlmr-flax prepare --tasks=a,b [--encoder=SRC] [--max_length=N]

--check reads every row of every split of the tasks (default: all) in every language. It reports which data exists,
which data is only a stand-in for a dataset, which rows cannot be read, and which test texts are in the training data.
For missing files it prints their expected path, the licence and where to get them. With --config it checks exactly the
data that the config reads, and also reports missing training sets that its arms replace by other rows. The exit code is
0 if all required data exists and is readable, else 1. Training sets in languages other than English, and languages
beyond a benchmark's own, are required only if --languages names them; translated splits only if --splits names them. A
split is `whole` if it has as many rows as the official files, `part (n of N)` if it has fewer or more, and `readable`
if the official number is unknown.

Without --check, it tokenizes the data that a run of the config reads (or whole tasks) into the token cache: XLMR_CACHE,
or ~/.cache/xlmr_flax/tokens. A run also does this itself; doing it earlier needs no accelerator.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from xlmr_flax.config import NONE
from xlmr_flax.config.flag import config_arguments, define_config_flag, define_data_root, load_config

if TYPE_CHECKING:
    from xlmr_flax.data.split import Split


_LISTED = 10  # the most bad rows of a split that are printed without --skip_bad_rows


def define_flags(values: flags.FlagValues) -> None:
    define_config_flag(values)
    define_data_root(values)
    flags.DEFINE_bool('check', False, 'Check the data instead of tokenizing it.', flag_values=values)
    flags.DEFINE_list('tasks', [], 'Task names; default with --check: all.', flag_values=values)
    flags.DEFINE_list('splits', [], 'Only these splits.', flag_values=values)
    flags.DEFINE_list('languages', [], 'Only these languages; default: all of each task.', flag_values=values)
    flags.DEFINE_string('tfds_dir', '', 'Prepared TFDS data, besides DATA_ROOT/tfds.', flag_values=values)
    flags.DEFINE_bool('skip_bad_rows', False, 'List all bad rows without failing because of them.', flag_values=values)
    flags.DEFINE_bool('overlap', True, 'Compare the test texts with the training texts.', flag_values=values)
    flags.DEFINE_string('encoder', 'embedded', 'Encoder source, for its tokenizer (with --tasks).', flag_values=values)
    flags.DEFINE_integer('max_length', 256, 'Largest number of tokens of a row (with --tasks).', flag_values=values)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.data.readers.paths import MissingFile
    from xlmr_flax.data.readers.text import DataError
    from xlmr_flax.data.readers.tfds import DIRECTORY_VARIABLE

    if values.config is not None and values.tasks:
        raise UsageError('--config and --tasks: one of them')
    if values.config is not None and (values.splits or values.languages):
        raise UsageError('--splits and --languages do not go with --config, which says what is read')
    if values.config is None and not values.tasks and not values.check:
        raise UsageError('--config=FILE or --tasks=a,b is missing (or --check, for all tasks)')
    if values.tfds_dir:
        os.environ[DIRECTORY_VARIABLE] = values.tfds_dir
    try:
        return _check(values) if values.check else _build(values)
    except MissingFile as e:
        raise DataError(f'{e} (to fetch it: {_download_all(values)})') from None


def _download_all(values: flags.FlagValues) -> str:
    """Returns the command that downloads everything that this command line is about."""
    if values.config is not None:
        return shlex.join(['xlmr-flax', 'download', *config_arguments(sys.argv)])
    names = {'tasks': values.tasks or ['all'], 'splits': values.splits, 'languages': values.languages}
    chosen = [f'--{flag}={",".join(given)}' for flag, given in names.items() if given]
    root = [f'--data_root={values.data_root}'] if values.data_root else []
    return shlex.join(['xlmr-flax', 'download', *chosen, *root])


def _build(values: flags.FlagValues) -> int:
    from xlmr_flax.data.cache import cache_dir
    from xlmr_flax.data.tokenize import Tokenizer
    from xlmr_flax.experiment.data_check.inventory import wanted
    from xlmr_flax.experiment.data_check.tokenise import build, encoded_reads
    from xlmr_flax.experiment.plan.reads import TEST, Read
    from xlmr_flax.models.source import open_source
    from xlmr_flax.util.console import Line

    if values.config is not None:
        config = load_config(values)
        encoder, reads, skip = config.encoder.source, encoded_reads(config), config.skip_bad_rows
    else:
        encoder, skip = values.encoder, values.skip_bad_rows
        wanted_splits = wanted(values.tasks, _root(values.data_root, values.tasks), values.splits, values.languages)
        # Translated splits can be much larger than all others: include only those that --splits names.
        own = {split: must for split, must in wanted_splits.items() if must or split.name not in split.task.translated}
        here = [split for split, must in own.items() if must or split.is_there()]
        reads = [Read(split, TEST, values.max_length) for split in here]
    source = open_source(encoder)
    tokenizer, size, states = Tokenizer(source.tokenizer, source.config.vocab_size), 0, []
    line = Line('prepare (MB of data files)')

    def show(done: int, total: int, rows: int) -> None:
        line(done // 1_000_000, -(-total // 1_000_000), rows)

    for built in build(reads, tokenizer, source.config.max_length, [] if skip else None, show):
        entry = built.entry
        size += sum(file.stat().st_size for file in entry.path.iterdir()) if entry.path else 0
        states.append(entry.state)
        print(f'{built}: {len(entry.data.ids)} examples, {built.tokens} tokens, {entry.state}', flush=True)
    kept = sum(state != 'not kept' for state in states)
    place = cache_dir()
    print(f'{kept} of {len(states)} in {place}, {size / 2**20:.1f} MiB' if place else 'XLMR_CACHE=off: nothing is kept')
    return 0


def _check(values: flags.FlagValues) -> int:
    from xlmr_flax.data.readers.paths import DATA_ROOT_VARIABLE
    from xlmr_flax.experiment.data_check.gaps import find_gaps
    from xlmr_flax.experiment.data_check.inventory import check, find_overlaps

    config = load_config(values) if values.config is not None else None
    names = _names(config) if config else values.tasks
    root = _root(config.data_root if config else values.data_root, names)
    asked, trained = _asked(values, config, root)
    gaps = find_gaps(config) if config else []
    states = [check(split, required) for split, required in asked.items()]
    print(f'data root: {root} (--data_root or {DATA_ROOT_VARIABLE})\n')
    print(summary(states, gaps))
    for task in dict.fromkeys([*(split.task.name for split in asked), *(gap.split.task.name for gap in gaps)]):
        lines = [text for gap in gaps if gap.split.task.name == task for text in _of_gap(gap)]
        if those := [state for state in states if state.split.task.name == task]:
            lines += _details(those, root, values.skip_bad_rows)
        if lines:
            print(f'\n{task}', *lines, sep='\n  ')
    if values.overlap:
        for trainer, name, split, report in find_overlaps(states, trained):
            print(f'\noverlap: {name} {split} with the training data of {trainer}\n  {report}')
    bad = sum(len(state.bad) for state in states)
    lacking = [state for state in states if not state.is_fine(values.skip_bad_rows)]
    counted = [state for state in states if state.required or state.state != 'missing']
    skipped = f'; {bad} bad rows {"left out" if values.skip_bad_rows else ""}'.rstrip() if bad else ''
    fine = [state for state in counted if state not in lacking]
    print(f'\n{len(fine)} of {len(counted)} splits are there and readable{_of_them(fine, gaps)}{skipped}')
    if left_out := [gap for gap in gaps if not gap.instead]:
        print(f'missing, and left out by a run: {", ".join(gap.name for gap in left_out)}')
    if lacking:
        print(f'missing or unreadable: {", ".join(dict.fromkeys(state.split.task.name for state in lacking))}')
    if command := _download(states, gaps, config is not None, root):
        print(f'to fetch what is missing: {command}')
    return 1 if lacking else 0


def _download(states: Sequence[Any], gaps: Sequence[Any], has_config: bool, root: Path) -> str:
    """Returns the download command for missing and incomplete data; '' if there is none."""
    short = [state.split for state in states if state.required and state.state == 'missing']
    short += [state.split for state in states if state.wholeness in ('part', 'stand-in')]
    if not short and not any(gap.missing for gap in gaps):
        return ''
    if has_config:
        return shlex.join(['xlmr-flax', 'download', *config_arguments(sys.argv)])
    names = ','.join(dict.fromkeys(split.task.name for split in short))
    splits = ','.join(dict.fromkeys(split.name for split in short))
    replace = ['--replace'] if any(state.wholeness == 'part' for state in states) else []
    return shlex.join(
        ['xlmr-flax', 'download', f'--tasks={names}', f'--splits={splits}', *replace, f'--data_root={root}']
    )


def _names(config: Any) -> list[str]:
    """Returns the names of all tasks of a plan."""
    from xlmr_flax.analysis.study_report import used_tasks

    return [task.name for task in used_tasks(config)]


def _asked(values: flags.FlagValues, config: Any, root: Path) -> tuple[dict[Split, bool], list[str]]:
    """Returns ({requested split: whether it is required}, intermediate tasks)."""
    from xlmr_flax.experiment.data_check.inventory import wanted
    from xlmr_flax.experiment.plan.arms import arm_tasks
    from xlmr_flax.experiment.plan.reads import UNUSED, reads
    from xlmr_flax.experiment.plan.runs import find_data, make_plan
    from xlmr_flax.tasks import all_tasks

    if config is not None:
        asked: dict[Split, bool] = {}
        for read in (read for read in reads(find_data(make_plan(config))) if read.purpose != UNUSED):
            asked[read.split] = asked.get(read.split, False) or read.is_taken()
        return asked, [t for arm in config.intermediate for t in arm_tasks(config, arm)]
    names = values.tasks or [name for name in all_tasks() if not name.startswith('world_')]
    trained = [name for name in values.tasks if 'train' in _task(name).splits]
    return wanted(names, root, values.splits, values.languages), trained


def _of_them(states: Sequence[Any], gaps: Sequence[Any]) -> str:
    """Returns text on how many of these splits replace missing training rows or are stand-ins."""
    used = {dataclasses.replace(gap.split, name=gap.instead) for gap in gaps if not gap.is_chosen}
    instead = sum(state.split in used for state in states)
    stand_ins = sum(bool(state.stand_in) for state in states)
    parts = [f', {instead} of them in place of training rows that are missing'] if instead else []
    kind = 'stand-ins for datasets' if stand_ins > 1 else 'a stand-in for a dataset'
    return ''.join([*parts, *([f', {stand_ins} of them {kind}'] if stand_ins else [])])


def _of_gap(gap: Any) -> list[str]:
    """Returns lines on missing training rows: who would train on them, their expected paths and their licence."""
    from xlmr_flax.experiment.data_check.inventory import MISSING, State

    lines = [str(gap)]
    if gap.missing:
        task = gap.split.task
        state = State(gap.split, MISSING, missing=gap.missing)
        lines += [f'put there: {text}' for text in _places([state])]
        lines.append(f'licence: {task.licence or "not stated"}. Where to get it: {task.source or "not stated"}')
    return lines


def summary(states: Sequence[Any], gaps: Sequence[Any] = ()) -> str:
    """Formats a table with one row per task and split. Missing training rows come before the rows that replace them."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for state in states:
        groups.setdefault((state.split.task.name, state.split.name), []).append(state)
    absent: dict[tuple[str, str], list[Any]] = {}
    for gap in gaps:
        if not gap.is_chosen:
            absent.setdefault((gap.split.task.name, gap.instead), []).append(gap)
    rows = [('task', 'split', 'languages', 'rows', 'state', 'source')]
    for key, those in groups.items():
        wanted = absent.pop(key, [])
        rows += [_gap_row(wanted)] if wanted else []
        rows.append((*key, *_cells(those, f'in place of {wanted[0].split.name}' if wanted else '')))
    rows += [_gap_row(those) for those in absent.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return '\n'.join([lines[0], '  '.join('-' * width for width in widths), *lines[1:]])


def _cells(states: Sequence[Any], use: str) -> tuple[str, str, str, str]:
    """Returns the cells (languages, rows, state, source) of one split. use: an additional use of its rows, shown in
    `state`; '' = none."""
    here = [state for state in states if state.state != 'missing']
    asked = sum(state.required for state in states)
    more = len(here) - sum(state.required for state in here)
    count = f'{len(here) - more}/{asked}' + (f' +{more}' if more else '')
    names = list(dict.fromkeys(s.state for s in states if s.state != 'missing' or s.required))
    names = [name for name in names if name != 'readable']
    names += ['stand-in'] if any(s.stand_in for s in here) else []
    if part := [s.official for s in here if s.wholeness == 'part']:
        names.append(f'part ({sum(n for n, _ in part)} of {sum(n for _, n in part)})')
    elif here and not names:
        names.append('whole' if all(s.wholeness == 'whole' for s in here) else 'readable')
    names += [use] if use and here else []
    state = ', '.join(names) or 'none'
    sources = ', '.join(dict.fromkeys(_short(state.source) for state in here))
    return count, str(sum(s.rows for s in here)), state, sources


def _gap_row(gaps: Sequence[Any]) -> tuple[str, str, str, str, str, str]:
    """Returns the table row for the missing training rows of one task and split, with one gap per language."""
    missing = sum(bool(gap.missing) for gap in gaps)
    return gaps[0].split.task.name, gaps[0].split.name, f'0/{missing}', '0', 'missing' if missing else 'none', ''


def _short(source: str) -> str:
    """Shortens the source of one language: 'TFDS paws_x_wiki/de' -> 'TFDS paws_x_wiki'."""
    return source.split('/')[0] if source.startswith('TFDS') else source


def _details(states: Sequence[Any], root: Path, skip_bad_rows: bool) -> list[str]:
    """Returns the lines of the report on one task: missing and unreadable files, bad rows, warnings."""
    from xlmr_flax.experiment.data_check.overlap import known_warnings

    task, lines = states[0].split.task, []
    if missing := [state for state in states if state.state == 'missing' and state.required]:
        lines += [f'missing: {text}' for text in _places(missing)]
        lines += list(dict.fromkeys(state.error for state in missing if state.error))
        lines.append(f'licence: {task.licence or "not stated"}. Where to get it: {task.source or "not stated"}')
    for state in states:
        where = f'{state.split.name} {state.split.language}'
        if state.state == 'unreadable':
            lines.append(f'unreadable, {where}: {state.error}')
        if state.bad:
            lines.append(f'{len(state.bad)} bad rows, {where}:')
            shown = state.bad if skip_bad_rows else state.bad[:_LISTED]
            lines += [f'  {row}' for row in shown]
            if len(shown) < len(state.bad):
                lines.append(f'  ... and {len(state.bad) - len(shown)} more (--skip_bad_rows lists all)')
    if bare := [f'{s.split.name} {s.split.language}' for s in states if not s.labelled]:
        lines.append(f'no labels, so that predictions are written and not scored: {", ".join(bare)}')
    warnings = (
        text.removeprefix(f'{task.name}: ').removeprefix(f'{task.name}, ') for text in known_warnings(task, root)
    )
    return [*lines, *(f'note: {text}' if text == task.note else text for text in warnings)]


def _places(states: Sequence[Any]) -> list[str]:
    """Lists missing paths; paths that differ only in the language are one line, followed by the language codes."""
    from xlmr_flax.data.readers.tfds import described

    templates: dict[str, list[str]] = {}
    others: dict[str, str] = {}
    for state in states:
        tables = state.split.tables()
        known = [name for table in tables for name in (table.path, table.label_file) if '{language}' in name]
        code = state.split.task.local_code(state.split.language)
        for path in map(str, state.missing):
            filled = {name.replace('{language}', code): name for name in known}
            end = next((name for name in filled if path.endswith(f'/{name}')), '')
            text = path.removesuffix(end) + filled[end] if end else path
            templates.setdefault(text, []).append(code)
            name = next((name for table in tables if path.endswith(f'/{(name := table.path)}')), filled.get(end, ''))
            there = [table for table in tables if table.path == name and table.path]
            paths = [each.path for table in there for each in table.alternatives if not each.stand_in]
            tfds = f'TFDS {described(name)}, prepared as ArrayRecord' if described(name) else ''
            others[text] = ' or '.join(filter(None, [*paths, tfds]))
    lines = []
    for text, codes in templates.items():
        several = f'{text} for {" ".join(codes)}' if len(codes) > 1 and '{language}' in text else ''
        line = (several or text) + (f' (or {others[text]})' if others[text] else '')
        lines.append(line if several else line.replace('{language}', codes[0]))
    return lines


def _task(name: str) -> Any:
    from xlmr_flax.tasks import get_task

    return get_task(name)


def _root(flag: str, names: Sequence[str]) -> Path:
    """Returns the data root, or an empty path if the tasks need no files (the embedded world)."""
    from xlmr_flax.data.readers.paths import resolve_data_root
    from xlmr_flax.data.sources import needs_data_root

    tasks = [_task(name) for name in names if name != NONE]
    if tasks and not any(needs_data_root(task, split) for task in tasks for split in task.splits):
        return Path()
    return resolve_data_root(flag or None)
