"""Benchmark of training on one task: our loop and input pipeline against a loop like that of transformers' Trainer.

Every implementation takes the same number of examples a step, from the same rows, with the same weights and recipe.
Before the timed rounds, each trains the first steps without dropout on the same rows, and the losses are compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlmr_flax.tools.bench import settings
from xlmr_flax.tools.bench.memory import forget_peak
from xlmr_flax.tools.bench.paced import Paced
from xlmr_flax.tools.bench.subject import BenchError, Implementation, Options, Run

if TYPE_CHECKING:
    from xlmr_flax.encoders.config import EncoderConfig

UNIT = 'examples'
CHECKED = 3  # steps whose losses are compared
NEAR = {'float32': 2e-3, 'bfloat16': 5e-2}  # tolerance of a loss near 1; a wrong mask or a missing update exceeds it
environment = settings.environment


def title(options: Options) -> str:
    config, recipe = options['config'], options['config']['recipe']
    what = f'{recipe["batch_size"]} examples a step, '
    what += f'{"each of" if options.get("full_rows") else "at most"} {recipe["max_length"]} tokens'
    return (
        f'Training on {options["task"]}: {config["encoder"]["source"]}, {what}, dropout '
        f'{_rate(config)}, {config["encoder"]["dtype"]}, {options["device_name"]}'
    )


def _rate(config: Mapping[str, Any]) -> str:
    rate = config['encoder']['dropout']
    return f'{rate:g}' if rate >= 0 else "the encoder's own"


def inputs(options: Options, folder: Path) -> None:
    """Writes start/ and train.npz for torch, and about.json with the rows of the first steps and each row's FLOPs."""
    from xlmr_flax.config import to_dict
    from xlmr_flax.data.batches import units_at
    from xlmr_flax.experiment.plan.arms import heads_of
    from xlmr_flax.experiment.training import Training, initial_params
    from xlmr_flax.tools.bench.rows import write_rows
    from xlmr_flax.tools.torch.torch_model import TRAINED, export_start
    from xlmr_flax.train.vocabulary import ActiveRows

    if options.get('full_rows'):
        settings.write_full_rows(options, folder)
    config = settings.paced(settings.located(options, folder), 1)
    setting, run = settings.open_training(config, folder / 'inputs', lambda record: None)
    training = Training(setting, run)
    (dataset,), (data,) = training.datasets, training.data
    if dataset.task.kind not in TRAINED:
        raise BenchError(
            f'task {dataset.task.name!r} is of kind {dataset.task.kind!r}; torch trains {", ".join(TRAINED)}'
        )
    size = training.recipe.batch_size
    if len(data) < size:
        raise BenchError(f'{len(data)} rows of {dataset.task.name!r} do not fill a batch of {size}')
    heads, params = heads_of(training.datasets), initial_params(setting, run)
    export_start(folder / 'start', setting.model.config, params, setting.tokenizer.path, heads, setting.model.style)
    write_rows(folder / 'train.npz', data, setting.tokenizer.pad)
    (stream,) = training.training_data(ActiveRows.all(setting.model.config.vocab_size)).streams
    text = {
        'head': next(iter(heads)),
        'dtype': setting.model.dtype,
        'max_length': dataset.max_length,
        'recipe': to_dict(training.recipe),
        'steps': settings.FOREVER,
        'check': settings.CHECK,
        'check_units': [units_at(step, len(data), size, stream.seed).tolist() for step in range(CHECKED)],
        'flops': unit_flops(setting.model.config, data.tokens.lengths, data.group, 3).tolist(),
        'block': len(data) // size,
    }
    (folder / 'about.json').write_text(json.dumps(text), encoding='utf-8')


def unit_flops(shape: EncoderConfig, lengths: np.ndarray, group: int, passes: int) -> np.ndarray:
    """float64 [units]: model FLOPs of each unit's real tokens. passes: 1 = forward pass, 3 = forward and backward."""
    from xlmr_flax.experiment.plan.cost import forward_flops

    each = np.asarray([passes * forward_flops(shape, float(n), float(n)) for n in lengths])
    return each.reshape(-1, group).sum(1)


class Ours:
    """Our implementation: each call trains one block, which is one epoch."""

    def __init__(self, options: Options, folder: Path):
        self.options, self.folder, self.facts = options, folder, {}
        self.about = json.loads((folder / 'about.json').read_text(encoding='utf-8'))
        settings.require_device(options)
        self.compilations = settings.count_compilations()
        self.training: Paced | None = None

    def _start(self, steps: int, *, check: bool) -> Paced:
        from xlmr_flax.experiment.training import train_run

        config = settings.paced(settings.located(self.options, self.folder), steps, check=check)
        where = self.folder / ('check' if check else 'ours')

        def work(log: Any) -> None:
            train_run(*settings.open_training(config, where, log))

        return Paced(work)

    def __call__(self) -> dict[str, np.ndarray]:
        outcome: dict[str, np.ndarray] = {}
        if self.training is None:
            check = self._start(CHECKED, check=True)
            outcome = {'losses': np.asarray([check()['loss'] for _ in range(CHECKED)])}
            check.stop()
            del check
            forget_peak()
            self.training = self._start(self.about['block'], check=False)
        before = self.compilations()
        self.training()
        units = self.about['block'] * self.about['recipe']['batch_size']
        flops = sum(self.about['flops']) * units / len(self.about['flops'])
        compiled = self.compilations() - before
        self.facts = {'units': units, 'flops': flops, 'compiled': compiled, **settings.device_facts()}
        return outcome


def _torch(order: str, options: Options, folder: Path, *, to_max: bool, share: float, compiled: bool = False) -> Run:
    from xlmr_flax.tools.bench.torch_loop import Training

    return Training(options, folder, order, to_max=to_max, share=share, compiled=compiled)


def compile_refusal(options: Options) -> str:
    """Why torch.compile is left out, '' = it takes part. On a CPU it compiles for a minute and is no faster."""
    return '' if options['device'] == 'gpu' or options.get('compile') else 'on a CPU only with --compile'


IMPLEMENTATIONS: dict[str, Implementation] = {
    'ours': Implementation(Ours),
    'torch-grouped': Implementation(partial(_torch, 'grouped', to_max=False, share=1.0), 'torch'),
    'torch-dynamic': Implementation(partial(_torch, 'random', to_max=False, share=0.5), 'torch'),
    'torch-padded': Implementation(partial(_torch, 'random', to_max=True, share=0.25), 'torch'),
    'torch-compiled': Implementation(
        partial(_torch, 'grouped', to_max=False, share=1.0, compiled=True), 'torch', compile_refusal
    ),
}


def check(options: Options, folder: Path, outcomes: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Compares every implementation's losses without dropout with ours, step by step. Raises BenchError."""
    del folder
    ours = next(iter(outcomes.values()))['losses']
    near, furthest = NEAR[options['config']['encoder']['dtype']], 0.0
    for name, outcome in outcomes.items():
        apart = float(np.abs(outcome['losses'] - ours).max())
        if not apart <= near * max(1.0, float(ours.max())):
            losses = [', '.join(f'{loss:.5f}' for loss in each) for each in (ours, outcome['losses'])]
            raise BenchError(f'{name} computes other losses: {losses[1]}, ours {losses[0]}')
        furthest = max(furthest, apart)
    shown = ', '.join(f'{loss:.4f}' for loss in ours)
    return (
        f'Without dropout, the first {len(ours)} steps on the same rows have the same losses ({shown}; at most '
        f'{furthest:.1e} apart). Then dropout is on.'
    )
