"""Losses as (sum, count) so that a mean over the global batch never depends on how the batch was cut."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

IGNORED = -1


def _cross_entropy(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """float32 logits [..., C], labels [...], weight [...] -> (loss sum, weight sum, sum of weight where argmax is
    right).
    """
    safe = jnp.maximum(labels, 0)
    losses = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, safe[..., None], axis=-1)[..., 0]
    right = (logits.argmax(-1) == labels).astype(jnp.float32)
    return (losses * weight).sum(), weight.sum(), (right * weight).sum()


def loss_sums(kind: str, logits: jax.Array, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(loss sum, count, correct sum), all float32 scalars, over a batch's valid examples.

    pair, choice: logits [B, C], label [B], counted per example. tag, mlm: logits [B, T, C], labels [B, T] with -1
    ignored, counted per token (as torch's mean over unmasked tokens). span: logits [B, T, 2], start and end [B]; the
    mean of both cross-entropies over all positions of the row, padding included as transformers'
    ForQuestionAnswering, per window.
    """
    valid = batch['valid'].astype(jnp.float32)
    if kind in ('pair', 'choice'):
        return _cross_entropy(logits, batch['label'], valid)
    if kind in ('tag', 'mlm'):
        weight = (batch['labels'] != IGNORED) * valid[:, None]
        return _cross_entropy(logits, batch['labels'], weight)
    if kind == 'span':
        start = _cross_entropy(logits[..., 0], batch['start'], valid)
        end = _cross_entropy(logits[..., 1], batch['end'], valid)
        return (start[0] + end[0]) / 2, start[1], (start[2] + end[2]) / 2
    raise ValueError(f'no loss for head kind {kind!r}')


def count(kind: str, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The count of `loss_sums` without the logits."""
    if kind in ('tag', 'mlm'):
        return ((batch['labels'] != IGNORED) * batch['valid'][:, None]).sum().astype(jnp.float32)
    return batch['valid'].sum().astype(jnp.float32)
