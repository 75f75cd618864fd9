"""transformers' encoder with our heads and losses, and one optimizer step, in PyTorch.

This module does not import JAX, so that a process that measures torch loads only torch. A start is a folder that
`torch_model.export_start` writes: encoder/ (a directory of transformers), a .safetensors file for each head,
heads.json, which describes the heads, and pooler.safetensors where transformers' encoder has no pooler.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.data.labels import IGNORED
from xlmr_flax.util.errors import UserError

HEADS_FILE, POOLER_FILE = 'heads.json', 'pooler.safetensors'
_OUTSIDE = -1e30
Tensors = Mapping[str, torch.Tensor]


class StartError(UserError, ValueError):
    """transformers does not load these weights completely."""


class Pooler(nn.Module):
    """tanh(dense(first token)), for encoders that have no pooler in transformers."""

    def __init__(self, tensors: Tensors):
        super().__init__()
        outputs, inputs = tensors['pooler.dense.weight'].shape
        self.dense = nn.Linear(inputs, outputs)
        self.dense.load_state_dict({name.rpartition('.')[2]: value for name, value in tensors.items()})

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, T, D] -> [B, D]."""
        return torch.tanh(self.dense(hidden[:, 0]))


class TwoLayerHead(nn.Module):
    """Dropout, dense, tanh, dropout and linear, on the pooler's output (encoder.head='jiant', the head of the paper's
    authors) or on the mean over the tokens ('mean')."""

    def __init__(self, encoder: nn.Module, tensors: Tensors, rate: float, mean: bool):
        super().__init__()
        self.mean = mean
        self.encoder: Any = encoder
        self.dropout = nn.Dropout(rate)
        sizes = [tensors[f'{name}.weight'].shape for name in ('dense', 'out')]
        self.dense, self.out = (nn.Linear(inputs, outputs) for outputs, inputs in sizes)
        own = {name: value for name, value in self.state_dict().items() if not name.startswith('encoder.')}
        self.load_state_dict({**own, **tensors}, strict=False)

    def forward(self, input_ids: torch.Tensor, **masks: torch.Tensor) -> torch.Tensor:
        """int64 [B, T] or [B, N, T] -> float logits [B, C] or [B, N]. masks: attention_mask (0 = padding), and
        token_type_ids where the encoder has types."""
        shape = input_ids.shape
        flat = {name: value.reshape(-1, shape[-1]) for name, value in masks.items()}
        outputs = self.encoder(input_ids=input_ids.reshape(-1, shape[-1]), **flat)
        vector: Any = outputs.get('pooler_output')
        if self.mean:
            real = flat['attention_mask'][..., None].to(outputs.last_hidden_state.dtype)
            vector = (outputs.last_hidden_state * real).sum(1) / real.sum(1)
        elif vector is None:
            vector = self.encoder.pooler(outputs.last_hidden_state)
        out = self.out(self.dropout(torch.tanh(self.dense(self.dropout(vector)))))
        return out.reshape(shape[:2]) if len(shape) == 3 else out


class MultiTask(nn.Module):
    """One encoder with named heads; heads of style 'hf' are transformers' own classes."""

    def __init__(self, encoder: nn.Module, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.encoder: Any = encoder
        self._names = {name: f'head_{i}' for i, name in enumerate(heads)}  # torch does not allow dots in module names
        self.heads = nn.ModuleDict({self._names[name]: head for name, head in heads.items()})

    def head(self, name: str) -> nn.Module:
        """The module of a head; it contains the shared encoder."""
        return self.heads[self._names[name]]

    def forward(self, name: str, ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        """ids, segments int64 [B, T], choice [B, N, T] (segment 0 = padding) -> float32 logits: pair [B, C], choice
        [B, N], span [B, T, 2], tag [B, T, C].
        """
        inputs = {'input_ids': ids, 'attention_mask': segments}
        if getattr(self.encoder.config, 'type_vocab_size', 1) > 1:
            inputs['token_type_ids'] = token_types(ids, self.encoder.config.sep_token_id) * (segments > 0)
        out = self.head(name)(**inputs)
        if isinstance(out, torch.Tensor):
            return out.float()
        if 'start_logits' in out:
            return torch.stack([out.start_logits, out.end_logits], -1).float()
        return out.logits.float()


def token_types(ids: torch.Tensor, separator: int) -> torch.Tensor:
    """BERT's token types: 1 for the tokens after the first separator of a row, int64 in the shape of ids."""
    ends = (ids == separator).long()
    return (ends.cumsum(-1) - ends).clamp(max=1)


def open_start(folder: Path, pooler: bool = True) -> MultiTask:
    """Opens the model of a start folder, in float32. pooler: keep the pooler even if no head reads it.

    Raises StartError if transformers would initialise a missing weight or ignore one.
    """
    transformers.utils.logging.disable_progress_bar()
    read: Any = transformers.AutoModel.from_pretrained
    encoder, info = read(folder / 'encoder', dtype=torch.float32, output_loading_info=True)
    wrong = [*info['missing_keys'], *info['unexpected_keys'], *info['mismatched_keys']]
    if wrong:
        name = type(encoder).__name__
        raise StartError(f'{folder}: {name} does not take these weights: {", ".join(map(str, wrong[:5]))}')
    if (folder / POOLER_FILE).is_file():
        encoder.pooler = Pooler(load_file(folder / POOLER_FILE))
    heads, pooled = {}, False
    for name, about in json.loads((folder / HEADS_FILE).read_text(encoding='utf-8')).items():
        tensors = load_file(folder / about['file'])
        pooled |= about['pooler']
        heads[name] = _make_head(encoder, about, tensors)
    if not (pooler or pooled):
        encoder.pooler = None
    return MultiTask(encoder, heads)


def _make_head(encoder: Any, about: Mapping[str, Any], tensors: Tensors) -> nn.Module:
    if about['style'] != 'hf':
        return TwoLayerHead(encoder, tensors, about['dropout'], about['style'] == 'mean')
    config = copy.deepcopy(encoder.config)
    config.num_labels = about['num_labels']
    with torch.device('meta'):  # without memory: its encoder is replaced
        model = getattr(transformers, about['class'])(config)
    missing, unexpected = model.load_state_dict(dict(tensors), strict=False, assign=True)
    left = [name for name in missing if not name.startswith(f'{model.base_model_prefix}.')]
    if left or unexpected:
        raise StartError(f'{type(model).__name__} does not take this head: {", ".join([*left, *unexpected])}')
    setattr(model, model.base_model_prefix, encoder)
    return model


_LAYER = re.compile(r'\.layers?\.(\d+)\.')


def layer_factors(names: Collection[str], decay: float) -> dict[str, float]:
    """The factor of each parameter's learning rate, by its name in torch, as `train.optimizer.layer_factors` has it."""
    numbers = {name: int(found[1]) for name in names if (found := _LAYER.search(name))}
    layers = max(numbers.values(), default=-1) + 1
    # DeBERTa's encoder.LayerNorm belongs to its relative embeddings; XLM-R XL's is the norm after the last layer.
    below = 'embeddings.', *(('encoder.LayerNorm.',) if any('rel_embeddings' in name for name in names) else ())
    above = {name: layers - number for name, number in numbers.items()}
    above |= {name: layers + 1 for name in names if name not in numbers and any(part in name for part in below)}
    return {name: decay ** above.get(name, 0) for name in names}


def make_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    """Makes torch's fused AdamW, transformers' default optimizer ('adamw_torch_fused').

    A group for each weight decay and learning rate. Biases and layer norms have no weight decay, as in transformers'
    examples and jiant.
    """
    norms = {id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    named = dict(model.named_parameters())
    factors = layer_factors(named, spec.layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in named.items():
        decay = 0.0 if name.endswith('bias') or id(p) in norms else spec.weight_decay
        groups.setdefault((decay, factors[name]), []).append(p)
    return torch.optim.AdamW(
        [
            {'params': group, 'weight_decay': decay, 'lr': spec.learning_rate * factor}
            for (decay, factor), group in groups.items()
        ],
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        fused=True,
    )


def learning_rates(optimizer: torch.optim.Optimizer, spec: OptimizerSpec, steps: int) -> LRScheduler:
    """Makes transformers' learning-rate schedule: linear warm-up, then linear decay to 0 at `steps`, or constant."""
    warmup = spec.warmup_steps if spec.warmup_steps >= 0 else round(spec.warmup * steps)
    if spec.schedule == 'linear':
        return transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps)
    return transformers.get_constant_schedule_with_warmup(optimizer, warmup)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """logits [n, C], labels [n] -> (loss sum, number of correct predictions)."""
    loss = nn.functional.cross_entropy(logits, labels, reduction='sum', ignore_index=IGNORED)
    return loss, (logits.detach().argmax(-1) == labels).sum()


def loss_sums(logits: torch.Tensor, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss sum, correct sum) of a batch, counted as in kinds/.

    The targets of the batch decide: one label per example, one label per token, or start and end of a window. The
    softmax of start and end is over the window's tokens (transformers' own loss of ForQuestionAnswering includes
    padding).
    """
    if 'start' in batch:
        logits = logits.masked_fill(batch['segments'][..., None] == 0, _OUTSIDE)
        start = _cross_entropy(logits[..., 0], batch['start'])
        end = _cross_entropy(logits[..., 1], batch['end'])
        return (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    if 'labels' in batch:
        return _cross_entropy(logits.flatten(0, 1), batch['labels'].flatten())
    return _cross_entropy(logits, batch['label'])


def count(batch: Tensors) -> torch.Tensor | int:
    """Divisor of a batch's loss sum for the mean: number of labelled tokens, or of examples."""
    return (batch['labels'] != IGNORED).sum().clamp(min=1) if 'labels' in batch else len(batch['ids'])


class Piece(NamedTuple):
    """One micro-batch: the head's name, the tensors, and the divisor of the loss sum."""

    head: str
    batch: Tensors
    divisor: torch.Tensor | float


def pieces(head: str, batch: Tensors, accumulation: int) -> Iterator[Piece]:
    """Splits a batch into `accumulation` equal micro-batches whose losses sum to the batch's mean loss."""
    total = count(batch)
    for part in range(accumulation):
        size = len(batch['ids']) // accumulation
        yield Piece(head, {k: v[part * size : (part + 1) * size] for k, v in batch.items()}, total)


def train_step(
    model: MultiTask,
    parts: Sequence[Piece],
    optimizer: torch.optim.Optimizer,
    spec: OptimizerSpec,
    autocast: AbstractContextManager[Any] | None = None,
    forward: Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """One optimizer step; the caller steps the scheduler. forward: the model compiled by torch.compile, if any.

    Returns loss, accuracy and grad_norm (before clipping) as tensors, without waiting for the device.
    """
    limit = spec.clip_norm if spec.clip_norm > 0 else math.inf
    parameters = list(model.parameters())
    loss_sum, right_sum = torch.zeros((), device=parameters[0].device), torch.zeros((), device=parameters[0].device)
    optimizer.zero_grad(set_to_none=True)
    for head, batch, divisor in parts:
        with autocast or nullcontext():
            logits = (forward or model)(head, batch['ids'], batch['segments'])
        value, right = loss_sums(logits, batch)
        (value / divisor).backward()
        if len(parts) > 1 and spec.clip_per == 'micro_batch':
            nn.utils.clip_grad_norm_(parameters, limit)
        loss_sum, right_sum = loss_sum + value.detach() / divisor, right_sum + right / divisor
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    optimizer.step()
    return {'loss': loss_sum, 'accuracy': right_sum, 'grad_norm': norm}


def autocast_to(dtype: str, device: torch.device | str) -> AbstractContextManager[Any] | None:
    """torch's autocast for a compute dtype, as Trainer's bf16=True; None for float32."""
    if dtype == 'float32':
        return None
    return torch.autocast(torch.device(device).type, dtype=getattr(torch, dtype))
