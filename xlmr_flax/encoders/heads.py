"""The pooler and the task heads: as in jiant (modeling/heads.py, taskmodels.py), as in transformers, or on a mean.

style 'jiant', as the authors used: the pair and choice heads read the pooler's output, so that two freshly initialised
tanh layers follow each other. The pooler is part of the encoder and is passed on between phases.
style 'hf': the pair head reads the first token, as XLMRobertaForSequenceClassification does; the choice head is one
linear layer on the pooler, as in XLMRobertaForMultipleChoice. These heads can be exported.
style 'mean': the pair and choice heads are jiant's on the mean over the tokens, in place of the pooler's output. For
encoders that were trained with it, such as multilingual-e5: their first token hardly depends on the text.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import Key, dropout
from xlmr_flax.encoders.kernels.gelu import gelu
from xlmr_flax.encoders.layers import Dense, LayerNorm


@jax.custom_vjp
def first_token(x: jax.Array) -> jax.Array:
    """Hidden states [B, T, D] -> those of the first token [B, D], with a custom gradient.

    The backward pass uses jnp.where. The gradient of a slice would pad with zeros, for which the compiler estimates
    three times as long on a v6e (8 rows of 512 tokens: 49 µs instead of 16 µs).
    """
    return x[:, 0]


def _first_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x[:, 0], jnp.arange(x.shape[1])[:, None] == 0


def _first_backward(is_first: jax.Array, given: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(is_first, given[:, None], jnp.zeros((), given.dtype)),)


first_token.defvjp(_first_forward, _first_backward)


class Pooler(nnx.Module):
    """The pooler, as in transformers: tanh(dense(first token)), [B, D] -> [B, D]."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        self.dense = Dense(cfg.hidden_size, cfg.hidden_size, cfg.initializer_range, rngs=rngs)

    def __call__(self, first: jax.Array) -> jax.Array:
        return jnp.tanh(self.dense(first))


class ClassificationHead(nnx.Module):
    """Classification head: dropout, dense, tanh, dropout, linear. [B, D] -> [B, C] float32."""

    def __init__(self, cfg: EncoderConfig, outputs: int, *, rngs: nnx.Rngs):
        self.dense = Dense(cfg.hidden_size, cfg.hidden_size, cfg.initializer_range, rngs=rngs)
        self.out = Dense(cfg.hidden_size, outputs, cfg.initializer_range, rngs=rngs)
        self.rate = cfg.dropout

    def __call__(self, x: jax.Array, key: Key | None) -> jax.Array:
        x = jnp.tanh(self.dense(dropout(x, key, 10, self.rate)))
        return self.out(dropout(x, key, 11, self.rate)).astype(jnp.float32)


class LinearHead(nnx.Module):
    """Linear head: dropout (if `use_dropout`) and one linear layer. [..., D] -> [..., C] float32.

    use_dropout: whether the reference's head has dropout.
    """

    def __init__(self, cfg: EncoderConfig, outputs: int, *, use_dropout: bool, rngs: nnx.Rngs):
        self.out = Dense(cfg.hidden_size, outputs, cfg.initializer_range, rngs=rngs)
        self.rate = cfg.dropout if use_dropout else 0.0

    def __call__(self, x: jax.Array, key: Key | None) -> jax.Array:
        return self.out(dropout(x, key, 10, self.rate)).astype(jnp.float32)


class MlmHead(nnx.Module):
    """Masked-LM head: dense, gelu, layer norm, then the word table as tied decoder, plus a bias.

    [..., D] -> [..., V] float32.
    """

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        self.dense = Dense(cfg.hidden_size, cfg.hidden_size, cfg.initializer_range, rngs=rngs)
        self.norm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)
        self.bias = nnx.Param(jnp.zeros(cfg.vocab_size))

    def __call__(self, x: jax.Array, word: jax.Array) -> jax.Array:
        shape = x.shape[:-1]
        # Two-dimensional, as in `self_attention`. Products in bfloat16 are accumulated and returned in float32: the
        # logits of words with similar probabilities differ in bits that bfloat16 does not have.
        x = self.norm(gelu(self.dense(x.reshape(-1, x.shape[-1]))))
        logits = jnp.einsum('nd,vd->nv', x, word.astype(x.dtype), preferred_element_type=jnp.float32)
        return (logits + self.bias[...]).reshape(*shape, -1)
