"""Perplexity of a masked language model: exp of the mean loss over a fixed set of masked tokens.

The masked tokens depend only on the rows and a seed, so that different models, or one model at different steps, predict
the same tokens (XLM and XLM-R select checkpoints by perplexity: Conneau and Lample 2019, Conneau et al. 2020).
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
from xlmr_flax.eval.predict import Forward, Program
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.kinds.base import HEAD
from xlmr_flax.kinds.mlm import Mlm
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import batch_devices, put_batch
from xlmr_flax.parallel.placement import placed
from xlmr_flax.util.stopping import check

MLM = HeadSpec(Mlm.name)
# Maximum number of logits in one pass (1 GiB in float32). They are as wide as the vocabulary, so batch_tokens alone
# does not limit their memory.
_LOGITS = 1 << 28


def masked_perplexity(forward: Forward, name: str, tokens: Ragged, masking: Masking, seed: int = 0) -> float:
    """Perplexity: exp of the mean of `masked_loss` (as in transformers' run_mlm.py), inf on overflow. Raises ValueError
    if no token is masked, which can happen with a few short rows.
    """
    loss, count = masked_loss(forward, name, tokens, masking, seed)
    if not count:
        raise ValueError(f'none of {len(tokens.flat)} tokens is masked: no perplexity')
    try:
        return math.exp(loss / count)
    except OverflowError:
        return math.inf


def masked_loss(forward: Forward, name: str, tokens: Ragged, masking: Masking, seed: int = 0) -> tuple[float, int]:
    """Masked-LM loss of the head `name` over rows of text: (sum of the cross-entropies in nats, number of masked
    tokens). `seed` determines which tokens of the rows are masked.
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
    """Yields batches ({'ids', 'segments'}, labels), int32 [size, T], packed or padded; labels are IGNORED on
    padding."""
    passes = (ids, forward.lengths, budget, forward.pad, batch_devices(forward.mesh))
    if forward.packing:
        for packed, batch in packed_eval_batches(*passes):
            del batch['starts']
            values = [labels[i] for i in packed.item.tolist()]
            yield batch, place(values, packed.row, packed.start, (packed.size, packed.length), IGNORED)
        return
    for rows, batch in eval_batches(*passes):
        wanted = np.full(batch['ids'].shape, IGNORED, np.int32)
        wanted[: len(rows)] = pad_values(labels, rows, batch['ids'].shape[1], IGNORED)
        yield batch, wanted


@lru_cache(maxsize=8)
def _loss_program(model: Model, mesh: Mesh) -> Program:
    """The compiled function (params, batch) -> sum of the losses of all masked tokens."""
    model = placed(model, mesh)

    def loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        labels = batch['labels']
        logits = model.logits(params, HEAD, MLM, batch['ids'], batch['segments'], positions=batch['positions'])
        right = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
        return ((jax.nn.logsumexp(logits, axis=-1) - right) * (labels != IGNORED)).sum()

    return jax.jit(loss, out_shardings=NamedSharding(mesh, PartitionSpec()))
