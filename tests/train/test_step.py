"""One step: accumulation, clipping by the authors' rule, rows that do not count, dropout keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmr_flax.config import OptimizerSpec

# Adam divides by the gradient's size, so the clipping shows in small steps only through epsilon: a large one here.
SPEC = OptimizerSpec(learning_rate=1e-2, epsilon=1.0, warmup=0.0, clip_norm=0.0, weight_decay=0.01)


def assert_close(a: Any, b: Any, atol: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


def distance(a: Any, b: Any) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


def test_accumulation_changes_nothing(tiny: Any, batch_of: Callable[..., Any]) -> None:
    """4 micro-batches of 2 against one batch of 8; with uneven valid rows, so that a mean of means would show."""
    spec = dataclasses.replace(SPEC, clip_norm=0.05)
    batches = [batch_of(8, seed=s) for s in range(2)]
    for batch in batches:
        batch['valid'] = np.array([1, 1, 1, 0, 0, 0, 1, 1], np.float32)
    whole, metrics = tiny.steps(batches, spec)
    parts, parts_metrics = tiny.steps(batches, spec, accumulation=4)
    assert distance(whole, tiny.params) > 1e-4, 'something must have been learned'
    assert_close(parts, whole, 1e-6)
    for a, b in zip(metrics, parts_metrics, strict=True):
        assert b == pytest.approx(a, rel=1e-5)


def test_rows_that_do_not_count_change_nothing(tiny: Any, batch_of: Callable[..., Any]) -> None:
    small, large = batch_of(4), batch_of(8, seed=9)
    for name, value in small.items():
        large[name][:4] = value
    large['valid'][4:] = 0
    want, want_metrics = tiny.steps([small], SPEC)
    found, metrics = tiny.steps([large], SPEC)
    assert_close(found, want, 1e-6)
    assert metrics[0] == pytest.approx(want_metrics[0], rel=1e-5)


def test_a_batch_without_a_counted_row_gives_numbers(tiny: Any, batch_of: Callable[..., Any]) -> None:
    batch = batch_of(4)
    batch['valid'][:] = 0
    params, metrics = tiny.steps([batch], dataclasses.replace(SPEC, weight_decay=0.0))
    assert metrics[0] == {'loss': 0.0, 'accuracy': 0.0, 'grad_norm': 0.0}
    assert_close(params, tiny.params, 0.0)


def test_clipping_per_micro_batch_is_the_authors_rule(tiny: Any, batch_of: Callable[..., Any]) -> None:
    """loss / accumulation, backward into the running sum, clip the sum, after every micro-batch (jiant);
    written out with torch's clip_grad_norm_ on gradients that are computed here one micro-batch at a time."""
    torch = pytest.importorskip('torch')
    limit, parts = 0.05, 4
    batch = batch_of(8, seed=4)
    spec = dataclasses.replace(SPEC, clip_norm=limit, clip_per='micro_batch')

    def loss(params: Any, part: Any) -> Any:
        logits = tiny.model.logits(params, 'x', tiny.head, part['ids'], part['segments'])
        gold = jax.nn.one_hot(part['label'], 3)
        return -(jax.nn.log_softmax(logits) * gold).sum(-1).mean() / parts

    leaves, tree = jax.tree.flatten(tiny.params)
    module = [torch.nn.Parameter(torch.tensor(leaf)) for leaf in leaves]
    grad, norms = jax.jit(jax.grad(loss)), []
    for i in range(parts):
        part = {k: v[2 * i : 2 * i + 2] for k, v in batch.items()}
        for p, g in zip(module, jax.tree.leaves(grad(tiny.params, part)), strict=True):
            p.grad = torch.tensor(np.asarray(g)) + (0 if p.grad is None else p.grad)
        norms.append(float(torch.nn.utils.clip_grad_norm_(module, limit)))
    assert min(norms) > limit, 'the limit must bite each time'
    # AdamW's first step by hand: both moments are unbiased to the gradient itself and its square.
    want = []
    for p, path in zip(module, jax.tree_util.tree_leaves_with_path(tiny.params), strict=True):
        g, old = p.grad.numpy(), p.detach().numpy()
        name = jax.tree_util.keystr(path[0])
        decay = 0.0 if 'bias' in name or 'norm' in name else spec.weight_decay
        want.append(old - spec.learning_rate * (g / (np.abs(g) + spec.epsilon) + decay * old))
    found, metrics = tiny.steps([batch], spec, accumulation=parts)
    assert_close(found, jax.tree.unflatten(tree, want), 1e-6)
    assert metrics[0]['grad_norm'] <= limit * 1.001, 'what the optimizer sees has been clipped already'
    per_step, _ = tiny.steps([batch], dataclasses.replace(spec, clip_per='step'), accumulation=parts)
    assert distance(found, per_step) > 1e-5, 'the two rules must differ here'


def test_the_reported_norm_is_before_clipping(tiny: Any, batch_of: Callable[..., Any]) -> None:
    batches = [batch_of(8)]
    _, free = tiny.steps(batches, SPEC)
    _, clipped = tiny.steps(batches, dataclasses.replace(SPEC, clip_norm=0.01))
    assert free[0]['grad_norm'] > 0.02
    assert clipped[0]['grad_norm'] == pytest.approx(free[0]['grad_norm'])


def test_dropout_differs_between_steps_and_micro_batches(
    tiny_of: Callable[..., Any], batch_of: Callable[..., Any]
) -> None:
    tiny, still = tiny_of(dropout=0.3), dataclasses.replace(SPEC, learning_rate=0.0)
    batch = batch_of(2)
    _, metrics = tiny.steps([batch] * 3, still)
    assert len({m['loss'] for m in metrics}) == 3
    _, again = tiny.steps([batch] * 3, still)
    assert metrics == again
    # Clipped by itself, micro-batch i of step s has fold_in(fold_in(seed, s), i), written out for four equal ones.
    four = {k: np.concatenate([v] * 4) for k, v in batch.items()}
    _, parts = tiny.steps([four], dataclasses.replace(still, clip_per='micro_batch'), accumulation=4)

    @jax.jit
    def loss(params: Any, key: jax.Array) -> jax.Array:
        logits = tiny.model.logits(params, 'x', tiny.head, batch['ids'], batch['segments'], key)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), batch['label'][:, None], 1).mean()

    step = jax.random.fold_in(jax.random.key(0), 0)
    each = [float(loss(tiny.params, jax.random.fold_in(step, i))) for i in range(4)]
    assert len(set(each)) == 4
    assert parts[0]['loss'] == pytest.approx(np.mean(each), abs=1e-6)
    assert metrics[0]['loss'] == pytest.approx(each[0], abs=1e-6)


@pytest.mark.parametrize('kind', ['choice', 'span', 'tag', 'mlm'])
def test_every_head_kind_learns_its_batch(kind: str, tiny_of: Callable[..., Any], batch_of: Callable[..., Any]) -> None:
    tiny, batch = tiny_of(kind, 3 if kind == 'tag' else 1), batch_of(6, length=8)
    ids, segments = batch['ids'], batch['segments']
    if kind == 'choice':
        batch |= {
            'ids': ids.reshape(2, 3, -1),
            'segments': segments.reshape(2, 3, -1),
            'label': np.array([2, 0], np.int32),
        }
        batch['valid'] = np.ones(2, np.float32)
    elif kind == 'span':
        batch |= {'start': np.arange(6, dtype=np.int32) % 3, 'end': np.arange(6, dtype=np.int32) % 2 + 1}
    else:
        labels = ids if kind == 'mlm' else ids % 3
        batch['labels'] = np.where(segments > 0, labels, -1).astype(np.int32)
    spec = OptimizerSpec(learning_rate=1e-2, warmup=0.0, schedule='constant')
    _, metrics = tiny.steps([batch] * 25, spec)
    assert metrics[-1]['loss'] < 0.6 * metrics[0]['loss']
