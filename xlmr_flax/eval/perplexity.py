"""Perplexity of a masked language model: exp of the mean loss over tokens that are masked once and for all.

Which tokens are predicted is a function of the rows and a seed, so that two models, or one at two steps, are asked the
same (XLM and XLM-R choose checkpoints by it: Conneau and Lample 2019, Conneau et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_flax.data.batches import Batch, eval_batches, packed_eval_batches, pad_values
from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.masking import Masking, gather, mask_rows
from xlmr_flax.data.packing import place
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.eval.predict import HEAD, Forward, Program
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.kinds.mlm import Mlm
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import batch_devices, put_batch
from xlmr_flax.parallel.placement import placed
from xlmr_flax.util.stopping import check

MLM = HeadSpec(Mlm.name)
# Logits of one pass at most, a gigabyte: they are as wide as the vocabulary, which batch_tokens knows nothing of.
_LOGITS = 1 << 28


def masked_perplexity(forward: Forward, name: str, tokens: Ragged, masking: Masking, seed: int = 0) -> float:
    """exp of `masked_loss`'s mean (transformers' run_mlm.py: perplexity), inf where that overflows. Raises ValueError
    where no token is masked, as may be in a handful of short rows.
    """
    loss, count = masked_loss(forward, name, tokens, masking, seed)
    if not count:
        raise ValueError(f'none of {len(tokens.flat)} tokens is masked: no perplexity')
    try:
        return math.exp(loss / count)
    except OverflowError:
        return math.inf


def masked_loss(forward: Forward, name: str, tokens: Ragged, masking: Masking, seed: int = 0) -> tuple[float, int]:
    """(sum of the cross-entropies in nats, number of masked tokens) of the masked-LM head of that name over rows of
    text. `seed` alone decides which tokens are masked.
    """
    ids, labels = mask_rows(tokens, seed, masking)
    program, forward = _loss_program(forward.model, forward.mesh), forward.with_head(name)
    budget = min(forward.batch_tokens, max(1, _LOGITS // forward.model.config.vocab_size))
    total, count = 0.0, 0
    for batch, wanted in _batches(forward, ids, labels, budget):
        check()
        batch['positions'], batch['labels'] = gather(wanted, masking.most(wanted.shape[1]))
        total += float(program(forward.params, put_batch(batch, forward.mesh)))
        count += int((batch['labels'] != IGNORED).sum())
    return total, count


def _batches(forward: Forward, ids: Ragged, labels: Ragged, budget: int) -> Iterator[tuple[Batch, np.ndarray]]:
    """({'ids', 'segments'}, labels) int32 [size, T], packed or padded; labels are IGNORED on padding."""
    passes = (ids, forward.lengths, budget, forward.pad, batch_devices(forward.mesh))
    if forward.packing:
        for found, batch in packed_eval_batches(*passes):
            del batch['starts']
            values = [labels[i] for i in found.item.tolist()]
            yield batch, place(values, found.row, found.start, (found.size, found.length), IGNORED)
        return
    for rows, batch in eval_batches(*passes):
        wanted = np.full(batch['ids'].shape, IGNORED, np.int32)
        wanted[: len(rows)] = pad_values(labels, rows, batch['ids'].shape[1], IGNORED)
        yield batch, wanted


@lru_cache(maxsize=8)
def _loss_program(model: Model, mesh: Mesh) -> Program:
    """(params, batch) -> the sum of the losses of all masked tokens."""
    model = placed(model, mesh)

    def loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        labels = batch['labels']
        logits = model.logits(params, HEAD, MLM, batch['ids'], batch['segments'], positions=batch['positions'])
        right = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
        return ((jax.nn.logsumexp(logits, axis=-1) - right) * (labels != IGNORED)).sum()

    return jax.jit(loss, out_shardings=NamedSharding(mesh, PartitionSpec()))
