"""Losses as (sum, count) so that a mean over the global batch never depends on how the batch was cut."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

IGNORED = -1
_OUTSIDE = -1e30  # logit of a token of another segment; finite, so that empty slots give numbers and not NaN


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
    ignored, counted per token (as torch's mean over unmasked tokens). span: logits [B, T, 2], segments [B, T], start
    and end [B]; the mean of both cross-entropies over the tokens of the window, per window. transformers'
    ForQuestionAnswering and the authors' head count padding as places too, and their loss then depends on how far a
    batch happens to be padded.

    Packed rows (data/packing.py) have slots: pair, choice: logits [B, S, C], label and valid [B, S]; span: start, end
    and valid [B, S], numbers of the row's tokens.
    """
    valid = batch['valid'].astype(jnp.float32)
    if kind in ('pair', 'choice'):
        return _cross_entropy(logits, batch['label'], valid)
    if kind in ('tag', 'mlm'):
        weight = (batch['labels'] != IGNORED) * valid[:, None]
        return _cross_entropy(logits, batch['labels'], weight)
    if kind == 'span':
        packed = valid.ndim == 2
        gold = {name: batch[name] if packed else batch[name][:, None] for name in ('start', 'end')}
        weight = valid if packed else valid[:, None]
        own = batch['segments'][:, None] == jnp.arange(1, weight.shape[1] + 1)[:, None]  # [B, S, T]
        start, end = (
            _cross_entropy(jnp.where(own, logits[:, None, :, i], _OUTSIDE), gold[name], weight)
            for i, name in enumerate(('start', 'end'))
        )
        return (start[0] + end[0]) / 2, start[1], (start[2] + end[2]) / 2
    raise ValueError(f'no loss for head kind {kind!r}')


def count(kind: str, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The count of `loss_sums` without the logits."""
    if kind in ('tag', 'mlm'):
        return ((batch['labels'] != IGNORED) * batch['valid'][:, None]).sum().astype(jnp.float32)
    return batch['valid'].sum().astype(jnp.float32)
