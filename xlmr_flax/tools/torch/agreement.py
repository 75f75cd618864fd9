"""usage: python -m xlmr_flax.tools.torch.agreement --ours=W1 --theirs=W2 [--steps=50]

Compares a run of ours (W1, trained with --config.recipe.log_every=1) with the same run by torch_run (W2): the losses
step by step, and the scores and predictions of every language. Prints Markdown. With dropout the random masks make the
losses differ. To compare losses, give both runs --config.encoder.dropout=0.0 --config.encoder.attention_dropout=0.0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_flax.config import ConfigError
from xlmr_flax.report.rows import Row, RowsError, columns, language_mean, languages, read_rows, scored
from xlmr_flax.report.table import Column, Line, Table
from xlmr_flax.util import strict_json
from xlmr_flax.util.errors import quote

# Config fields that do not change a run's numbers (languages and splits are compared in the result rows).
_IGNORED = (
    'encoder.unroll',
    'encoder.remat',
    'encoder.attention',
    'encoder.kept',  # in older workdirs; 'encoder.remat' has replaced it
    'recipe.log_every',
    'recipe.checkpoint_every',
    'recipe.keep_checkpoints',
    'recipe.packing',
    'recipe.eval_examples',
    'evaluation.languages',
    'evaluation.split',
    'evaluation.batch_tokens',
    'evaluation.packing',
)

Where = tuple[str, str, int]  # arm, target, seed


_FACTS = {'run': str, 'intermediate': str, 'target': str, 'seed': int}  # fields of every record in metrics.jsonl


@dataclass(frozen=True)
class Side:
    """A workdir's run of one arm, target and seed. losses: step (from 1) -> training loss. rows: its result rows."""

    workdir: Path
    arm: str
    target: str
    seed: int
    losses: Mapping[int, float]
    rows: tuple[Row, ...]
    config: Mapping[str, Any]


def read_side(workdir: Path, like: Side | None = None, where: Where | None = None) -> Side:
    """Reads the only run of a workdir, or the run with the arm, target and seed of `like` or `where`.

    Raises ConfigError and RowsError if there is no such run, or more than one.
    """
    where = (like.arm, like.target, like.seed) if like else where
    records = read_records(workdir / 'metrics.jsonl', _FACTS)
    keys = {(r['intermediate'], r['target'], r['seed']) for r in records if r.get('target')}
    wanted = where or next(iter(keys), None)
    if wanted not in keys or (where is None and len(keys) > 1):
        known = ', '.join(f'{arm} to {target} (seed {seed})' for arm, target, seed in sorted(keys)) or 'none'
        asked = f'{where[0]} to {where[1]} (seed {where[2]})' if where else 'one run'
        raise ConfigError(f'{workdir}: expected {asked}; trained targets in metrics.jsonl: {known}')
    assert wanted is not None
    arm, target, seed = wanted
    mine = [r for r in records if (r['intermediate'], r['target'], r['seed']) == wanted]
    if len({r['run'] for r in mine}) > 1:
        raise ConfigError(f'{workdir}: holds {arm} to {target} (seed {seed}) with several recipes; use a folder each')
    if not (workdir / 'results.jsonl').is_file():
        raise RowsError(f'{workdir}: no results.jsonl; the run has not been evaluated')
    rows = [r for r in read_rows(workdir / 'results.jsonl') if (r['intermediate'], r['target'], r['seed']) == wanted]
    losses = {r['step']: r['loss'] for r in mine if isinstance(r.get('loss'), float) and isinstance(r.get('step'), int)}
    return Side(workdir, arm, target, seed, losses, tuple(scored(rows, target)), _config(workdir / 'config.json'))


def read_records(path: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """Reads the JSON objects of a jsonl file and checks that they have `fields` of these types; skips blank lines.

    Raises ConfigError naming file and line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise ConfigError(f'{path} is missing: no workdir of a run') from None
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = strict_json.loads(line.decode('utf-8'))
        except ValueError as e:
            raise ConfigError(f'{path}:{number}: not JSON in UTF-8 ({e})') from None
        if not isinstance(record, dict):
            raise ConfigError(f'{path}:{number}: a JSON object is expected, not {type(record).__name__}')
        for name, kind in fields.items():
            if not isinstance(record.get(name), kind):
                raise ConfigError(f'{path}:{number}: field {name!r} is {quote(record.get(name))}')
        records.append(record)
    return records


def _config(path: Path) -> dict[str, Any]:
    """Reads the configuration in a workdir's config.json; {} without the file. Raises ConfigError."""
    if not path.is_file():
        return {}
    try:
        config = strict_json.read_object(path).get('config')
    except strict_json.JsonError as e:
        raise ConfigError(str(e)) from None
    if not isinstance(config, dict):
        raise ConfigError(f'{path}: holds no configuration')
    return config


def loss_differences(ours: Side, theirs: Side) -> dict[int, float]:
    """Absolute difference of the losses at each step; every step from 1 on must be logged.

    Raises ConfigError if a side logged means over several steps.
    """
    for side in (ours, theirs):
        if sorted(side.losses) != list(range(1, len(side.losses) + 1)):
            raise ConfigError(
                f'{side.workdir}: metrics.jsonl does not have the loss of every step; run it again with '
                f'--config.recipe.log_every=1'
            )
    both = sorted(ours.losses.keys() & theirs.losses.keys())
    return {step: abs(ours.losses[step] - theirs.losses[step]) for step in both}


def config_differences(ours: Side, theirs: Side) -> list[str]:
    """Differences of the configs, 'field: ours, theirs', without the fields that do not change numbers."""
    a, b = (_flat(_deciding(side)) for side in (ours, theirs))
    changed = [field for field in sorted(a.keys() | b.keys()) if a.get(field) != b.get(field)]
    return [f'{field}: {a.get(field)!r}, {b.get(field)!r}' for field in changed]


def _deciding(side: Side) -> dict[str, Any]:
    """The parts of a config that this run depends on. The workdir may also have other arms, targets and recipes."""
    parts = {name: side.config.get(name) for name in ('encoder', 'recipe', 'evaluation', 'seeds')}
    own = side.config.get('recipes', {}).get(side.target)
    return {**parts, 'recipe': own} if own else parts


def _flat(value: Any, path: str = '') -> dict[str, Any]:
    if path in _IGNORED:
        return {}
    if not isinstance(value, Mapping):
        return {path: value}
    prefix = f'{path}.' if path else ''
    return {k: v for name, inner in value.items() for k, v in _flat(inner, f'{prefix}{name}').items()}


def equal_predictions(ours: Side, theirs: Side) -> tuple[int, int]:
    """(number of equal lines, number of lines) in the prediction files that both sides have for this target."""
    roots = [side.workdir / 'predictions' / f'{side.arm}-seed{side.seed}' for side in (ours, theirs)]
    equal = total = 0
    for path in sorted(roots[1].rglob('*.tsv')):
        other = roots[0] / path.relative_to(roots[1])
        if other.is_file():
            pairs = list(zip(path.read_text().splitlines(), other.read_text().splitlines(), strict=False))
            equal, total = equal + sum(a == b for a, b in pairs), total + len(pairs)
    return equal, total


def agreement(ours: Side, theirs: Side, steps: int = 50) -> Table:
    """The comparison as a table: a row for each language and the means; the losses are in its notes."""
    codes = languages([*ours.rows, *theirs.rows])
    counts = {row['language']: row['n'] for row in theirs.rows}
    evaluated = [{(row['language'], row['split'], row['n']) for row in side.rows} for side in (ours, theirs)]
    if evaluated[0] != evaluated[1]:
        raise ConfigError(f'{ours.workdir} and {theirs.workdir}: not the same languages and split, or not as many rows')
    (a,), (b,) = columns(ours.rows).values(), columns(theirs.rows).values()
    foreign = languages(theirs.rows, zero_shot=True)
    lines = [Line((code, counts[code], x := a[code][ours.seed], y := b[code][ours.seed], x - y)) for code in codes]
    for name, group in ((f'mean of {len(codes)}', codes), (f'zero-shot mean of {len(foreign)}', foreign)):
        means = language_mean(a, group), language_mean(b, group)
        if means[0] is not None and means[1] is not None:
            lines.append(Line((name, None, means[0], means[1], means[0].mean - means[1].mean), mean=True))
    head = (
        Column('language'),
        Column('examples', 'count'),
        Column('JAX', 'score', decimals=2),
        Column('PyTorch', 'score', decimals=2),
        Column('difference', 'delta', decimals=2),
    )
    row = theirs.rows[0]
    title = f'{theirs.target}, {row["metric"]} ({row["split"]}), seed {theirs.seed}: the same run in JAX and in PyTorch'
    return Table(title, head, tuple(lines), tuple(_notes(ours, theirs, steps)))


def _notes(ours: Side, theirs: Side, steps: int) -> list[str]:
    differences = loss_differences(ours, theirs)
    notes = []
    for last in sorted({min(steps, len(differences)), len(differences)} - {0}):
        first = {step: value for step, value in differences.items() if step <= last}
        worst = max(first, key=lambda step: first[step])
        notes.append(
            f'Training loss of steps 1 to {last}: largest difference {first[worst]:.1e}, at step {worst} '
            f'({ours.losses[worst]:.5f}, {theirs.losses[worst]:.5f}).'
        )
    equal, total = equal_predictions(ours, theirs)
    if total:
        notes.append(f'{equal:,} of {total:,} predictions are the same ({100 * equal / total:.2f} %).')
    changed = config_differences(ours, theirs)
    if changed:
        notes.append(f'The configs differ, so that this compares two experiments: {"; ".join(changed)}.')
    return notes


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code (0 done, 1 a known error)."""
    parser = argparse.ArgumentParser(
        'python -m xlmr_flax.tools.torch.agreement',
        description='Compares a run of ours with the same run by torch_run.',
    )
    parser.add_argument('--ours', type=Path, required=True, metavar='W1', help='workdir of xlmr-flax run')
    parser.add_argument('--theirs', type=Path, required=True, metavar='W2', help='workdir of torch_run')
    parser.add_argument('--steps', type=int, default=50, help='number of steps whose losses are compared')
    values = parser.parse_args(argv)
    try:
        theirs = read_side(values.theirs)
        table = agreement(read_side(values.ours, theirs), theirs, values.steps)
    except (ConfigError, RowsError) as e:
        sys.stderr.write(f'error: {e}\n')
        return 1
    sys.stdout.write(table.markdown())
    return 0


if __name__ == '__main__':
    sys.exit(main())
