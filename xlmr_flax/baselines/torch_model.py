"""A run's model in PyTorch: transformers' XLM-R with the weights that our run starts from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from xlmr_flax.models import hf
from xlmr_flax.models.config import EncoderConfig, ModelError
from xlmr_flax.models.model import HeadSpec, Params


class HfClassifier(nn.Module):
    """XLMRobertaForSequenceClassification as it is: encoder.head='hf'."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        """ids, segments int64 [B, T] (segment 0 = padding) -> float32 logits [B, C]."""
        return self.model(input_ids=ids, attention_mask=segments).logits


class JiantClassifier(nn.Module):
    """The authors' head (encoder.head='jiant'): XLMRobertaModel's pooler, dropout, dense, tanh, dropout, linear."""

    def __init__(self, encoder: nn.Module, head: Params, rate: float):
        super().__init__()
        self.encoder, self.dropout = encoder, nn.Dropout(rate)
        self.dense, self.out = _linear(head['dense']), _linear(head['out'])

    def forward(self, ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        """As HfClassifier.forward."""
        pooled = self.encoder(input_ids=ids, attention_mask=segments).pooler_output
        return self.out(self.dropout(torch.tanh(self.dense(self.dropout(pooled)))))


def _linear(values: Params) -> nn.Linear:
    kernel, bias = np.array(values['kernel']), np.array(values['bias'])  # [in, out], [out]; copies, since torch writes
    layer = nn.Linear(*kernel.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def torch_classifier(
    config: EncoderConfig,
    params: Params,
    tokenizer: Path,
    head: tuple[str, HeadSpec],
    style: str,
    labels: Sequence[str],
) -> nn.Module:
    """The model of a 'pair' head: `params` exported by models.hf.save and opened by transformers.

    head: (name in params['heads'], spec). style: 'hf' or 'jiant'. Raises ModelError where transformers would fill in a
    weight of its own, or leave one of ours out: the two runs would not start from the same model.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / 'start'
        if style == 'hf':
            hf.save(out, config, params, tokenizer, head=head, style=style, labels=labels)
            return HfClassifier(_open(transformers.XLMRobertaForSequenceClassification, out))
        hf.save(out, config, params, tokenizer)
        encoder = _open(transformers.XLMRobertaModel, out)
    return JiantClassifier(encoder, params['heads'][head[0]], config.dropout)


def _open(cls: Any, directory: Path) -> nn.Module:
    model, info = cls.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    wrong = [*info['missing_keys'], *info['unexpected_keys'], *info['mismatched_keys']]
    if wrong:
        names = ', '.join(map(str, wrong[:5]))
        raise ModelError(f'{cls.__name__} does not take the exported weights as they are: {names}')
    return model


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """AdamW's two groups, as in transformers' examples and jiant: biases and layer norms are not decayed."""
    free = [p for name, p in model.named_parameters() if name.endswith('bias') or 'LayerNorm' in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith('bias') or 'LayerNorm' in name)]
    return [{'params': decayed, 'weight_decay': weight_decay}, {'params': free, 'weight_decay': 0.0}]
