"""The same experiment twice, here and in PyTorch, and what came of it: `xlmr-flax compare`.

Ours lies in W as `xlmr-flax run` leaves it, PyTorch's in W/torch, the comparison in W/compare/.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from xlmr_flax.baselines.against import as_json, runs_of
from xlmr_flax.baselines.agreement import read_records
from xlmr_flax.baselines.limits import check
from xlmr_flax.baselines.paired import NoExampleScores, Pairing, pair_systems
from xlmr_flax.config import Config, ConfigError, digest, to_dict
from xlmr_flax.eval.files import write_atomic
from xlmr_flax.experiment.plan import Run
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.workdir import Workdir
from xlmr_flax.report.study import metric_name
from xlmr_flax.report.table import Column, Line, Table
from xlmr_flax.util import strict_json

SIDES = ('JAX', 'PyTorch')
FOLDER, DONE = 'torch', 'done.json'
FIRST = 50  # steps, whose losses are looked at by themselves
# A shorter training says nothing of speed: its median is of a few steps, and a pause of the machine decides it.
LEAST_STEPS, LEAST_SECONDS = 50, 30.0


@dataclass(frozen=True)
class Curve:
    """One training on both sides. losses: of each side, step (from 1) -> mean training loss since the step before it in
    ours. speeds: median examples/s without the first record; None where a side's training was short."""

    run: str
    losses: tuple[Mapping[int, float], Mapping[int, float]]
    speeds: tuple[float | None, float | None]

    def apart(self, first: int = 0) -> tuple[float, int]:
        """(largest difference of the losses, its step), of the first so many steps (0 = all)."""
        ours, theirs = self.losses
        both = [step for step in ours if step in theirs and (not first or step <= first)]
        return max(((abs(ours[step] - theirs[step]), step) for step in both), default=(0.0, 0))


@dataclass(frozen=True)
class Comparison:
    """What there is to show. pairings: with their arm. seconds: of each side, training and evaluation. sources: commits
    (`experiment.checkout`)."""

    title: str
    command: str
    curves: tuple[Curve, ...]
    pairings: tuple[tuple[str, Pairing], ...]
    seconds: tuple[float, float]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    date: str = ''
    sources: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """How it was made, for the head of a page."""
        found = {
            'Command': self.command,
            'Date': self.date,
            'Source': ', '.join(f'commit {source}' for source in self.sources),
            'Versions': ', '.join(f'{name} {version}' for name, version in self.versions.items()),
        }
        return {name: text for name, text in found.items() if text}


def prepare(config: Config) -> Config:
    """The config that both sides run: every step's loss is logged. Raises ConfigError for what the PyTorch side cannot
    do, and where torch is not installed."""
    if importlib.util.find_spec('torch') is None:
        raise ConfigError("compare needs torch, which is not installed: pip install -e '.[torch]' in the checkout")
    check(config)
    recipes = {name: dataclasses.replace(recipe, log_every=1) for name, recipe in config.recipes.items()}
    recipe = dataclasses.replace(config.recipe, log_every=1)
    return dataclasses.replace(config, recipe=recipe, recipes=recipes, tensorboard=False)


def run_torch(runner: Runner, workdir: Path) -> bool:
    """Runs the plan of `runner` in PyTorch, in a process of its own, in W/torch; whether that was needed. Raises
    ConfigError where it fails, or where the folder holds something else."""
    folder, key = workdir / FOLDER, _key(runner)
    if _is_done(folder, key):
        return False
    if folder.exists() and any(folder.iterdir()):
        if not (folder / 'config.json').is_file():
            raise ConfigError(f'{folder}: holds something else; compare puts the PyTorch run there')
        shutil.rmtree(folder)  # begun and not finished, or of another plan
    command = [sys.executable, '-m', 'xlmr_flax.baselines.torch_run', f'--saved={workdir}', f'--workdir={folder}']
    root = str(Path(__file__).parents[2])  # this package, also where it is not installed
    path = os.pathsep.join(p for p in (root, os.environ.get('PYTHONPATH')) if p)
    # JAX makes the starting weights and reads the data there: the device is torch's.
    done = subprocess.run(command, env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': path})
    if done.returncode:
        raise ConfigError(f'the PyTorch side stopped with exit code {done.returncode}: {" ".join(command[1:])}')
    write_atomic(folder / DONE, json.dumps({'key': key}) + '\n')
    return True


def _key(runner: Runner) -> str:
    """Changes with what is trained and scored."""
    evaluation = to_dict(runner.config.evaluation)
    return digest({'runs': [run.id for run in runner.plan], 'evaluation': evaluation})


def _is_done(folder: Path, key: str) -> bool:
    try:
        return strict_json.read_object(folder / DONE).get('key') == key
    except (OSError, strict_json.JsonError):
        return False


def collect(runner: Runner, workdir: Path, versions: Mapping[str, str]) -> Comparison:
    """Both sides' curves, scores and times, from their files."""
    config, notes = runner.config, []
    pairings: list[tuple[str, Pairing]] = []
    for target in config.targets:
        for arm in config.intermediate:
            roots = [runs_of(side, config, arm) for side in (workdir, workdir / FOLDER)]
            try:
                pairings += [(arm, each) for each in pair_systems(config, target, *roots)]
            except NoExampleScores as e:
                notes.append(f'{target}: no test: {e}. Its scores are in results.jsonl of both folders.')
                break
    curves = tuple(_curve(run, workdir) for run in runner.plan if run.recipe)
    if runner.setting.model.config.dropout or runner.setting.model.config.attention_dropout:
        notes.append(
            'With dropout the losses of a step differ by its random masks. To hold them against each other step by '
            'step: --config.encoder.dropout=0.0 --config.encoder.attention_dropout=0.0.'
        )
    if config.encoder.dtype == 'bfloat16':
        notes.append('bfloat16: ours computes in it throughout, PyTorch by autocast.')
    seconds = (Workdir(workdir, look_only=True).seconds(), _torch_seconds(workdir / FOLDER))
    title = f'{config.title or config.name}: the same experiment in JAX and in PyTorch'
    sources = tuple(Workdir(workdir, look_only=True).sources())
    date = time.strftime('%Y-%m-%d')
    return Comparison(
        title, runner.command, curves, tuple(pairings), seconds, tuple(notes), versions, date, sources
    )  # fmt: skip


def _torch_seconds(folder: Path) -> float:
    """Seconds of training and evaluation. Raises ConfigError naming file and line."""
    rows = read_records(folder / 'seconds.jsonl', {'training': float, 'evaluation': float})
    return sum(row['training'] + row['evaluation'] for row in rows)


def _curve(run: Run, workdir: Path) -> Curve:
    sides = [
        [r for r in Workdir(path, look_only=True).metrics() if r.get('run') == run.name and 'loss' in r]
        for path in (workdir, workdir / FOLDER)
    ]
    ours, theirs = ({r['step']: r['loss'] for r in records} for records in sides)
    means, last = {}, 0
    for step in sorted(ours):  # ours may have been logged less often, in an earlier run
        since = [theirs[s] for s in range(last + 1, step + 1) if s in theirs]
        last = step
        if since:
            means[step] = sum(since) / len(since)
    assert run.recipe is not None
    first, second = (_speed(records, run.recipe.batch_size) for records in sides)
    return Curve(run.name, (ours, means), (first, second) if first and second else (None, None))


def _speed(records: Sequence[Mapping[str, Any]], batch_size: int) -> float | None:
    """Median examples/s of a training's records without the first; None for a training that was short."""
    seconds, last = 0.0, 0
    for record in records:
        seconds += (record['step'] - last) * batch_size / record['examples_per_s']
        last = record['step']
    if last < LEAST_STEPS or seconds < LEAST_SECONDS or len(records) < 2:
        return None
    return median(record['examples_per_s'] for record in records[1:])


def tables(found: Comparison) -> list[Table]:
    """Means of the scores, losses and speeds, then scores by language."""
    shown = [_summary(found)] if found.pairings else []
    shown.append(_training_table(found))
    for arm, pairing in found.pairings:
        title = f'{pairing.target}, {pairing.metric.replace("_", " ")} ({pairing.split}), intermediate: {arm}'
        shown.append(pairing.table(*SIDES, title))
    return shown


def _summary(found: Comparison) -> Table:
    columns = (
        Column('target'), Column('intermediate'), Column('metric'), Column('languages', 'count'),
        *(Column(side, 'score', 'mean', decimals=2) for side in SIDES),
        Column('difference', 'delta', 'mean', decimals=2),
        Column('largest Δ', 'score', 'single languages', decimals=2),
        Column('lowest p', 'score', 'single languages', decimals=4),
    )  # fmt: skip
    lines = []
    for arm, pairing in found.pairings:
        mean = pairing.means[0]
        largest = max(100 * abs(each.change.difference) for each in pairing.languages)
        lowest = min(each.p_holm for each in pairing.languages if each.p_holm is not None)
        about = (pairing.target, arm, metric_name(pairing.metric), len(pairing.languages))
        lines.append(Line((*about, mean.first, mean.second, 100 * mean.change.difference, largest, lowest)))
    note = (
        f'Scores in %; mean: over all languages of a target, its difference {SIDES[0]} - {SIDES[1]} in points; single '
        'languages: the largest difference without its sign, and the lowest p, corrected over the languages (Holm).'
    )
    return Table('Summary', columns, tuple(lines), (note,))


def _training_table(found: Comparison) -> Table:
    timed = any(None not in curve.speeds for curve in found.curves)
    columns = (
        Column('run'),
        Column('steps', 'count'),
        Column(f'steps 1–{FIRST}', 'score', 'largest difference of the losses,'),
        Column('all steps', 'score', 'largest difference of the losses,'),
        *(Column(side, 'score', 'examples/s', decimals=1) for side in SIDES if timed),
    )
    lines = []
    for c in found.curves:
        apart = f'{c.apart(FIRST)[0]:.1e}', f'{c.apart()[0]:.1e}'
        lines.append(Line((c.run, max(c.losses[0], default=0), *apart, *(c.speeds if timed else ()))))
    took = ', '.join(f'{side} {seconds:.0f} s' for side, seconds in zip(SIDES, found.seconds, strict=True))
    notes = [f'Training and evaluation in all: {took} (compilation included), one side after the other.']
    if timed:
        notes.append(f'examples/s: median of the steps, of trainings of {LEAST_STEPS} steps and {LEAST_SECONDS:.0f} s.')
    notes.append('Speed: measure with: xlmr-flax bench train')
    return Table('Training', columns, tuple(lines), (*notes, *found.notes))


def to_json(found: Comparison) -> str:
    """Everything in numbers."""
    return json.dumps(
        {
            'title': found.title, 'command': found.command, 'versions': dict(found.versions), 'date': found.date,
            'sources': found.sources,
            'seconds': dict(zip(SIDES, found.seconds, strict=True)),
            'curves': [
                {'run': c.run, 'losses': dict(zip(SIDES, c.losses, strict=True)), 'examples_per_s': c.speeds}
                for c in found.curves
            ],
            'pairings': [as_json(pairing) | {'intermediate': arm} for arm, pairing in found.pairings],
        },
        indent=1,
    ) + '\n'  # fmt: skip


def report(found: Comparison, folder: Path) -> Path:
    """Writes compare.md, compare.json, index.html and figures/; returns the page's path."""
    from xlmr_flax.baselines.comparison_page import figures, page

    drawn = figures(found)
    for name, drawing in drawn.items():
        write_atomic(folder / 'figures' / f'{name}.svg', drawing)
    lines = [f'# {found.title}', '', *(f'- {name}: `{text}`' for name, text in found.facts().items()), '']
    lines += [table.markdown() for table in tables(found)]
    lines += [f'![Training losses of {name}](figures/{name}.svg)\n' for name in drawn]
    write_atomic(folder / 'compare.md', '\n'.join(lines))
    write_atomic(folder / 'compare.json', to_json(found))
    write_atomic(folder / 'index.html', page(found, tables(found), drawn))
    return folder / 'index.html'


def compare(config: Config, workdir: Path, command: str, versions: Mapping[str, str]) -> tuple[Path, list[Table]]:
    """Runs what is missing on both sides and writes the comparison; returns its page and its tables.

    Raises ConfigError as `prepare` and `run_torch`, and what a run raises.
    """
    # The other side may use the same device behind this one.
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    config = prepare(config)
    runner = Runner.open(config, workdir, command)
    runner.run()
    run_torch(runner, workdir)
    found = collect(runner, workdir, versions)
    return report(found, workdir / 'compare'), tables(found)
