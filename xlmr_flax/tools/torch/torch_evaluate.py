"""Zero-shot evaluation of a PyTorch model: forward passes of transformers, with our readers, files and scorers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xlmr_flax.config import CLS, LABSE
from xlmr_flax.data.batches import eval_batches, pass_tokens, row_lengths
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.eval.retrieval import retrieval_layer
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.tools.torch.torch_modules import MultiTask, autocast_to

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TorchEvaluator(Evaluator):
    """An Evaluator that runs `torch_model`, which is in eval mode; `params` is ignored."""

    torch_model: MultiTask | None = None

    def _head_outputs(
        self, name: str, spec: HeadSpec, tokens: Ragged, tick: Callable[[int], None]
    ) -> np.ndarray | list[np.ndarray]:
        assert self.torch_model is not None
        kind, model = kind_of(spec), self.torch_model

        def forward(ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
            if kind.stacked:  # each row is one choice of an example: [B, T] -> [B, 1, T] -> [B, 1]
                return model(name, ids[:, None], segments[:, None])
            logits = model(name, ids, segments)
            return logits.argmax(-1) if kind.best_only else logits

        out = self._rows(forward, tokens, row_lengths(self.max_length, self.lengths), tick)
        if kind.by_token:
            return [row[: int(n)] for row, n in zip(out, tokens.lengths, strict=True)]
        return np.stack(out)

    def _embed(self, task: str, tokens: Ragged, tick: Callable[[int], None], out: Path | None = None) -> np.ndarray:
        assert self.torch_model is not None
        encoder = self.torch_model.encoder
        pooling = self.evaluation.pooling
        layer = retrieval_layer(self.model.config, self.evaluation.layer_of(task), pooling)

        def forward(ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
            states = encoder(input_ids=ids, attention_mask=segments, output_hidden_states=True).hidden_states
            hidden = states[-1 if layer is None else layer].float()
            if pooling == LABSE:
                return encoder.pooler(hidden)
            if pooling == CLS:
                return hidden[:, 0]
            mask = segments[..., None].float()
            return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)

        vectors = np.stack(self._rows(forward, tokens, row_lengths(self._sentence_length), tick))
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            np.save(out, vectors)
        return vectors

    def _rows(
        self, forward: Forward, tokens: Ragged, lengths: tuple[int, ...], tick: Callable[[int], None]
    ) -> list[np.ndarray]:
        """Runs `forward` on all rows; returns the output of every row, in row order."""
        assert self.torch_model is not None
        device = next(self.torch_model.parameters()).device
        outputs: list[np.ndarray] = [np.zeros(0)] * len(tokens)
        size = pass_tokens(self.evaluation.batch_tokens, device.type)
        for rows, batch in eval_batches(tokens, lengths, size, self.tokenizer.pad):
            ids, segments = (torch.from_numpy(batch[k]).long().to(device) for k in ('ids', 'segments'))
            real = segments.any(1)  # the last batch is padded with empty rows
            with torch.inference_mode(), autocast_to(self.model.dtype, device) or nullcontext():
                values = forward(ids[real], segments[real]).cpu().numpy()
            for row, value in zip(rows.tolist(), values, strict=True):
                outputs[row] = value
            tick(len(rows))
        return outputs
