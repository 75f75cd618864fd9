"""usage: python -m xlmr_flax.tools.torch.torch_run --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Runs the same experiment in PyTorch, for comparison. Plan, starting weights, batches, recipe and scorer are those of
`xlmr-flax run` with this config; model, gradients, clipping, AdamW, learning rate and dropout are those of transformers
and torch. Rows are padded, never packed. DIR must not have a run. Writes DIR/metrics.jsonl (every step),
DIR/results.jsonl (encoder 'NAME (torch)'), DIR/predictions/ and the trained weights in our format,
DIR/runs/NAME/model/. There is no dev evaluation: the last weights are scored. Runs on a GPU if torch has one, else on
the CPU; encoder.dtype='bfloat16' uses torch.autocast.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from absl import flags

from xlmr_flax.analysis.against import read_workdir
from xlmr_flax.config import Config, ConfigError
from xlmr_flax.config.flag import check_arguments, define_config_flag, define_data_root, load_config
from xlmr_flax.config.reference import as_text
from xlmr_flax.data.batches import train_batch
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.plan.arms import heads_of, task_of
from xlmr_flax.experiment.plan.runs import Run, scored_length
from xlmr_flax.experiment.result_rows import result_rows
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.setting import Setting
from xlmr_flax.experiment.training import Training, head_of, initial_params, save_model, start_params, trained_facts
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Params
from xlmr_flax.models.source import open_source
from xlmr_flax.tools.torch.limits import check
from xlmr_flax.tools.torch.torch_evaluate import TorchEvaluator
from xlmr_flax.tools.torch.torch_model import export_start, import_trained
from xlmr_flax.tools.torch.torch_modules import (
    MultiTask,
    Piece,
    autocast_to,
    count,
    learning_rates,
    make_optimizer,
    open_start,
    pieces,
    train_step,
)
from xlmr_flax.train.streams import Stream, TrainingData
from xlmr_flax.train.vocabulary import ActiveRows
from xlmr_flax.util.children import end_with_input
from xlmr_flax.util.console import Line
from xlmr_flax.util.errors import UserError
from xlmr_flax.util.secrets import command_line

SUFFIX = ' (torch)'


def run_baseline(config: Config, workdir: Path, command: str = '') -> list[dict[str, Any]]:
    """Trains and scores a plan in an empty workdir; returns the result rows. Raises ConfigError as `limits.check`."""
    check(config)
    for name in ('metrics.jsonl', 'results.jsonl'):
        if (workdir / name).exists():
            raise ConfigError(f'{workdir}: holds a run already ({name}); the PyTorch run needs a folder of its own')
    runner = Runner.open(dataclasses.replace(config, tensorboard=False), workdir, command)
    setting = runner.setting
    setting.workdir.save_config(dataclasses.replace(config, encoder=runner.config.encoder), command)
    rows: list[dict[str, Any]] = []
    for run in runner.plan:
        began = time.monotonic()
        if run.recipe:
            _train(setting, run)
        trained = time.monotonic()
        if run.target:
            rows += _evaluate(runner, run, command)
            setting.workdir.write_results(rows)
        _note_seconds(workdir, run, trained - began, time.monotonic() - trained)
    setting.workdir.gather_metrics()
    return rows


def _note_seconds(workdir: Path, run: Run, training: float, evaluation: float) -> None:
    with (workdir / 'seconds.jsonl').open('a', encoding='utf-8') as file:
        file.write(json.dumps({'run': run.name, 'training': training, 'evaluation': evaluation}) + '\n')


def _device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def _open(setting: Setting, params: Params, heads: dict[str, HeadSpec]) -> MultiTask:
    model = setting.model
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / 'start'
        export_start(folder, model.config, params, setting.tokenizer.path, heads, model.style)
        return open_start(folder).to(_device())


def _train(setting: Setting, run: Run) -> None:
    """Trains a run, logs every step and saves the weights in the same folder as a run of ours."""
    training, recipe = Training(setting, run), run.recipe
    assert recipe is not None
    heads, params = heads_of(training.datasets), initial_params(setting, run)
    torch.manual_seed(run.seed)
    model = _open(setting, params, heads)
    data = training.training_data(ActiveRows.all(setting.model.config.vocab_size))
    optimizer = make_optimizer(model, recipe.optimizer)
    scheduler = learning_rates(optimizer, recipe.optimizer, training.steps)
    autocast = autocast_to(setting.model.dtype, _device())
    line = Line(f'train {run.name}{SUFFIX}')
    names: dict[str, Any] = {'run': run.name, 'intermediate': run.intermediate, 'target': run.target}
    names |= {'task': run.task, 'seed': run.seed}
    model.train()
    since = time.monotonic()
    for step in range(training.steps):
        micro_batches = _micro_batches(data, step, recipe.accumulation, recipe.batch_size, setting.tokenizer.pad)
        rate = scheduler.get_last_lr()[0]
        found = train_step(model, micro_batches, optimizer, recipe.optimizer, autocast)
        metrics = {k: float(v) for k, v in found.items()}
        scheduler.step()
        now = time.monotonic()
        speed, since = recipe.batch_size / max(now - since, 1e-9), now
        setting.log({**names, 'step': step + 1, **metrics, 'learning_rate': rate, 'examples_per_s': speed})
        line(step + 1, training.steps, (step + 1) * recipe.batch_size, loss=metrics['loss'])
    line.close(f'{training.steps} steps')
    _save(setting, run, training, model, heads)


def _micro_batches(data: TrainingData, step: int, accumulation: int, batch_size: int, pad: int) -> list[Piece]:
    """The micro-batches of an optimizer step, with the same rows as our step."""
    drawn = data.draws(step, accumulation)
    if data.mix != 'micro_batch':
        ((stream, draw),) = drawn
        batch = _batch(stream, draw, batch_size, pad)
        return list(pieces(stream.head_name, batch, accumulation))
    micro_batches = []
    for stream, draw in drawn:  # the loss is the mean over the micro-batches' mean losses (train/mixed.py)
        batch = _batch(stream, draw, batch_size // accumulation, pad)
        micro_batches.append(Piece(stream.head_name, batch, count(batch) * len(drawn)))
    return micro_batches


def _batch(stream: Stream, draw: int, size: int, pad: int) -> dict[str, torch.Tensor]:
    """The batch of a draw on the device, with one row per example, even if our side packs them."""
    arrays = train_batch(stream.data, draw, size, stream.seed, stream.row_lengths, pad)
    return {k: torch.from_numpy(v).long().to(_device()) for k, v in arrays.items() if k != 'valid'}


def _save(setting: Setting, run: Run, training: Training, model: MultiTask, heads: dict[str, HeadSpec]) -> None:
    def arrays(module: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
        return ((name, value.detach().cpu().numpy()) for name, value in module.state_dict().items())

    own = {name: dict(arrays(model.head(name))) for name in heads}
    params = import_trained(dict(arrays(model.encoder)), own, heads, setting.model.config, setting.model.style)
    save_model(setting, run, training, params, training.steps, None)


def _evaluate(runner: Runner, run: Run, command: str) -> list[dict[str, Any]]:
    """Writes and scores the prediction files in every language of the target; returns the result rows."""
    setting, config = runner.setting, runner.config
    task, split, languages = task_of(config, run.target), runner.split(run.target), runner.languages(run.target)
    head: tuple[str, HeadSpec] | None = None
    if run.recipe is None:
        params, step = start_params(setting, run), 0
    else:
        params = open_source(f'ckpt:{setting.workdir.run_dir(run)}').load()
        head = head_of(run)
        step = (trained_facts(setting, run) or {'step': 0})['step']
    model = _open(setting, params, dict([head]) if head else {})
    evaluator = TorchEvaluator(
        setting.model, {}, setting.tokenizer, setting.mesh, config.evaluation, config.data_root,
        scored_length(config, run), head, bad_rows=setting.bad_rows, torch_model=model.eval(),
    )  # fmt: skip
    source = dataclasses.replace(setting.source, name=setting.source.name + SUFFIX)
    line, rows = Line(f'evaluate {run.name}{SUFFIX}', 'languages'), []
    for number, language in enumerate(languages, 1):
        metrics, n = evaluator.run(task, language, split, setting.workdir.predictions(run))
        scored = Split(task, language, split, config.data_root)
        rows += result_rows(
            config, source, run, scored, metrics=metrics, n=n, step=step, command=command, bad_rows=setting.bad_rows
        )
        line(number, len(languages), number)
    line.close(f'{len(languages)} languages')
    return rows


def define_flags(values: flags.FlagValues) -> None:
    define_config_flag(values)
    define_data_root(values)
    flags.DEFINE_string('saved', None, 'A workdir, whose config is taken instead of --config.', flag_values=values)
    flags.DEFINE_string('workdir', None, 'Folder to write to.', flag_values=values)
    flags.DEFINE_bool('end_with_input', False, 'End when standard input does.', flag_values=values)


def load_arguments(values: flags.FlagValues, arguments: Sequence[str]) -> tuple[Config, Path]:
    """(config with its overrides, workdir). Raises ConfigError and flags.Error."""
    check_arguments(arguments)
    try:
        left = values(['torch_run', *arguments])
    except (KeyError, AttributeError, TypeError, ValueError) as e:  # ml_collections' override errors
        raise ConfigError(str(e.args[0]) if e.args else repr(e)) from None
    if len(left) > 1:
        raise ConfigError(f'unexpected argument {left[1]!r}; flags are written --name=value')
    config = read_workdir(Path(values.saved))[0] if values.saved else load_config(values)
    if not values.workdir:
        raise ConfigError('--workdir=DIR is missing')
    return config, Path(values.workdir)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code (0 done, 1 a known error)."""
    if argv is not None:  # ml_collections reads config overrides from sys.argv
        before, sys.argv = sys.argv, ['torch_run', *argv]
        try:
            return main()
        finally:
            sys.argv = before
    arguments = sys.argv[1:]
    values = flags.FlagValues()
    define_flags(values)
    if any(a in ('--help', '-h', '--helpfull') for a in arguments):
        sys.stdout.write(f'{__doc__}\nflags:\n{values.get_help(include_special_flags=False)}\n')
        return 0
    if '--help_config' in arguments:
        sys.stdout.write(as_text() + '\n')
        return 0
    try:
        config, workdir = load_arguments(values, arguments)
        if values.end_with_input:
            end_with_input()
        run_baseline(config, workdir, command_line('python -m xlmr_flax.tools.torch.torch_run', arguments))
    except (UserError, flags.Error) as e:
        sys.stderr.write(f'error: {e}\n')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
