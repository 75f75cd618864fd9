"""Masked language modelling on raw text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from xlmr_flax.data.corpus import text_rows
from xlmr_flax.data.encode import NO_LABELS, Encoded
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import Key
from xlmr_flax.encoders.heads import MlmHead
from xlmr_flax.encoders.logical_axes import ROWS, WORDS
from xlmr_flax.kinds.base import ModelLike, Rows, TokenLoss
from xlmr_flax.tasks.base import SentenceExample, Task


class Mlm(TokenLoss):
    """Masked language modelling. Logits [B, T, V], or [B, M, V] at `Rows.positions`. It has no prediction file."""

    name = 'mlm'
    cuts = True
    pretraining = True
    architecture = 'ForMaskedLM'

    def encode(self, task: Task, examples: Sequence[SentenceExample], tokenizer: Tokenizer, max_length: int) -> Encoded:
        """Encodes texts; a long text becomes several rows, each with its own id."""
        tokens, ids = text_rows(tokenizer, examples, max_length)
        return Encoded(self.name, tokens, NO_LABELS, ids)

    def batch_shapes(self, rows: int, length: int, choices: int, predicted: int) -> dict[str, tuple[int, ...]]:
        whole, chosen = (rows, length), (rows, predicted)
        return {'ids': whole, 'segments': whole, 'positions': chosen, 'labels': chosen}

    def make_head(self, config: EncoderConfig, outputs: int, style: str, rngs: nnx.Rngs) -> nnx.Module:
        return MlmHead(config, rngs=rngs)

    def logits(self, model: ModelLike, params: dict[str, Any], head: Any, rows: Rows, key: Key | None) -> jax.Array:
        hidden = model.encode(params, rows.ids, rows.segments, key)
        if rows.positions is not None:
            hidden = jnp.take_along_axis(hidden, rows.positions[..., None], axis=1)  # [B, M, D]
        return model.place(head(hidden, params['encoder']['embeddings']['word']), ROWS, None, WORDS)

    def tensor_names(self, style: str) -> dict[tuple[str, ...], str]:
        return {
            ('dense', 'kernel'): 'lm_head.dense.weight',
            ('dense', 'bias'): 'lm_head.dense.bias',
            ('norm', 'scale'): 'lm_head.layer_norm.weight',
            ('norm', 'bias'): 'lm_head.layer_norm.bias',
            ('bias',): 'lm_head.bias',
        }
