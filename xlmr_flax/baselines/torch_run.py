"""usage: python -m xlmr_flax.baselines.torch_run --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

The same experiment in PyTorch, to compare with: the starting weights, batches, recipe and scorer are those of
`xlmr-flax run` with this config; model, gradients, clipping, AdamW, learning rate and dropout are transformers' and
torch's. DIR must hold no run. Writes DIR/metrics.jsonl (every step), DIR/results.jsonl (encoder 'NAME (torch)') and
DIR/predictions/. The config must ask for one seed, the arm 'none' and one classification target. There is no dev
evaluation: the last weights are scored. Runs on the GPU that torch finds, else on the CPU.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from absl import flags
from ml_collections import ConfigDict, config_flags
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from xlmr_flax.baselines.torch_model import parameter_groups, torch_classifier
from xlmr_flax.config import Config, ConfigError, OptimizerSpec, Recipe, parse
from xlmr_flax.data.batches import eval_batches, row_lengths, train_batch
from xlmr_flax.data.encode import Encoded, encode
from xlmr_flax.data.sources import DataError, read_split
from xlmr_flax.data.tokenize import TokenizerError
from xlmr_flax.eval import files
from xlmr_flax.eval.score import score_files
from xlmr_flax.experiment.phase import Setting, head_of, initial_params
from xlmr_flax.experiment.plan import NONE, Run, evaluation_languages, evaluation_split
from xlmr_flax.experiment.rows import result_rows
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.models.config import ModelError
from xlmr_flax.report.progress import Line
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import TaskError
from xlmr_flax.train.loop import total_steps

SUFFIX = ' (torch)'


def check(config: Config) -> None:
    """Raises ConfigError, naming the field, for what the baseline does not do."""
    if len(config.seeds) != 1:
        raise ConfigError(f'seeds: the PyTorch baseline runs one seed, not {config.seeds!r}')
    if config.intermediate != (NONE,):
        raise ConfigError(f"intermediate: the PyTorch baseline runs the arm 'none' alone, not {config.intermediate!r}")
    if len(config.targets) != 1 or get_task(config.targets[0]).kind != 'pair':
        raise ConfigError(f'targets: the PyTorch baseline runs one classification task, not {config.targets!r}')
    if config.encoder.dtype != 'float32':
        raise ConfigError(f'encoder.dtype: the PyTorch baseline computes in float32, not {config.encoder.dtype}')
    recipe = config.recipe_for(config.targets[0])
    if recipe.eval_every and (recipe.keep == 'best' or recipe.patience):
        raise ConfigError(
            f'recipe.eval_every {recipe.eval_every} with keep {recipe.keep!r} and patience {recipe.patience}: the '
            f"PyTorch baseline has no dev evaluation; compare with eval_every=0, or with keep='last' and patience=0"
        )


def run_baseline(config: Config, workdir: Path, command: str = '') -> list[dict[str, Any]]:
    """Trains and scores in an empty workdir; returns the result rows. Raises ConfigError as `check`."""
    check(config)
    runner = Runner(dataclasses.replace(config, tensorboard=False), workdir, command)
    setting, (run,) = runner.setting, runner.plan
    for path in (setting.workdir.metrics_path, setting.workdir.results_path):
        if path.exists():
            raise ConfigError(f'{workdir}: holds a run already ({path.name}); the baseline takes a folder of its own')
    setting.workdir.save_config(config, command)
    torch.manual_seed(run.seed)
    task = get_task(run.task)
    model = torch_classifier(
        setting.model.config,
        initial_params(setting, run),
        setting.tokenizer.path,
        head_of(run, task),
        setting.model.style,
        task.labels,
    )
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    steps = _train(setting, run, model)
    return _evaluate(setting, run, model, steps, command)


def _encoded(setting: Setting, run: Run, examples: Sequence[Any], task: str) -> Encoded:
    assert run.recipe is not None
    return encode(get_task(task), examples, setting.tokenizer, run.recipe.max_length)


def learning_rates(optimizer: torch.optim.Optimizer, spec: OptimizerSpec, steps: int) -> LRScheduler:
    """transformers' schedule of that name: linear warm-up, then linear decay to 0 at `steps`, or constant."""
    warmup = spec.warmup_steps if spec.warmup_steps >= 0 else round(spec.warmup * steps)
    if spec.schedule == 'linear':
        return transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps)
    return transformers.get_constant_schedule_with_warmup(optimizer, warmup)


def _train(setting: Setting, run: Run, model: nn.Module) -> int:
    """Trains in place, logs every step; returns the number of steps."""
    recipe, config = run.recipe, setting.config
    assert recipe is not None
    spec, pad = recipe.optimizer, setting.tokenizer.pad
    setting.tokenizer.check_length(recipe.max_length, setting.model.config.max_length)
    examples = read_split(get_task(run.task), 'en', 'train', config.data_root, recipe.max_train or None)
    data = _encoded(setting, run, examples, run.task)
    steps, lengths = total_steps(recipe, len(data)), row_lengths(recipe.max_length, recipe.lengths)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, spec.weight_decay),
        lr=spec.learning_rate,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        fused=True,
    )
    scheduler = learning_rates(optimizer, spec, steps)
    line = Line(f'train {run.name}{SUFFIX}')
    names: dict[str, Any] = {'run': run.name, 'intermediate': run.intermediate, 'target': run.target}
    names |= {'task': run.task, 'seed': run.seed}
    model.train()
    since = time.monotonic()
    for step in range(steps):
        batch = train_batch(data, step, recipe.batch_size, run.seed, lengths, pad)
        rate = scheduler.get_last_lr()[0]
        metrics = _step(model, batch, optimizer, recipe)
        scheduler.step()
        now = time.monotonic()
        speed, since = recipe.batch_size / max(now - since, 1e-9), now
        setting.log({**names, 'step': step + 1, **metrics, 'learning_rate': rate, 'examples_per_s': speed})
        line(step + 1, steps, (step + 1) * recipe.batch_size, loss=metrics['loss'])
    line.close(f'{steps} steps')
    return steps


def _step(
    model: nn.Module, batch: Mapping[str, np.ndarray], optimizer: torch.optim.Optimizer, recipe: Recipe
) -> dict[str, float]:
    """One optimizer step: the mean loss of the batch, in micro-batches where the recipe says so."""
    spec, total = recipe.optimizer, len(batch['label'])
    limit = spec.clip_norm if spec.clip_norm > 0 else math.inf
    loss_sum = right = 0.0
    optimizer.zero_grad()
    for rows in np.split(np.arange(total), recipe.accumulation):
        ids, segments, label = (_tensor(batch[name][rows], model) for name in ('ids', 'segments', 'label'))
        logits = model(ids, segments)
        loss = nn.functional.cross_entropy(logits, label, reduction='sum') / total
        loss.backward()
        if recipe.accumulation > 1 and spec.clip_per == 'micro_batch':
            nn.utils.clip_grad_norm_(model.parameters(), limit)
        loss_sum += float(loss.detach())
        right += float((logits.detach().argmax(-1) == label).sum())
    norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
    optimizer.step()
    return {'loss': loss_sum, 'accuracy': right / total, 'grad_norm': float(norm)}


def _tensor(array: np.ndarray, model: nn.Module) -> torch.Tensor:
    return torch.from_numpy(array).long().to(next(model.parameters()).device)


def _predict(setting: Setting, run: Run, model: nn.Module, data: Encoded) -> np.ndarray:
    """Label numbers int64 [n] in row order, computed in the batches of our evaluation."""
    assert run.recipe is not None
    found = np.empty(len(data), np.int64)
    lengths, size = row_lengths(run.recipe.max_length), setting.config.evaluation.batch_tokens
    with torch.inference_mode():
        for rows, batch in eval_batches(data.tokens, lengths, size, setting.tokenizer.pad):
            logits = model(_tensor(batch['ids'], model), _tensor(batch['segments'], model))
            found[rows] = logits.argmax(-1).cpu().numpy()[: len(rows)]
    return found


def _evaluate(setting: Setting, run: Run, model: nn.Module, steps: int, command: str) -> list[dict[str, Any]]:
    """Predicts, writes the benchmark's files and scores them, in every language of the target."""
    config, workdir, task = setting.config, setting.workdir, get_task(run.target)
    languages, split = evaluation_languages(config, run.target), evaluation_split(config, run.target)
    source = dataclasses.replace(setting.source, name=setting.source.name + SUFFIX)
    line = Line(f'evaluate {run.name}{SUFFIX}', 'languages')
    rows: list[dict[str, Any]] = []
    model.eval()
    for number, language in enumerate(languages, 1):
        examples = read_split(task, language, split, config.data_root, config.evaluation.max_examples or None)
        found = _predict(setting, run, model, _encoded(setting, run, examples, run.target))
        path = files.prediction_path(workdir.predictions(run), task, language, split)
        files.write_labels(path, [task.labels[i] for i in found])
        metrics = score_files(task, language, path, examples)
        rows += result_rows(config, source, run, task, language, split, metrics, len(examples), steps, command)
        workdir.write_results(rows)
        line(number, len(languages), number)
    line.close(f'{len(languages)} languages')
    return rows


def define_flags(values: flags.FlagValues) -> None:
    config_flags.DEFINE_config_file(
        'config',
        None,
        'Config file: a Python file with get_config().',
        flag_values=values,
        lock_config=False,
        accept_new_attributes=True,  # `parse` refuses unknown keys, and names the closest
    )
    flags.DEFINE_string('workdir', None, 'Folder to write to.', flag_values=values)


def load_arguments(values: flags.FlagValues, arguments: Sequence[str]) -> tuple[Config, Path]:
    """(config with its overrides, workdir). Raises ConfigError and flags.Error."""
    for name in (a.split('=', 1)[1] for a in arguments if a.startswith('--config=')):
        if not Path(name.partition(':')[0]).is_file():
            raise ConfigError(f'--config={name}: there is no such file')
    try:
        left = values(['torch_run', *arguments])
    except (KeyError, AttributeError, TypeError, ValueError) as e:  # ml_collections' override errors
        raise ConfigError(str(e.args[0]) if e.args else repr(e)) from None
    if len(left) > 1:
        raise ConfigError(f'unexpected argument {left[1]!r}; flags are written --name=value')
    if values.config is None or not values.workdir:
        raise ConfigError(f'{"--config=FILE" if values.config is None else "--workdir=DIR"} is missing')
    raw = values.config
    return parse(raw.to_dict() if isinstance(raw, ConfigDict) else raw), Path(values.workdir)


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
    try:
        config, workdir = load_arguments(values, arguments)
        run_baseline(config, workdir, f'python -m xlmr_flax.baselines.torch_run {shlex.join(arguments)}')
    except (ConfigError, DataError, ModelError, TaskError, TokenizerError, flags.Error) as e:
        sys.stderr.write(f'error: {e}\n')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
