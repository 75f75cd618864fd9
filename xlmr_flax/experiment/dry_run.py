"""run --dry_run: prints the plan as a table, with finished work and the estimated cost of the rest. Writes nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from xlmr_flax.experiment.plan.cost import (
    BOUND,
    CACHED,
    SAMPLED,
    Estimator,
    Speed,
    TrainingCost,
    Work,
    layer_weights,
    machine_speed,
    reached_speed,
)
from xlmr_flax.experiment.plan.dry_draws import draws_notes, draws_table
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.util.console import duration

INTERMEDIATE, TARGET, EVALUATION = 'intermediate', 'target', 'evaluation'


@dataclass(frozen=True)
class Item:
    """A run of a plan with its state and cost. state: the text of its table cell. evaluation: work for all its
    languages. left: work for the missing languages. done: finished share of the training, 0 to 1."""

    run: Run
    state: str
    training: TrainingCost
    evaluation: Work
    done: float
    left: Work

    @property
    def training_work(self) -> Work:
        return self.training.work + self.training.dev


def describe(runner: Runner) -> str:
    """Returns the text of --dry_run. Raises the same DataError and ConfigError as the run."""
    estimator = Estimator(runner.plan, runner.setting.model.config, runner.setting.tokenizer)
    items = [_item(runner, estimator, run) for run in runner.plan]
    speed = _speed(runner, items)
    states = Counter(item.state.split()[0] for item in items)
    head = f'{_count(len(items), "run")} in {runner.workdir.path}: '
    head += ', '.join(f'{n} {state}' for state, n in states.items())
    drawn = draws_table(estimator, [(item.run, item.training) for item in items])
    members = '\n'.join([*([_columns(drawn)] if drawn else []), *draws_notes(runner.config, drawn)])
    tables = [_columns(_plan_table(items, speed)), members, _columns(_totals(items, speed))]
    return '\n\n'.join(filter(None, [head, *tables, _notes(runner, items, speed)]))


def _item(runner: Runner, estimator: Estimator, run: Run) -> Item:
    training = estimator.training(run)
    languages = runner.languages(run.target) if run.target else ()
    works = {language: estimator.evaluation(run, language) for language in languages}
    missing = runner.missing_languages(run)
    done = (
        1.0
        if runner.is_trained(run) and not runner.must_train_again(run)
        else min(1.0, _saved_step(runner, run) / max(1, training.steps))
    )
    evaluation, left = sum(works.values(), Work()), sum((works[language] for language in missing), Work())
    state = 'finished' if done == 1 and not missing else _state(runner, run, training.steps, languages, missing)
    return Item(run, state, training, evaluation, done, left)


def _saved_step(runner: Runner, run: Run) -> int:
    """Returns the step of the checkpoint from which a run would resume; 0 = there is none."""
    steps = (runner.workdir.run_dir(run) / 'checkpoints' / 'last').glob('[0-9]*')
    return max((int(path.name) for path in steps if path.name.isdecimal()), default=0)


def _state(runner: Runner, run: Run, steps: int, languages: Sequence[str], missing: Sequence[str]) -> str:
    """Returns the state, as text, of a run that is not finished."""
    if holder := runner.claims.holder(run.name):
        return f'claimed by {holder}'
    if failure := runner.workdir.failure(run):
        return f'failed ({failure["type"]})'
    if run.task and runner.is_trained(run):
        return f'partly (trained, {len(languages) - len(missing)} of {len(languages)} languages)'
    if step := _saved_step(runner, run):
        return f'partly (step {step} of {steps})'
    if len(missing) < len(languages):
        return f'partly ({len(languages) - len(missing)} of {len(languages)} languages)'
    return 'missing'


def _speed(runner: Runner, items: Sequence[Item]) -> Speed:
    devices = jax.devices()
    examples = {
        item.run.name: item.training.work.flops / (item.training.steps * item.run.recipe.batch_size)
        for item in items
        if item.run.recipe and item.training.steps
    }
    named = f'{len(devices)} × {devices[0].device_kind}, if it is the same machine'
    reached = reached_speed(runner.workdir.metrics(), lambda run: examples.get(run, 0.0), named)
    return reached or machine_speed(runner.setting.model.dtype, devices)


def _plan_table(items: Sequence[Item], speed: Speed) -> list[list[str]]:
    number = {item.run.id: i for i, item in enumerate(items, 1) if not item.run.target}
    rows = [
        [
            '#',
            'intermediate',
            'target',
            'seed',
            'trains on',
            'steps',
            'batch',
            'length',
            'from',
            'FLOPs',
            'time',
            'state',
        ]
    ]
    for i, item in enumerate(items, 1):
        run, recipe, work = item.run, item.run.recipe, item.training_work + item.evaluation
        lengths = _lengths(run)
        rows.append(
            [
                str(i),
                run.intermediate,
                run.target or (f'(before {run.warms})' if run.warms else '-'),
                str(run.seed),
                _trains(run),
                f'{item.training.steps:,}' if recipe else '-',
                str(recipe.batch_size) if recipe else '-',
                lengths,
                f'#{number[run.parent]}' if run.parent else 'encoder',
                _short(work.flops),
                _time(work, speed),
                item.state,
            ]
        )
    return rows


def _trains(run: Run) -> str:
    names = run.tasks
    if len(names) > 3:
        return f'{names[0]}+{names[1]}+ … ({len(names)} tasks)'
    return '+'.join(names) or 'nothing'


def _lengths(run: Run) -> str:
    lengths = sorted({dataset.max_length for dataset in run.datasets})
    if not lengths:
        return '-'
    return str(lengths[0]) if len(lengths) == 1 else f'{lengths[0]}-{lengths[-1]}'


def _totals(items: Sequence[Item], speed: Speed) -> list[list[str]]:
    """Returns the table of total and remaining work per phase."""
    rows = [['phase', 'runs', 'steps', 'tokens', 'FLOPs', 'time', 'left', 'time left']]
    total, left = Work(), Work()
    for phase in (INTERMEDIATE, TARGET, EVALUATION):
        if phase == EVALUATION:
            mine = [item for item in items if item.run.target]
            parts = [(item.evaluation, item.left) for item in mine]
        else:
            mine = [item for item in items if item.run.task and bool(item.run.target) == (phase == TARGET)]
            parts = [(item.training_work, item.training_work.times(1 - item.done)) for item in mine]
        if mine:
            work, rest = sum((a for a, _ in parts), Work()), sum((b for _, b in parts), Work())
            total, left = total + work, left + rest
            steps = f'{sum(item.training.steps for item in mine):,}' if phase != EVALUATION else '-'
            rows.append([phase, str(len(mine)), steps, *_total_cells(work, rest, speed)])
    return [*rows, ['total', str(len(items)), '', *_total_cells(total, left, speed)]]


def _total_cells(work: Work, left: Work, speed: Speed) -> list[str]:
    cells = [_short(work.tokens), _short(work.flops), _time(work, speed)]
    return [*cells, f'{left.flops / work.flops:.0%}' if work.flops else '-', _time(left, speed)]


def _time(work: Work, speed: Speed) -> str:
    seconds = work.flops / speed.flops
    return '<1s' if 0 < seconds < 0.5 else duration(seconds)


def _count(number: int, what: str) -> str:
    return f'{number:,} {what}{"" if number == 1 else "s"}'


def _compiled(items: Sequence[Item]) -> str:
    """Returns the note on compilation time, which the estimates leave out. A run has its own active vocabulary, and so
    compiles its own programs."""
    left = [item for item in items if item.done < 1 and item.run.recipe]
    programs = sum(item.training.programs for item in left)
    if not programs:
        return 'These times do not include the compilation of the evaluation programs.'
    most = 'about' if any(item.run.recipe and item.run.recipe.packing for item in left) else 'at most'
    return f"""Compilation comes on top of these times, and can take most of the time of a short plan: {most}
{_count(programs, 'training program')} (head kinds × row lengths, {_count(len(left), 'training')}; seeds may share them)
and those of the evaluation."""


def _notes(runner: Runner, items: Sequence[Item], speed: Speed) -> str:
    shape = runner.setting.model.config
    basis = sorted(frozenset().union(*(item.training_work.basis | item.evaluation.basis for item in items)))
    lengths = {
        CACHED: 'the token cache',
        SAMPLED: 'the first rows of a split',
        BOUND: 'max_length, an upper bound',
    }
    return f"""{runner.setting.defaults.line()}

{_compiled(items)}

Estimates, with padding. Units: k, M, G = 10^3, 10^6, 10^9; T, P, E = 10^12, 10^15, 10^18.
Training takes 6 N + 12 L D T operations a token, evaluation 2 N + 4 L D T (Kaplan et al. 2020; PaLM, appendix B):
N = {layer_weights(shape):,}, L = {shape.num_layers}, D = {shape.hidden_size}, T the length of a row.
The terms with T are XLM-R's; families with other attention have their own.
Lengths: {', '.join(lengths[name] for name in basis)}. Rows are counted, not read: a task may drop some.
Times are for this machine, at {_short(speed.flops)}FLOP/s: {speed.basis}. For TPUs: xlmr-flax estimate.
They do not include tokenizing and reading either. Several processes (--shard) share the work."""


def _short(number: float) -> str:
    """Formats a number with a prefix k, M, G, T, P or E, and one decimal if it is below 10 of that unit."""
    power = min(6, max(0, math.floor(math.log10(number) / 3))) if number >= 1 else 0
    value = number / 1000**power
    return f'{value:.{1 if value < 9.95 and power else 0}f}{["", "k", "M", "G", "T", "P", "E"][power]}'


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows as text columns; columns that hold only numbers ('<1s' counts as one) are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [
        all(cell[:1].isdigit() or cell in ('-', '', '<1s') for cell in column[1:]) for column in zip(*rows, strict=True)
    ]
    lines = (
        '  '.join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        for row in rows
    )
    return '\n'.join(line.rstrip() for line in lines)
