"""Compares a workdir with another system's folder of predictions (`xlmr-flax report --against=DIR`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_flax.analysis.paired import Pairing, pair_systems
from xlmr_flax.config import Config, ConfigError, named, parse_saved
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.experiment.plan.arms import task_of
from xlmr_flax.kinds.gold import NoExampleScores, NoGold
from xlmr_flax.report.table import Table
from xlmr_flax.util import strict_json
from xlmr_flax.util.errors import quote
from xlmr_flax.util.files import write_atomically


def read_workdir(path: Path) -> tuple[Config, object]:
    """Reads the config and the saved command of a workdir. Raises ConfigError if the folder is not a workdir."""
    file = path / 'config.json'
    try:
        saved = strict_json.read_object(file)
    except (OSError, strict_json.JsonError) as e:
        raise ConfigError(f'{file}: no workdir of xlmr-flax run ({e})') from None
    raw = saved.get('config')
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: field 'config' is {quote(raw)}")
    with named(file):
        return parse_saved(raw), saved.get('command')


def runs_of(workdir: Path, config: Config, arm: str) -> list[Path]:
    """Returns the existing prediction folders of an arm, one per seed."""
    roots = [workdir / 'predictions' / f'{arm}-seed{seed}' for seed in config.seeds]
    return [root for root in roots if root.is_dir()]


def against(workdir: Path, foreign: Path, *, allow_missing: bool = False) -> str:
    """Compares every arm of a workdir with a folder in XTREME's layout, on the targets that the folder has. Writes
    WORKDIR/report/against-NAME.md and .json and returns the Markdown.

    allow_missing: skip a language if a file is missing. Raises ConfigError if `workdir` is not a workdir. Raises
    DataError if the folder has none of the targets, if a file is missing, and if a file does not match the rows that
    the workdir scored.
    """
    config, _ = read_workdir(workdir)
    if not foreign.is_dir():
        raise DataError(f'{foreign}: no such folder of predictions')
    folders = {target: task_of(config, target).prediction_folder for target in config.targets}
    targets = [target for target, folder in folders.items() if (foreign / folder).is_dir()]
    if not targets:
        there = ', '.join(sorted(path.name for path in foreign.iterdir() if path.is_dir())) or 'none'
        raise DataError(
            f'{foreign}: no folder of a target of {workdir} (looked for {", ".join(folders.values())}; there: {there})'
        )
    arms = {arm: roots for arm in config.intermediate if (roots := runs_of(workdir, config, arm))}
    if not arms:
        raise DataError(f'{workdir}: no predictions; the run has not been evaluated')
    tables: list[Table] = []
    records: list[dict[str, Any]] = []
    notes = [f'{target}: not in {foreign.name}.' for target in config.targets if target not in targets]
    for target in targets:
        for arm, roots in arms.items():
            try:
                pairings = pair_systems(config, target, roots, [foreign], allow_missing=allow_missing)
            except (NoExampleScores, NoGold) as e:
                notes.append(f'{target}: no test: {e}.')
                break
            for pairing in pairings:
                seeds = f', mean of {len(roots)} seeds' if len(roots) > 1 else ''
                metric = pairing.metric.replace('_', ' ')
                title = f'{target}, {metric} ({pairing.split}): {arm}{seeds} against {foreign.name}'
                tables.append(pairing.table('ours', foreign.name[:24] or 'theirs', title))
                records.append(as_json(pairing) | {'intermediate': arm})
    text = '\n'.join([f'# {config.title or config.name} against {foreign.name}', ''])
    text += '\n'.join(['', *(table.markdown() for table in tables), *(f'- {note}' for note in notes), ''])
    name = re.sub(r'[^\w.-]+', '_', foreign.name) or 'predictions'
    for suffix, content in (('md', text), ('json', json.dumps(records, indent=1) + '\n')):
        write_atomically(workdir / 'report' / f'against-{name}.{suffix}', content)
    return text


def as_json(pairing: Pairing) -> dict[str, Any]:
    """Converts a pairing to JSON: scores in percent, differences in percentage points, p as a fraction."""

    def one(each: Any) -> Mapping[str, Any]:
        change = each.change
        numbers = {'difference': change.difference, 'low': change.low, 'high': change.high}
        return {
            'name': each.name, 'n': each.n, 'first': each.first, 'second': each.second,
            **{k: 100 * v for k, v in numbers.items()}, 'p': change.p, 'p_holm': each.p_holm,
        }  # fmt: skip

    return {
        'target': pairing.target, 'metric': pairing.metric, 'split': pairing.split, 'resamples': pairing.resamples,
        'languages': [one(each) for each in pairing.languages], 'means': [one(each) for each in pairing.means],
        'left_out': list(pairing.left_out), 'unlabelled': list(pairing.unlabelled),
        'unpredicted': list(pairing.unpredicted),
    }  # fmt: skip
