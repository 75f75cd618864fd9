"""The XLM-R XL family (Goyal et al. 2021): XLM-R XL and XXL.

Follows transformers' XLMRobertaXLModel; tests/models/test_xlm_roberta_xl.py compares with it. It differs from XLM-R in
these points: a layer norm precedes each block and another follows the last layer; the embeddings have none; the
feed-forward block has no dropout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from xlmr_flax.encoders.compute import SUMS, ComputeOptions
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import dropped
from xlmr_flax.encoders.encoder import NO_SEEDS, Encoder, Layer, PlainEmbeddings, Seeds
from xlmr_flax.encoders.kernels.feed_forward import feed_forward
from xlmr_flax.encoders.layers import LayerNorm
from xlmr_flax.encoders.logical_axes import ROWS
from xlmr_flax.encoders.xlm_roberta import EMBEDDINGS, Names, XlmRoberta, names_in_layer, norm_names


@dataclasses.dataclass(frozen=True)
class XlmRobertaXlConfig(EncoderConfig):
    """The shape of an XLM-R XL."""

    family: ClassVar[str] = 'xlm-roberta-xl'


class PreNormLayer(Layer):
    """One pre-norm block: x = x + dropout(attention(norm(x))), then x = x + ffn(norm(x))."""

    def __call__(self, x: jax.Array, shared: Any, seeds: Seeds | None, options: ComputeOptions) -> jax.Array:
        weights_seed, sum_seed, _ = seeds or NO_SEEDS
        y = self.attention(self.attention_norm(x), shared, weights_seed, options)
        y = options.place(y, ROWS, None, None) + self.attention.out_bias[...].astype(x.dtype)
        x = checkpoint_name(x + dropped(y, sum_seed, self.rate), SUMS[0])
        y = feed_forward(self.ffn_norm(x), self.ffn_in, self.ffn_out, options)
        y = options.place(y, ROWS, None, None) + self.ffn_out.bias[...].astype(x.dtype)
        return checkpoint_name(x + y, SUMS[1])


class XlmRobertaXlEncoder(Encoder):
    """The encoder: embeddings without norm, L stacked pre-norm layers, final norm."""

    embeddings_type = PlainEmbeddings
    layer_type = PreNormLayer

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        super().__init__(cfg, rngs=rngs)
        self.final_norm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)

    def finish(self, x: jax.Array) -> jax.Array:
        return self.final_norm(x)


_XL = XlmRobertaXlConfig(vocab_size=250_880, hidden_size=2560, num_layers=36, num_heads=32, ffn_size=10_240)


class XlmRobertaXl(XlmRoberta):
    """The XLM-R XL family. Its heads are XLM-R's."""

    model_type = 'xlm-roberta-xl'
    prefixes = ('', 'roberta.')
    class_name = 'XLMRobertaXL'
    names: ClassVar[Names] = {**EMBEDDINGS, **norm_names(('final_norm',), 'encoder.LayerNorm')}
    layer_names: ClassVar[Names] = names_in_layer('attention.self_attn_layer_norm', 'LayerNorm')
    sizes: ClassVar[Mapping[str, EncoderConfig]] = {
        'tiny': XlmRobertaXlConfig(
            vocab_size=2048, hidden_size=64, num_layers=2, num_heads=4, ffn_size=128, max_positions=130
        ),
        'xl': _XL,
        'xxl': dataclasses.replace(_XL, hidden_size=4096, num_layers=48, ffn_size=16_384),
    }
    config_class = XlmRobertaXlConfig
    module = XlmRobertaXlEncoder

    def read_config(self, raw: Mapping[str, Any], where: str) -> EncoderConfig:
        return XlmRobertaXlConfig(**dataclasses.asdict(super().read_config(raw, where)))
