"""BERT encoders (Devlin et al. 2019) with XLM-R's tokenizer, such as multilingual-e5, loaded into XLM-R's module.

BERT and XLM-R compute the same function. They differ in these points:
- BERT's positions start at 0; XLM-R's position table has two more rows before the first position.
- Only the first token type is used, because each row is one text.
- The default epsilon of layer norm is 1e-12.
- The special ids are the tokenizer's; they may differ from XLM-R's, because BERT's positions do not depend on them.
After loading, the model is an XLM-R: `ckpt:` directories and exports have XLM-R's format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from xlmr_flax.encoders.config import SIZES, EncoderConfig
from xlmr_flax.encoders.family import GetTensor, Params
from xlmr_flax.encoders.xlm_roberta import POSITIONS, XlmRoberta

OFFSET = 2  # rows of XLM-R's position table before the first position


class Bert(XlmRoberta):
    """The BERT family: shifts the position table on import and otherwise uses XLM-R's code."""

    model_type = 'bert'
    prefixes = ('', 'bert.')
    base_class = 'BertModel'
    sizes: ClassVar[Mapping[str, EncoderConfig]] = {
        'tiny': dataclasses.replace(SIZES['tiny'], layer_norm_eps=1e-12),
        'base': dataclasses.replace(SIZES['base'], layer_norm_eps=1e-12),
    }
    default_eps = 1e-12
    has_own_special_ids = True

    def read_config(self, raw: Mapping[str, Any], where: str) -> EncoderConfig:
        positions = raw.get('max_position_embeddings')
        if isinstance(positions, int) and not isinstance(positions, bool):
            raw = {**raw, 'max_position_embeddings': positions + OFFSET}
        return super().read_config(raw, where)

    def import_encoder(self, get: GetTensor, config: EncoderConfig) -> Params:
        def with_offset(name: str) -> np.ndarray:
            value = get(name)
            if name != POSITIONS:
                return value
            return np.concatenate([np.zeros((OFFSET, value.shape[1]), np.float32), value])

        return super().import_encoder(with_offset, config)

    def tensor_shapes(self, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
        return super().tensor_shapes(config) | {POSITIONS: (config.max_positions - OFFSET, config.hidden_size)}
