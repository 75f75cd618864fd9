"""Runs the same experiment in JAX and in PyTorch and compares the results: `xlmr-flax compare`.

The JAX run is in the workdir W, as `xlmr-flax run` writes it; the PyTorch run is in W/torch, the comparison in
W/compare/.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from xlmr_flax.analysis.against import runs_of
from xlmr_flax.analysis.paired import Pairing, pair_systems
from xlmr_flax.config import Config, ConfigError, digest, to_dict
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.kinds.gold import NoExampleScores, NoGold
from xlmr_flax.report.table import Table
from xlmr_flax.tools.torch.agreement import read_records
from xlmr_flax.tools.torch.comparison_report import LEAST_SECONDS, LEAST_STEPS, Comparison, Curve, report, tables
from xlmr_flax.tools.torch.limits import check
from xlmr_flax.util import strict_json
from xlmr_flax.util.children import run_child, with_package
from xlmr_flax.util.files import write_atomically
from xlmr_flax.util.stopping import Stopped
from xlmr_flax.util.stopping import check as check_stop

FOLDER, DONE = 'torch', 'done.json'


def prepare(config: Config) -> Config:
    """The config that both sides run, with the loss of every step logged.

    Raises ConfigError if the PyTorch side does not support the config, or if torch is not installed.
    """
    if importlib.util.find_spec('torch') is None:
        raise ConfigError("compare needs torch, which is not installed: pip install -e '.[torch]' in the checkout")
    check(config)
    recipes = {name: dataclasses.replace(recipe, log_every=1) for name, recipe in config.recipes.items()}
    recipe = dataclasses.replace(config.recipe, log_every=1)
    return dataclasses.replace(config, recipe=recipe, recipes=recipes, tensorboard=False)


def run_torch(runner: Runner, workdir: Path) -> bool:
    """Runs the plan of `runner` in PyTorch, in a separate process, in W/torch; returns whether that was needed.

    Raises ConfigError if it fails or if the folder has other files, and Stopped.
    """
    folder, key = workdir / FOLDER, _key(runner)
    if _is_done(folder, key):
        return False
    if folder.exists():
        # A run that was stopped before it wrote a config may have left temporary files.
        visible = [path for path in folder.iterdir() if not path.name.startswith('.')]
        if visible and not (folder / 'config.json').is_file():
            raise ConfigError(f'{folder}: is not empty and not a PyTorch run of compare')
        shutil.rmtree(folder)  # an unfinished run, or the run of another plan
    command = [sys.executable, '-m', 'xlmr_flax.tools.torch.torch_run', f'--saved={workdir}', f'--workdir={folder}']
    command += ['--end_with_input']
    # JAX makes the starting weights and reads the data on the CPU: torch uses the device.
    try:
        code = run_child(command, with_package(os.environ) | {'JAX_PLATFORMS': 'cpu'})
    except Stopped:
        raise Stopped('stopped during the PyTorch run, which is not saved; the JAX run is saved') from None
    if code:
        raise ConfigError(f'the PyTorch side stopped with exit code {code}: {" ".join(command[1:-1])}')
    write_atomically(folder / DONE, json.dumps({'key': key}) + '\n')
    return True


def _key(runner: Runner) -> str:
    """Key of the PyTorch run: a digest of the run ids and the evaluation settings."""
    evaluation = to_dict(runner.config.evaluation)
    return digest({'runs': [run.id for run in runner.plan], 'evaluation': evaluation})


def _is_done(folder: Path, key: str) -> bool:
    try:
        return strict_json.read_object(folder / DONE).get('key') == key
    except (OSError, strict_json.JsonError):
        return False


def collect(runner: Runner, workdir: Path, versions: Mapping[str, str]) -> Comparison:
    """Reads the curves, scores and times of both sides from their files."""
    config, notes = runner.config, []
    pairings: list[tuple[str, Pairing]] = []
    for target in config.targets:
        for arm in config.intermediate:
            roots = [runs_of(side, config, arm) for side in (workdir, workdir / FOLDER)]
            try:
                pairings += [(arm, each) for each in pair_systems(config, target, *roots)]
            except (NoExampleScores, NoGold) as e:
                notes.append(f'{target}: no test: {e}. Its scores are in results.jsonl of both folders.')
                break
    curves = tuple(_curve(run, workdir) for run in runner.plan if run.recipe)
    if runner.setting.model.config.dropout or runner.setting.model.config.attention_dropout:
        notes.append(
            'With dropout the losses of a step differ by its random masks. To compare them step by step: '
            '--config.encoder.dropout=0.0 --config.encoder.attention_dropout=0.0.'
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
    """Seconds of training and evaluation on the PyTorch side. Raises ConfigError naming file and line."""
    rows = read_records(folder / 'seconds.jsonl', {'training': float, 'evaluation': float})
    return sum(row['training'] + row['evaluation'] for row in rows)


def _curve(run: Run, workdir: Path) -> Curve:
    sides = [
        [r for r in Workdir(path, look_only=True).metrics() if r.get('run') == run.name and 'loss' in r]
        for path in (workdir, workdir / FOLDER)
    ]
    ours, theirs = ({r['step']: r['loss'] for r in records} for records in sides)
    means, last = {}, 0
    for step in sorted(ours):  # an earlier run of ours may have logged fewer steps
        since = [theirs[s] for s in range(last + 1, step + 1) if s in theirs]
        last = step
        if since:
            means[step] = sum(since) / len(since)
    assert run.recipe is not None
    first, second = (_speed(records, run.recipe.batch_size) for records in sides)
    return Curve(run.name, (ours, means), (first, second) if first and second else (None, None))


def _speed(records: Sequence[Mapping[str, Any]], batch_size: int) -> float | None:
    """Median examples/s of a training run's records without the first; None for a short training run."""
    seconds, last = 0.0, 0
    for record in records:
        seconds += (record['step'] - last) * batch_size / record['examples_per_s']
        last = record['step']
    if last < LEAST_STEPS or seconds < LEAST_SECONDS or len(records) < 2:
        return None
    return median(record['examples_per_s'] for record in records[1:])


def compare(config: Config, workdir: Path, command: str, versions: Mapping[str, str]) -> tuple[Path, list[Table]]:
    """Runs what is missing on both sides and writes the comparison; returns the path of its page, and its tables.

    Raises ConfigError as `prepare` and `run_torch`, the errors of a run, and Stopped.
    """
    # The PyTorch side may use the same device later, so JAX must not preallocate its memory.
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    config = prepare(config)
    runner = Runner.open(config, workdir, command)
    runner.run()
    check_stop()
    run_torch(runner, workdir)
    check_stop('stopped before the comparison; both sides are saved')
    comparison = collect(runner, workdir, versions)
    return report(comparison, workdir / 'compare'), tables(comparison)
