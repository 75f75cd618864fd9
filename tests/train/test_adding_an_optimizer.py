"""docs/adding_an_optimizer.md: its code and its command run as they stand there; and every registered optimizer."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import xlmr_flax.train.optimizer as module
from xlmr_flax.cli.main import main
from xlmr_flax.config import ConfigError, OptimizerSpec, parse
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.experiment.plan.runs import make_plan
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import make_mesh, path_name, shardings
from xlmr_flax.train.optimizer import OPTIMIZERS, Optimizer, method_of
from xlmr_flax.train.step import state_shapes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'adding_an_optimizer.md').read_text(encoding='utf-8')
FUNCTION, LINE = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
(COMMAND,) = re.findall(r'```bash\n(.*?)\n```', PAGE, re.DOTALL)
# AdamW's spec away from its defaults; a rate at which decay moves a weight visibly.
SPEC = OptimizerSpec(learning_rate=0.05, beta1=0.8, beta2=0.9, weight_decay=0.5, warmup=0.25)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's optimizer in the registry; gives its name."""
    names = dict(vars(module))
    exec(FUNCTION, names)
    (item,) = eval('{' + LINE + '}', names).items()
    monkeypatch.setitem(OPTIMIZERS, *item)
    yield item[0]


def steps(name: str, grads: Any, count: int = 8) -> tuple[Any, Optimizer]:
    """(parameters after `count` steps from ones with these gradients, the optimizer)."""
    optimizer = Optimizer(OptimizerSpec(**{**vars(SPEC), 'name': name}), count)
    params = jax.tree.map(np.ones_like, grads)
    state = optimizer.init(params)
    for step in range(count):
        updates, state = optimizer.update(grads, state, params, step)
        params = optax.apply_updates(params, updates)
    return params, optimizer


@pytest.mark.parametrize('name', [*OPTIMIZERS])
def test_the_closed_form_is_what_rows_without_gradient_become(name: str) -> None:
    grads = {'kernel': np.array([[0.3, -0.2], [0.0, 0.0]], np.float32), 'bias': np.zeros(2, np.float32)}
    params, optimizer = steps(name, grads)
    factor = optimizer.untouched_factor(8, 0)
    assert factor is not None and 0.5 < factor < 0.95
    np.testing.assert_allclose(params['kernel'][1], factor, rtol=1e-6)
    np.testing.assert_array_equal(params['bias'], 1.0)  # no decay
    assert (np.sign(params['kernel'][0] - factor) == -np.sign(grads['kernel'][0])).all()
    assert optimizer.untouched_factor(0, 0) == 1.0


@pytest.mark.parametrize(('name', 'moments'), [('adamw', 2), ('lion', 1)])
def test_the_state_has_moments_that_the_sharding_rules_match(name: str, moments: int) -> None:
    config = EncoderConfig(vocab_size=64, hidden_size=8, num_layers=2, num_heads=2, ffn_size=8, max_positions=10)
    params = Model(config).shapes({'x': HeadSpec('pair', 3)})
    state = state_shapes(params, Optimizer(OptimizerSpec(name=name), 8))
    assert len(jax.tree.leaves(shardings(state, make_mesh()))) == len(jax.tree.leaves(state))
    of_word = [
        path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(state['opt']) if path_name(p)[-4:] == 'word'
    ]
    assert len(of_word) == moments


def test_lion_is_the_papers() -> None:
    """Algorithm 2 of Chen et al. 2023, with weight decay by the learning rate."""
    grads = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    spec = OptimizerSpec(**{**vars(SPEC), 'name': 'lion', 'warmup': 0.0, 'schedule': 'constant'})
    optimizer, params, theta, momentum = Optimizer(spec, 6), {'kernel': np.ones(4)}, np.ones(4), np.zeros(4)
    state = optimizer.init(params)
    for step, grad in enumerate(grads):
        updates, state = optimizer.update({'kernel': grad}, state, params, step)
        params = optax.apply_updates(params, updates)
        direction = np.sign(spec.beta1 * momentum + (1 - spec.beta1) * grad)
        momentum = spec.beta2 * momentum + (1 - spec.beta2) * grad
        theta = theta - spec.learning_rate * (direction + spec.weight_decay * theta)
    np.testing.assert_allclose(params['kernel'], theta, rtol=1e-5)


@pytest.mark.parametrize('where', ['recipe', 'recipes.mnli'])
def test_an_unknown_name_is_an_error_with_its_field(where: str) -> None:
    wrong = {'optimizer': {'name': 'adamW2'}}
    raw = {'recipe': wrong} if where == 'recipe' else {'recipes': {'mnli': wrong}}
    config = parse({'targets': ('xnli',), 'intermediate': ('mnli',), **raw})
    with pytest.raises(ConfigError) as error:
        make_plan(config)
    assert all(text in str(error.value) for text in (f'{where}.optimizer.name', 'adamW2', 'adamw'))


def test_the_pages_optimizer_is_torchs_adam_and_has_no_closed_form(added: str) -> None:
    torch = pytest.importorskip('torch')
    grad = np.array([0.3, -0.2, 0.0], np.float32)
    params, optimizer = steps(added, {'kernel': grad})
    assert method_of(optimizer.spec).untouched is None
    assert optimizer.untouched_factor(8, 0) is None
    weight = torch.nn.Parameter(torch.ones(3))
    reference = torch.optim.Adam([weight], betas=(SPEC.beta1, SPEC.beta2), eps=SPEC.epsilon, weight_decay=0.5)
    rate = module.schedule(SPEC, 8)
    for step in range(8):
        reference.param_groups[0]['lr'] = float(rate(step))
        weight.grad = torch.tensor(grad)
        reference.step()
    np.testing.assert_allclose(params['kernel'], weight.detach().numpy(), rtol=1e-5)


def test_the_page_is_trained_with_the_whole_table(added: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    rows: list[int] = []
    real = module.Optimizer.init

    def init(self: Optimizer, params: Any) -> Any:
        if 'encoder' in params:
            rows.append(params['encoder']['embeddings']['word'].shape[0])
        return real(self, params)

    monkeypatch.setattr(module.Optimizer, 'init', init)
    assert main(shlex.split(COMMAND)[1:]) == 0
    config = json.loads((tmp_path / f'runs/{added}/config.json').read_text(encoding='utf-8'))
    assert config['config']['recipe']['optimizer']['name'] == added
    (folder,) = (tmp_path / f'runs/{added}/runs').glob('none--*')
    described = json.loads((folder / 'model/model.json').read_text(encoding='utf-8'))
    assert set(rows) == {described['encoder']['vocab_size']}
