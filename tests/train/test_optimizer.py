"""Schedule, decay mask, AdamW and clipping against transformers and torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip('torch', reason='the reference optimizer is torch')

from xlmr_flax.config import OptimizerSpec  # noqa: E402
from xlmr_flax.encoders.config import EncoderConfig  # noqa: E402
from xlmr_flax.kinds import HeadSpec  # noqa: E402
from xlmr_flax.models.model import Model  # noqa: E402
from xlmr_flax.parallel.mesh import path_name  # noqa: E402
from xlmr_flax.train.optimizer import Optimizer, clip, decays, global_norm, schedule  # noqa: E402


@pytest.mark.parametrize(
    ('spec', 'steps', 'warmup'),
    [
        (OptimizerSpec(learning_rate=3e-4, warmup=0.1), 50, 5),
        (OptimizerSpec(learning_rate=3e-4, warmup=0.0), 17, 0),
        (OptimizerSpec(learning_rate=3e-4, warmup=0.06), 33, 2),
        (OptimizerSpec(learning_rate=3e-4, warmup=0.5, warmup_steps=3), 20, 3),
        (OptimizerSpec(learning_rate=3e-4, warmup=0.5, warmup_steps=0), 20, 0),
        (OptimizerSpec(learning_rate=3e-4, warmup=1.0), 8, 8),
        (OptimizerSpec(learning_rate=3e-4), 1, 0),
    ],
)
def test_the_linear_schedule_is_transformers(spec: OptimizerSpec, steps: int, warmup: int) -> None:
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=spec.learning_rate)
    reference = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    rate = schedule(spec, steps)
    for step in range(steps):
        assert float(rate(step)) == pytest.approx(reference.get_last_lr()[0], rel=1e-6, abs=1e-12), step
        optimizer.step()
        reference.step()
    np.testing.assert_allclose(rate(np.arange(steps)), [float(rate(s)) for s in range(steps)], rtol=1e-6)


def test_the_constant_schedule_is_transformers() -> None:
    from transformers import get_constant_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    reference = get_constant_schedule_with_warmup(optimizer, 4)
    rate = schedule(OptimizerSpec(learning_rate=0.5, schedule='constant', warmup=0.2), 20)
    for step in range(20):
        assert float(rate(step)) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


HEADS = {k: HeadSpec(k, 3) for k in ('pair', 'choice', 'span', 'tag', 'mlm')}


@pytest.mark.parametrize('style', ['jiant', 'hf'])
def test_decay_spares_biases_and_layer_norms(style: str) -> None:
    config = EncoderConfig(vocab_size=64, hidden_size=8, num_layers=2, num_heads=2, ffn_size=8, max_positions=10)
    shapes = Model(config, style).shapes(HEADS)
    found = {path_name(path): value for path, value in jax.tree_util.tree_leaves_with_path(decays(shapes))}
    spared = {name for name, value in found.items() if not value}
    assert spared == {
        name for name in found if 'bias' in name.rsplit('/', 1)[1] or '/norm/' in name or '_norm/' in name
    }
    decayed = {name.rsplit('/', 1)[1] for name in found if found[name]}
    assert decayed == {'word', 'position', 'token_type', 'qkv', 'out', 'kernel'}
    assert {'encoder/layers/attention/qkv_bias', 'encoder/layers/attention/out_bias', 'heads/mlm/bias'} <= spared


@pytest.mark.parametrize('scale', [1e-3, 1.0, 30.0])
def test_clipping_is_torchs(scale: float) -> None:
    random = np.random.default_rng(0)
    tree = {name: (random.normal(size=(5, 7)) * scale).astype(np.float32) for name in 'ab'}
    parameters = [torch.nn.Parameter(torch.zeros(5, 7)) for _ in tree]
    for p, grad in zip(parameters, tree.values(), strict=True):
        p.grad = torch.tensor(grad)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, 0.7))
    clipped, before = clip(jax.tree.map(jnp.asarray, tree), 0.7)
    assert float(before) == pytest.approx(norm, rel=1e-6)
    assert float(global_norm(tree)) == pytest.approx(norm, rel=1e-6)
    for ours, p in zip(clipped.values(), parameters, strict=True):
        np.testing.assert_allclose(ours, p.grad.numpy(), rtol=1e-6)


def test_limit_zero_is_no_clipping() -> None:
    tree = {'a': jnp.full(3, 1e4)}
    clipped, norm = clip(tree, 0.0)
    np.testing.assert_array_equal(clipped['a'], tree['a'])
    assert float(norm) == pytest.approx(1e4 * 3**0.5)


def test_adamw_is_torchs() -> None:
    """Every number of the spec away from its default, decay on the kernel alone."""
    spec = OptimizerSpec(learning_rate=0.02, beta1=0.8, beta2=0.95, epsilon=1e-3, weight_decay=0.3, warmup=0.25)
    random = np.random.default_rng(0)
    params = {name: random.normal(size=4).astype(np.float32) for name in ('kernel', 'bias')}
    module = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in params.items()}
    groups = [{'params': [module['kernel']], 'weight_decay': 0.3}, {'params': [module['bias']], 'weight_decay': 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.95), eps=1e-3)
    optimizer, rate = Optimizer(spec, 8), schedule(spec, 8)
    state = optimizer.init(params)
    for step in range(8):
        grads = {name: random.normal(size=4).astype(np.float32) for name in params}
        for group in reference.param_groups:
            group['lr'] = float(rate(step))
        for name, p in module.items():
            p.grad = torch.tensor(grads[name])
        reference.step()
        updates, state = optimizer.update(grads, state, params, step)
        params = optax.apply_updates(params, updates)
    for name, p in module.items():
        np.testing.assert_allclose(params[name], p.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_layer_decay_scales_the_learning_rate_by_depth() -> None:
    """Three layers: 0.5 for the last, 0.125 for the first, 0.0625 below them, 1 for the pooler and heads."""
    config = EncoderConfig(vocab_size=64, hidden_size=8, num_layers=3, num_heads=2, ffn_size=8, max_positions=10)
    params = jax.device_get(Model(config, 'hf').init(jax.random.key(0), {'pair': HEADS['pair']}))
    grads = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), params)
    found = {}
    for decay in (1.0, 0.5):
        optimizer = Optimizer(OptimizerSpec(learning_rate=0.1, warmup=0.0, layer_decay=decay), 4)
        found[decay], _ = optimizer.update(grads, optimizer.init(params), params, 0)
    shares = jax.tree.map(lambda part, whole: part / whole, found[0.5], found[1.0])
    for path, share in jax.tree_util.tree_leaves_with_path(shares):
        name = path_name(path)
        if 'encoder/layers/' in name:
            want = np.array([0.125, 0.25, 0.5]).reshape(-1, *(1,) * (share.ndim - 1))
        else:
            want = np.array(0.0625 if name.startswith('encoder/embeddings/') else 1.0)
        np.testing.assert_allclose(share, np.broadcast_to(want, share.shape), rtol=1e-5, err_msg=name)
