"""PyTorch implementations with transformers' models: a training loop like that of Trainer, and batched forward passes.

The loop does what Trainer does: rows in random order or grouped by length (transformers' get_length_grouped_indices), a
collator that pads to the longest row of a batch, forward pass, backward pass, clipping by global norm, fused AdamW and
the schedule; bfloat16 by autocast; torch.compile if asked for. The rest of Trainer's work (logs, callbacks, the Python
code of its data loader) is left out, in torch's favour. This module does not import JAX.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from xlmr_flax.config import OptimizerSpec, Recipe
from xlmr_flax.tools.bench.memory import forget_peak
from xlmr_flax.tools.bench.rows import Rows, read_rows
from xlmr_flax.tools.bench.subject import BenchError, Options
from xlmr_flax.tools.torch.torch_modules import (
    MultiTask,
    autocast_to,
    learning_rates,
    make_optimizer,
    open_start,
    pieces,
    train_step,
)

MEGA_BATCHES = 50  # number of batches sorted together: get_length_grouped_indices' default for large sets
GPU_MULTIPLE = 8  # on a GPU, padded lengths are multiples of 8, as in transformers' examples with mixed precision


def padded_to(longest: int, most: int, device: torch.device) -> int:
    """Tokens to which a batch is padded: its longest row, on a GPU rounded up to a multiple of 8, at most `most`."""
    multiple = GPU_MULTIPLE if device.type == 'cuda' else 1
    return min(-(-longest // multiple) * multiple, most)


def device_of(options: Options) -> torch.device:
    """The torch device that the options name. Raises BenchError if torch has no GPU."""
    if options['device'] == 'gpu' and not torch.cuda.is_available():
        raise BenchError('torch has no GPU here: install a build of it with CUDA')
    return torch.device('cuda' if options['device'] == 'gpu' else 'cpu')


def device_facts(device: torch.device) -> dict[str, int]:
    """{'device_memory': peak bytes of torch's allocator}; {} on a CPU."""
    return {'device_memory': torch.cuda.max_memory_allocated()} if device.type == 'cuda' else {}


def graphs() -> int:
    """Number of graphs that torch.compile has made so far. Does not import torch._dynamo, which is large."""
    module = sys.modules.get('torch._dynamo.utils')
    return module.counters['stats']['unique_graphs'] if module else 0


class Training:
    """Implementation of the training benchmark: each call trains one block of steps.

    order: 'random' or 'grouped' (by length). to_max: pad every row to max_length. share: share of all rows that a block
    has (every implementation sees all rows within a few blocks). compiled: use torch.compile.
    """

    def __init__(self, options: Options, folder: Path, order: str, *, to_max: bool, share: float, compiled: bool):
        about = json.loads((folder / 'about.json').read_text(encoding='utf-8'))
        self.about, self.order, self.to_max, self.facts = about, order, to_max, {}
        self.rows, self.device = read_rows(folder / 'train.npz'), device_of(options)
        self.recipe = Recipe(**{**about['recipe'], 'optimizer': OptimizerSpec(**about['recipe']['optimizer'])})
        self.model: MultiTask = open_start(folder / 'start', pooler=False).to(self.device)
        self.run: Any = torch.compile(self.model) if compiled else self.model
        self.autocast = autocast_to(about['dtype'], self.device)
        self.generator = torch.Generator().manual_seed(0)
        self.batches = self._batches()
        self.steps = max(1, round(share * (len(self.rows) // self.recipe.batch_size)))
        self.compiled = compiled
        self.checked = False

    def _batches(self) -> Iterator[np.ndarray]:
        """Yields the units of each step, epoch after epoch; the incomplete last batch of an epoch is dropped."""
        size, lengths = self.recipe.batch_size, self.rows.lengths.tolist()
        while True:
            if self.order == 'grouped':
                order = get_length_grouped_indices(lengths, size, MEGA_BATCHES, self.generator)
            else:
                order = torch.randperm(len(lengths), generator=self.generator).tolist()
            whole = len(order) // size * size
            yield from np.asarray(order[:whole]).reshape(-1, size)

    def _tensors(self, units: np.ndarray) -> dict[str, torch.Tensor]:
        longest = int(self.rows.lengths[units].max())
        most = self.about['max_length']
        length = most if self.to_max else padded_to(longest, most, self.device)
        tensors = {k: torch.from_numpy(v) for k, v in self.rows.batch(units, length).items()}
        if self.device.type == 'cuda':
            tensors = {k: v.pin_memory().to(self.device, non_blocking=True) for k, v in tensors.items()}
        return tensors

    def _step(self, units: np.ndarray, optimizer: Any, scheduler: Any) -> torch.Tensor:
        parts = list(pieces(self.about['head'], self._tensors(units), self.recipe.accumulation))
        spec = self.recipe.optimizer
        loss = train_step(self.model, parts, optimizer, spec, self.autocast, self.run)['loss']
        scheduler.step()
        return loss

    def check(self) -> np.ndarray:
        """Losses float64 [K] of K steps without dropout, on the rows of our first K steps."""
        spec = OptimizerSpec(**{**self.about['recipe']['optimizer'], **self.about['check']})
        optimizer = make_optimizer(self.model, spec)
        drawn = [np.asarray(units) for units in self.about['check_units']]
        scheduler = learning_rates(optimizer, spec, len(drawn))
        self.model.eval()  # no dropout, also in attention, where transformers reads module.training
        losses = [float(self._step(units, optimizer, scheduler)) for units in drawn]
        self.model.train()
        return np.asarray(losses)

    def __call__(self) -> dict[str, np.ndarray]:
        outcome: dict[str, np.ndarray] = {}
        if not self.checked:
            outcome, self.checked = {'losses': self.check()}, True
            spec = self.recipe.optimizer
            self.optimizer = make_optimizer(self.model, spec)
            self.scheduler = learning_rates(self.optimizer, spec, self.about['steps'])
            self._forget_peak()
            # Compiles every shape before timing: a block may be shorter than an epoch.
            for _ in range(len(self.rows) // self.recipe.batch_size if self.compiled else 0):
                self._step(next(self.batches), self.optimizer, self.scheduler)
        before, flops, loss = graphs(), 0.0, torch.zeros(())
        for _ in range(self.steps):
            units = next(self.batches)
            loss = self._step(units, self.optimizer, self.scheduler)
            flops += sum(self.about['flops'][u] for u in units)
        if not bool(torch.isfinite(loss)):  # reading the value waits until the block has been computed
            raise BenchError(f'the loss is {float(loss)}')
        units = self.steps * self.recipe.batch_size
        self.facts = {'units': units, 'flops': flops, 'compiled': graphs() - before, **device_facts(self.device)}
        return outcome

    def _forget_peak(self) -> None:
        forget_peak()
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


class Forward:
    """Implementation of the evaluation benchmark: each call runs one block of forward passes over several languages.

    order: 'file' or 'sorted' (by length, so that the rows of a batch have similar lengths). to_max: pad every row to
    max_length. share: share of all batches that a block has.
    """

    def __init__(self, options: Options, folder: Path, order: str, *, to_max: bool, share: float, compiled: bool):
        self.about = json.loads((folder / 'about.json').read_text(encoding='utf-8'))
        self.order, self.to_max, self.share, self.facts = order, to_max, share, {}
        self.device = device_of(options)
        self.sets = {code: read_rows(folder / f'{code}.npz') for code in self.about['languages']}
        model = open_start(folder / 'start', pooler=False).to(self.device).eval()
        self.model, self.compiled = model, compiled
        self.run: Any = torch.compile(self._forward) if compiled else self._forward
        self.autocast = autocast_to(self.about['dtype'], self.device)
        self.queue: Iterator[tuple[str, np.ndarray]] = iter(())
        self.checked = False

    def _forward(self, ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        about = self.about
        if not about['embed']:
            return self.model(about['head'], ids, segments)
        layer: int | None = about['layer']
        outputs = self.model.encoder(input_ids=ids, attention_mask=segments, output_hidden_states=layer is not None)
        hidden = (outputs.last_hidden_state if layer is None else outputs.hidden_states[layer]).float()
        mask = segments[..., None].float()
        return (hidden * mask).sum(1) / mask.sum(1)

    def _batches(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (language, units) of every batch of one pass over the data."""
        for code, rows in self.sets.items():
            order = np.argsort(-rows.lengths, kind='stable') if self.order == 'sorted' else np.arange(len(rows))
            size = self.about['batch']
            yield from ((code, order[start : start + size]) for start in range(0, len(order), size))

    def _outputs(self, rows: Rows, units: np.ndarray) -> torch.Tensor:
        longest, most = int(rows.lengths[units].max()), self.about['max_length']
        length = most if self.to_max else padded_to(longest, most, self.device)
        batch = rows.batch(units, length)
        ids, segments = (torch.from_numpy(batch[k]).to(self.device) for k in ('ids', 'segments'))
        with torch.inference_mode(), self.autocast or nullcontext():
            return self.run(ids, segments)

    def __call__(self) -> dict[str, np.ndarray]:
        outcome: dict[str, np.ndarray] = {}
        if not self.checked:
            outcome, self.checked = self._all(), True
            forget_peak()
        total = sum(1 for _ in self._batches())
        before, units, flops, outputs = graphs(), 0, 0.0, []
        for _ in range(max(1, round(self.share * total))):
            found = next(self.queue, None)
            if found is None:
                self.queue = self._spread()
                found = next(self.queue)
            code, taken = found
            outputs.append(self._outputs(self.sets[code], taken))
            units += len(taken)
            flops += sum(self.about['flops'][code][u] for u in taken)
        for output in outputs:  # copied at the end, so that the device does not wait between batches
            output.cpu()
        self.facts = {'units': units, 'flops': flops, 'compiled': graphs() - before, **device_facts(self.device)}
        return outcome

    def _spread(self) -> Iterator[tuple[str, np.ndarray]]:
        """The batches of one pass in strided order, so that every block has long and short rows of every language."""
        batches = list(self._batches())
        parts = max(1, round(1 / self.share))
        return iter([batch for first in range(parts) for batch in batches[first::parts]])

    def _all(self) -> dict[str, np.ndarray]:
        """Outputs of every language in row order, as `check` compares them: flat arrays without padded positions."""
        results: dict[str, list[Any]] = {code: [None] * len(rows) for code, rows in self.sets.items()}
        for code, units in self._batches():
            rows = self.sets[code]
            out = self._outputs(rows, units).float().cpu().numpy()
            for unit, value in zip(units.tolist(), out, strict=True):
                results[code][unit] = (value[: int(rows.lengths[unit])] if self.about['by_token'] else value).ravel()
        return {code: np.concatenate(values) for code, values in results.items()}
