"""transformers in PyTorch as its users run it: a training loop as Trainer's, and batched forward passes.

Trainer's loop is: a random order of the rows or one grouped by length (transformers' get_length_grouped_indices), a
collator that pads to the longest row of a batch, forward, backward, clipping by global norm, fused AdamW, the
schedule; bfloat16 by autocast; torch.compile where asked for. What Trainer does beside (logs, callbacks, its data
loader's Python) is left out, in torch's favour. Imports nothing of JAX.
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

MEGA_BATCHES = 50  # batches that are sorted together, as get_length_grouped_indices has it for large sets
ON_GPU = 8  # padded lengths are multiples of it, as transformers' examples do with mixed precision


def device_of(options: Options) -> torch.device:
    """Where the options say. Raises BenchError where torch has no GPU."""
    if options['device'] == 'gpu' and not torch.cuda.is_available():
        raise BenchError('torch has no GPU here: install a build of it with CUDA')
    return torch.device('cuda' if options['device'] == 'gpu' else 'cpu')


def device_facts(device: torch.device) -> dict[str, int]:
    """{'device_memory'}: peak bytes of torch's allocator; {} on a CPU."""
    return {'device_memory': torch.cuda.max_memory_allocated()} if device.type == 'cuda' else {}


def graphs() -> int:
    """How many graphs torch.compile has made so far. Its module is large: a process without it does not load it."""
    module = sys.modules.get('torch._dynamo.utils')
    return module.counters['stats']['unique_graphs'] if module else 0


class Training:
    """Blocks of a training. order: 'random' or 'grouped'; to_max: every row padded to max_length; share: of the rows in
    a block (every contestant sees all of them over a few blocks); compiled: by torch.compile.
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
        """Units of each step, pass after pass; what does not fill a batch is left out of a pass."""
        size, lengths = self.recipe.batch_size, self.rows.lengths.tolist()
        while True:
            if self.order == 'grouped':
                found = get_length_grouped_indices(lengths, size, MEGA_BATCHES, self.generator)
            else:
                found = torch.randperm(len(lengths), generator=self.generator).tolist()
            whole = len(found) // size * size
            yield from np.asarray(found[:whole]).reshape(-1, size)

    def _tensors(self, units: np.ndarray) -> dict[str, torch.Tensor]:
        longest = int(self.rows.lengths[units].max())
        multiple = ON_GPU if self.device.type == 'cuda' else 1
        length = self.about['max_length'] if self.to_max else min(-(-longest // multiple) * multiple, 512)
        found = {k: torch.from_numpy(v) for k, v in self.rows.batch(units, length).items()}
        if self.device.type == 'cuda':
            found = {k: v.pin_memory().to(self.device, non_blocking=True) for k, v in found.items()}
        return found

    def _step(self, units: np.ndarray, optimizer: Any, scheduler: Any) -> torch.Tensor:
        parts = list(pieces(self.about['head'], self._tensors(units), self.recipe.accumulation))
        spec = self.recipe.optimizer
        loss = train_step(self.model, parts, optimizer, spec, self.autocast, self.run)['loss']
        scheduler.step()
        return loss

    def check(self) -> np.ndarray:
        """Losses float64 [K] of K steps without dropout on the rows that ours has in its first ones."""
        spec = OptimizerSpec(**{**self.about['recipe']['optimizer'], **self.about['check']})
        optimizer = make_optimizer(self.model, spec)
        drawn = [np.asarray(units) for units in self.about['check_units']]
        scheduler = learning_rates(optimizer, spec, len(drawn))
        self.model.eval()  # no dropout, attention's among it: transformers asks module.training
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
            # Every shape once: a block is shorter than a pass where rows are padded far.
            for _ in range(len(self.rows) // self.recipe.batch_size if self.compiled else 0):
                self._step(next(self.batches), self.optimizer, self.scheduler)
        before, flops, loss = graphs(), 0.0, torch.zeros(())
        for _ in range(self.steps):
            units = next(self.batches)
            loss = self._step(units, self.optimizer, self.scheduler)
            flops += sum(self.about['flops'][u] for u in units)
        if not bool(torch.isfinite(loss)):  # the value is asked for here: the block is computed
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
    """Blocks of forward passes over the rows of several languages. order: 'file' or 'sorted' (by length, so that a
    batch has rows of about one length); to_max: every row padded to max_length; share: of the batches in a block.
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
        found = self.model.encoder(input_ids=ids, attention_mask=segments, output_hidden_states=layer is not None)
        hidden = (found.last_hidden_state if layer is None else found.hidden_states[layer]).float()
        mask = segments[..., None].float()
        return (hidden * mask).sum(1) / mask.sum(1)

    def _batches(self) -> Iterator[tuple[str, np.ndarray]]:
        """(language, units) of every batch of one pass."""
        for code, rows in self.sets.items():
            order = np.argsort(-rows.lengths, kind='stable') if self.order == 'sorted' else np.arange(len(rows))
            size = self.about['batch']
            yield from ((code, order[start : start + size]) for start in range(0, len(order), size))

    def _outputs(self, rows: Rows, units: np.ndarray) -> torch.Tensor:
        multiple, longest = ON_GPU if self.device.type == 'cuda' else 1, int(rows.lengths[units].max())
        length = self.about['max_length'] if self.to_max else min(-(-longest // multiple) * multiple, 512)
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
        for output in outputs:  # read in the end, so that a device need not wait for the next batch
            output.cpu()
        self.facts = {'units': units, 'flops': flops, 'compiled': graphs() - before, **device_facts(self.device)}
        return outcome

    def _spread(self) -> Iterator[tuple[str, np.ndarray]]:
        """The batches of a pass, those of a language apart: a part of them has long rows and short ones."""
        found = list(self._batches())
        parts = max(1, round(1 / self.share))
        return iter([batch for first in range(parts) for batch in found[first::parts]])

    def _all(self) -> dict[str, np.ndarray]:
        """Every language's outputs in row order, as `check` compares them: [units, ...], padded places 0."""
        found: dict[str, list[Any]] = {code: [None] * len(rows) for code, rows in self.sets.items()}
        for code, units in self._batches():
            rows = self.sets[code]
            out = self._outputs(rows, units).float().cpu().numpy()
            for unit, value in zip(units.tolist(), out, strict=True):
                found[code][unit] = (value[: int(rows.lengths[unit])] if self.about['by_token'] else value).ravel()
        return {code: np.concatenate(values) for code, values in found.items()}
