"""Pooler and heads, as the authors have them (jiant: modeling/heads.py, taskmodels.py) and as transformers has them.

style 'jiant': pair and choice heads read the pooler's output (two tanh layers in a row, both fresh; the pooler
belongs to the encoder and is handed on between phases). style 'hf': the pair head reads the first token and the
choice head is one linear layer on the pooler, as XLMRobertaForSequenceClassification and ForMultipleChoice; these can
be exported.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import dropout
from xlmr_flax.encoders.kernels.gelu import gelu
from xlmr_flax.encoders.layers import Dense, LayerNorm

STYLES = ('jiant', 'hf')


@jax.custom_vjp
def first_token(x: jax.Array) -> jax.Array:
    """[B, T, D] -> [B, D]. Backwards a choice, not the zeros put around an array that a slice's gradient would be:
    for a v6e the compiler estimates three times as long for these (8 rows of 512: 49 µs for 16)."""
    return x[:, 0]


def _first_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x[:, 0], jnp.arange(x.shape[1])[:, None] == 0


def _first_backward(is_first: jax.Array, given: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(is_first, given[:, None], jnp.zeros((), given.dtype)),)


first_token.defvjp(_first_forward, _first_backward)


class Pooler(nnx.Module):
    """tanh(dense(first token)), as transformers' pooler: [B, D] -> [B, D]."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        self.dense = Dense(cfg.hidden_size, cfg.hidden_size, cfg.initializer_range, rngs=rngs)

    def __call__(self, first: jax.Array) -> jax.Array:
        return jnp.tanh(self.dense(first))


class ClassificationHead(nnx.Module):
    """dropout, dense, tanh, dropout, linear: [B, D] -> [B, C] float32."""

    def __init__(self, cfg: EncoderConfig, outputs: int, *, rngs: nnx.Rngs):
        self.dense = Dense(cfg.hidden_size, cfg.hidden_size, cfg.initializer_range, rngs=rngs)
        self.out = Dense(cfg.hidden_size, outputs, cfg.initializer_range, rngs=rngs)
        self.rate = cfg.dropout

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        x = jnp.tanh(self.dense(dropout(x, key, 10, self.rate)))
        return self.out(dropout(x, key, 11, self.rate)).astype(jnp.float32)


class LinearHead(nnx.Module):
    """dropout (where the reference has it) and one linear layer: [..., D] -> [..., C] float32."""

    def __init__(self, cfg: EncoderConfig, outputs: int, *, use_dropout: bool, rngs: nnx.Rngs):
        self.out = Dense(cfg.hidden_size, outputs, cfg.initializer_range, rngs=rngs)
        self.rate = cfg.dropout if use_dropout else 0.0

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        return self.out(dropout(x, key, 10, self.rate)).astype(jnp.float32)


class MlmHead(nnx.Module):
    """dense, gelu, layer norm, then the word table as decoder plus a bias: [..., D] -> [..., V] float32."""

    def __init__(self, cfg: EncoderConfig, *, rngs: nnx.Rngs):
        self.dense = Dense(cfg.hidden_size, cfg.hidden_size, cfg.initializer_range, rngs=rngs)
        self.norm = LayerNorm(cfg.hidden_size, cfg.layer_norm_eps)
        self.bias = nnx.Param(jnp.zeros(cfg.vocab_size))

    def __call__(self, x: jax.Array, word: jax.Array) -> jax.Array:
        shape = x.shape[:-1]
        # Two-dimensional, as in Attention. Products in bfloat16 are summed and kept in float32: logits of words that
        # are nearly as likely differ in bits that bfloat16 does not have.
        x = self.norm(gelu(self.dense(x.reshape(-1, x.shape[-1]))))
        logits = jnp.einsum('nd,vd->nv', x, word.astype(x.dtype), preferred_element_type=jnp.float32)
        return (logits + self.bias[...]).reshape(*shape, -1)
