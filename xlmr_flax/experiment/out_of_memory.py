"""Explains out-of-memory errors of an evaluation and suggests settings that need less memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from jax.sharding import Mesh

from xlmr_flax.config import Evaluation
from xlmr_flax.data.batches import pass_tokens
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import batch_devices
from xlmr_flax.train.diagnostics.memory_estimate import shard_bytes, size
from xlmr_flax.train.diagnostics.out_of_memory import explained
from xlmr_flax.util.console import say


def evaluating(
    name: str, model: Model, params: Params, mesh: Mesh, settings: Evaluation, longest: int
) -> AbstractContextManager[None]:
    """Context for an evaluation: turns an out-of-memory error into OutOfMemory with suggestions.

    name: shown in the message. longest: the largest number of tokens of a row.
    """
    shape, sizes = model.config, dict(mesh.shape)
    tokens = pass_tokens(settings.batch_tokens, mesh.devices.flat[0].platform, mesh.size)
    wide = 2 if model.dtype == 'bfloat16' else 4

    def layer(tokens: int, width: int) -> float:
        """Bytes of one layer's attention weights (float32) and feed-forward activations on one device."""
        there = max(tokens, longest) / batch_devices(mesh)
        return there * (shape.num_heads * longest * 4 + shape.ffn_size * width)

    now = layer(tokens, wide)
    advice = []
    if tokens > longest:
        half = max(tokens // 2, longest)
        advice.append(
            f'evaluation.batch_tokens={half} (now {tokens}): attention weights and feed-forward of a layer at '
            f'{longest} tokens {size(now)} -> {size(layer(half, wide))} (the same scores)'
        )
    if wide == 4:
        half_width = size(layer(tokens, 2))
        advice.append(f"encoder.dtype='bfloat16': a layer {size(now)} -> {half_width} (coarser rounding)")
    if sizes['data'] > 1:
        spread = {**sizes, 'data': 1, 'fsdp': sizes['data'] * sizes['fsdp']}
        before, after = (size(shard_bytes(params, each)) for each in (sizes, spread))
        advice.append(f'mesh.data=1 mesh.fsdp={spread["fsdp"]}: parameters {before} -> {after} (the same scores)')
    return explained(f'evaluation of {name}, batches of {tokens} tokens in rows of up to {longest}', params, advice)


def with_messages(evaluator: Evaluator, name: str, results: Iterable[Any]) -> Iterator[Any]:
    """Yields the results of an evaluator unchanged; explains its out-of-memory errors, and prints which languages have
    no labels."""
    e = evaluator
    with evaluating(name, e.model, e.params, e.mesh, e.evaluation, e.max_length):
        for language, metrics, n in results:
            if not metrics:
                say(f'{name} {language}: no labels in its files: predictions are written, not scored')
            yield language, metrics, n
