"""BERT encoders (Devlin et al. 2019): multilingual BERT, LaBSE, multilingual-e5.

BERT and XLM-R compute the same function. They differ in these points:
- BERT's positions start at 0; XLM-R's position table has two more rows before the first position.
- The default epsilon of layer norm is 1e-12.
- BERT's own tokenizers give the second text of a pair, with its separator, token type 1. XLM-R's give type 0 alone.
- The special ids are the tokenizer's; they may differ from XLM-R's, because BERT's positions do not depend on them.

So the tokenizer decides what a directory is. With a tokenizer that gives one type (multilingual-e5), the encoder is
loaded into XLM-R's module, and afterwards it is an XLM-R: `ckpt:` directories and exports have XLM-R's format. With two
types, it stays a BERT (`BertConfig`). Its token types follow from the separators of a row, also of a packed row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_flax.encoders.config import SIZES, EncoderConfig, ModelError
from xlmr_flax.encoders.encoder import Encoder, segment_starts
from xlmr_flax.encoders.family import POOLER, GetTensor, HeadForm, Params, field_names
from xlmr_flax.encoders.heads import LinearHead, MlmHead
from xlmr_flax.encoders.tensors import put
from xlmr_flax.encoders.xlm_roberta import POSITIONS, TOKEN_TYPES, XlmRoberta
from xlmr_flax.util.errors import quote
from xlmr_flax.util.tokenizer_file import SpecialTokens

OFFSET = 2  # rows of XLM-R's position table before the first position
_TRANSFORM = 'cls.predictions.transform'


@dataclasses.dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """The shape of a BERT with token types. eos_id: the separator [SEP], after which the second text has type 1."""

    family: ClassVar[str] = 'bert'
    token_types: ClassVar[int] = 2

    @property
    def first_position(self) -> int:
        return 0

    def renumbered(self, number: Callable[[int], int]) -> dict[str, int]:
        return {'eos_id': number(self.eos_id)}


class BertEncoder(Encoder):
    """XLM-R's encoder with token types."""

    def __init__(self, cfg: EncoderConfig, **given: Any):
        super().__init__(cfg, **given)
        self.separator = cfg.eos_id

    def token_types(self, ids: jax.Array, segments: jax.Array) -> jax.Array:
        """1 for tokens after the first separator of their segment, as BERT's tokenizers have it: int32 [B, T]."""
        ends = (ids == self.separator) & (segments > 0)
        before = jnp.cumsum(ends, axis=1) - ends  # separators before each token of the row, [B, T]
        at_start = jnp.take_along_axis(before, segment_starts(segments), axis=1)
        return jnp.where(segments > 0, jnp.minimum(before - at_start, 1), 0).astype(jnp.int32)


class Bert(XlmRoberta):
    """The BERT family: uses XLM-R's code, with BERT's position table, token types and heads."""

    model_type = 'bert'
    prefixes = ('', 'bert.')
    class_name = 'Bert'
    sizes: ClassVar[Mapping[str, EncoderConfig]] = {
        'tiny': dataclasses.replace(SIZES['tiny'], layer_norm_eps=1e-12),
        'base': dataclasses.replace(SIZES['base'], layer_norm_eps=1e-12),
    }
    config_class = BertConfig
    module = BertEncoder
    default_eps = 1e-12
    has_own_special_ids = True

    def read_config(self, raw: Mapping[str, Any], where: str) -> EncoderConfig:
        types = raw.get('type_vocab_size', BertConfig.token_types)
        if types not in (1, BertConfig.token_types):
            raise ModelError(f'{where}: type_vocab_size is {quote(types)}; 1 or 2 is expected')
        config = super().read_config(raw, where)
        with field_names(where, {'max_positions': 'max_position_embeddings'}):
            return dataclasses.replace(config, max_positions=config.max_positions + OFFSET)

    def with_tokenizer(self, config: EncoderConfig, read: Callable[[], SpecialTokens]) -> EncoderConfig:
        tokens = read()
        if tokens.second_type == 0:
            return config
        fields = dataclasses.asdict(config) | {
            'max_positions': config.max_positions - OFFSET,
            'pad_id': tokens.pad,
            'bos_id': tokens.bos,
            'eos_id': tokens.eos,
        }
        return BertConfig(**fields)

    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        ids = {'cls_token_id': config.bos_id, 'sep_token_id': config.eos_id}
        raw = super().write_config(config) | {'type_vocab_size': BertConfig.token_types} | ids
        return {name: value for name, value in raw.items() if name not in ('bos_token_id', 'eos_token_id')}

    def import_encoder(self, get: GetTensor, config: EncoderConfig) -> Params:
        if isinstance(config, BertConfig):
            tree = super().import_encoder(get, config)
            put(tree, ('embeddings', 'token_type'), np.asarray(get(TOKEN_TYPES), np.float32))
            return tree

        def with_offset(name: str) -> np.ndarray:
            value = get(name)
            if name != POSITIONS:
                return value
            return np.concatenate([np.zeros((OFFSET, value.shape[1]), np.float32), value])

        return super().import_encoder(with_offset, config)

    def tensor_shapes(self, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
        shapes, width = super().tensor_shapes(config), config.hidden_size
        if isinstance(config, BertConfig):
            return shapes | {TOKEN_TYPES: (config.token_types, width)}
        return shapes | {POSITIONS: (config.max_positions - OFFSET, width)}

    def head_form(self, architecture: str, config: EncoderConfig) -> HeadForm | None:
        if architecture == 'ForSequenceClassification':
            return HeadForm(
                lambda outputs, rngs: LinearHead(config, outputs, use_dropout=True, rngs=rngs),
                {('out', 'kernel'): 'classifier.weight', ('out', 'bias'): 'classifier.bias'},
                POOLER,
            )
        if architecture == 'ForMaskedLM':
            return HeadForm(
                lambda outputs, rngs: MlmHead(config, rngs=rngs),
                {
                    ('dense', 'kernel'): f'{_TRANSFORM}.dense.weight',
                    ('dense', 'bias'): f'{_TRANSFORM}.dense.bias',
                    ('norm', 'scale'): f'{_TRANSFORM}.LayerNorm.weight',
                    ('norm', 'bias'): f'{_TRANSFORM}.LayerNorm.bias',
                    ('bias',): 'cls.predictions.bias',
                },
                decoder='cls.predictions.decoder',
            )
        return None
