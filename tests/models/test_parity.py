"""Parity with transformers' XLM-R in torch: layers, logits, loss, gradients, AdamW steps; tiny and embedded."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='parity is measured against torch')

from one_head import make_train_step  # noqa: E402
from torch_reference import batch, random_params, tiny_config, torch_model  # noqa: E402

from xlmr_flax.config import OptimizerSpec  # noqa: E402
from xlmr_flax.encoders import family_of  # noqa: E402
from xlmr_flax.encoders.config import EncoderConfig  # noqa: E402
from xlmr_flax.kinds import KINDS, HeadSpec  # noqa: E402
from xlmr_flax.models import embedded  # noqa: E402
from xlmr_flax.models.model import (  # noqa: E402
    Model,
    Params,
    head_key,
)
from xlmr_flax.models.weights import export_head, export_pooler  # noqa: E402
from xlmr_flax.parallel.mesh import make_mesh, put_batch, put_tree  # noqa: E402
from xlmr_flax.train.head_padding import ProgramHead  # noqa: E402
from xlmr_flax.train.optimizer import Optimizer  # noqa: E402
from xlmr_flax.train.step import init_state  # noqa: E402

PAIR = HeadSpec('pair', 3)


class Case:
    """One encoder with a pair head on both sides."""

    def __init__(self, config: EncoderConfig, params: Params, tokenizer: Path, out: Path):
        self.model = Model(config, style='hf')
        self.params = params
        self.torch = torch_model(config, params, tokenizer, out, ('x', PAIR))
        self.ids, self.segments = batch(config, rows=6, length=16)
        self.labels = np.arange(6, dtype=np.int32) % 3

    def states(self) -> jax.Array:
        """[layers + 1, rows, tokens, size]: the embeddings and every layer's output, of one program."""
        return jax.jit(partial(self.model.encode, all_layers=True))(self.params, self.ids, self.segments)

    def torch_inputs(self) -> dict[str, Any]:
        return {'input_ids': torch.tensor(self.ids).long(), 'attention_mask': torch.tensor(self.segments).long()}


@pytest.fixture(scope='module', params=['tiny', 'embedded'])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Case:
    out = tmp_path_factory.mktemp(request.param) / 'model'
    if request.param == 'tiny':
        config = tiny_config()
        return Case(config, random_params(Model(config, style='hf'), {'x': PAIR}), tiny_tokenizer, out)
    config, encoder = embedded.load()
    config = dataclasses.replace(config, dropout=0.0, attention_dropout=0.0)
    model = Model(config, style='hf')
    key = jax.random.key(1)
    fresh = jax.device_get(
        {'pooler': model.init_pooler(key), 'heads': {'x': model.init_head(head_key(key, 'x'), PAIR)}}
    )
    return Case(config, {'encoder': encoder, **fresh}, embedded.tokenizer_path(), out)


def test_every_hidden_state(case: Case) -> None:
    states = case.states()
    with torch.no_grad():
        want = case.torch.roberta(**case.torch_inputs(), output_hidden_states=True).hidden_states
    assert len(states) == len(want) == case.model.config.num_layers + 1
    real = case.segments > 0  # transformers leaves numbers of its own at padding
    for layer, (ours, theirs) in enumerate(zip(states, want, strict=True)):
        np.testing.assert_allclose(np.asarray(ours)[real], theirs.numpy()[real], atol=1e-4, err_msg=f'layer {layer}')


def test_stopping_at_a_layer_gives_that_hidden_state(case: Case) -> None:
    states = case.model.encode(case.params, case.ids, case.segments, all_layers=True)
    for layer in (0, 1, case.model.config.num_layers):
        ours = case.model.encode(case.params, case.ids, case.segments, layer=layer)
        np.testing.assert_allclose(ours, states[layer], atol=1e-6)


def _loss(model: Model, params: Params, case: Case) -> tuple[jax.Array, jax.Array]:
    logits = model.logits(params, 'x', PAIR, jnp.asarray(case.ids), jnp.asarray(case.segments))
    parts = {'label': jnp.asarray(case.labels), 'valid': jnp.ones(len(case.labels))}
    total, count, _ = KINDS['pair'].loss_sums(logits, parts)
    return total / count, logits


def test_logits_loss_and_gradients(case: Case) -> None:
    grad = jax.jit(jax.value_and_grad(lambda p: _loss(case.model, p, case), has_aux=True))
    (loss, logits), grads = grad(case.params)
    case.torch.zero_grad()
    out = case.torch(**case.torch_inputs(), labels=torch.tensor(case.labels).long())
    out.loss.backward()
    np.testing.assert_allclose(logits, out.logits.detach().numpy(), atol=1e-4)
    assert abs(float(loss) - float(out.loss.detach())) < 1e-5
    want = {name: p.grad.numpy() for name, p in case.torch.named_parameters() if p.grad is not None}
    found = _named(case, jax.device_get(grads))
    assert set(found) == set(want)
    for name, theirs in want.items():
        scale = np.abs(theirs).max()
        if name.endswith('self.key.bias'):  # its true gradient is 0: softmax does not see a shift of all scores
            assert np.abs(found[name]).max() < 1e-6 and scale < 1e-6, name
            continue
        assert scale > 0, name
        np.testing.assert_allclose(found[name], theirs, atol=1e-4 * scale, err_msg=name)


def _named(case: Case, params: Params) -> dict[str, np.ndarray]:
    """Our tree under transformers' names (pooler left out: ForSequenceClassification has none)."""
    found = {
        f'roberta.{k}': v for k, v in family_of(case.model.config).export_encoder(params['encoder'], case.model.config)
    }
    return found | dict(export_head(params['heads']['x'], PAIR, 'hf', case.model.config))


def _torch_adamw(module: Any, case: Case, spec: OptimizerSpec, steps: int) -> list[float]:
    from transformers import get_linear_schedule_with_warmup

    decay = [p for n, p in module.named_parameters() if not n.endswith('bias') and 'LayerNorm' not in n]
    rest = [p for n, p in module.named_parameters() if n.endswith('bias') or 'LayerNorm' in n]
    groups = [{'params': decay, 'weight_decay': spec.weight_decay}, {'params': rest, 'weight_decay': 0.0}]
    betas = (spec.beta1, spec.beta2)
    optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, betas=betas, eps=spec.epsilon, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, round(spec.warmup * steps), steps)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = module(**case.torch_inputs(), labels=torch.tensor(case.labels).long()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), spec.clip_norm)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ('case', 'steps'),
    # The embedded encoder's gradients are compared above; what an optimizer makes of them is no other there.
    [('tiny', 20), pytest.param('embedded', 20, marks=pytest.mark.slow)],
    indirect=['case'],
)
def test_adamw_steps(case: Case, steps: int) -> None:
    """Clipping, warm-up, decay mask: parameters and losses after `steps` steps. Adam turns the rounding of the key
    bias's zero gradient into full steps, so it is compared by its effect: the logits.
    """
    spec = OptimizerSpec(learning_rate=1e-4, epsilon=1e-6, warmup=0.2, clip_norm=0.5)
    mesh = make_mesh()
    optimizer = Optimizer(spec, steps)
    trained = {k: case.params[k] for k in ('encoder', 'heads')}
    state = init_state(put_tree(trained, mesh), optimizer, mesh)
    step = make_train_step(case.model, 'x', ProgramHead(PAIR), optimizer, mesh=mesh)
    rows = {'ids': case.ids, 'segments': case.segments, 'label': case.labels, 'valid': np.ones(6, np.float32)}
    losses = []
    for _ in range(steps):
        state, metrics = step(state, put_batch(rows, mesh), jax.random.key(0))
        losses.append(float(metrics['loss']))
    module = copy.deepcopy(case.torch)
    want = _torch_adamw(module, case, spec, steps)
    np.testing.assert_allclose(losses, want, atol=1e-4)
    assert abs(losses[-1] - losses[0]) > 1e-3  # something was learned, else nothing is compared
    found = _named(case, jax.device_get(state['params']))
    for name, p in module.named_parameters():
        if not name.endswith('self.key.bias'):
            np.testing.assert_allclose(found[name], p.detach().numpy(), atol=1e-4, err_msg=name)
    with torch.no_grad():
        theirs = module(**case.torch_inputs()).logits.numpy()
    ours = case.model.logits(state['params'], 'x', PAIR, jnp.asarray(case.ids), jnp.asarray(case.segments))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_pooled_output(tmp_path: Path, tiny_tokenizer: Path) -> None:
    config = tiny_config()
    model = Model(config)
    params = random_params(model, {})
    module = torch_model(config, params, tiny_tokenizer, tmp_path / 'm')
    ids, segments = batch(config)
    with torch.no_grad():
        want = module(torch.tensor(ids).long(), torch.tensor(segments).long()).pooler_output.numpy()
    np.testing.assert_allclose(model.pool(params, model.encode(params, ids, segments)), want, atol=1e-4)
    names = dict(export_pooler(params['pooler']))
    np.testing.assert_array_equal(names['pooler.dense.weight'], module.pooler.dense.weight.detach().numpy())


@pytest.mark.parametrize(('kind', 'outputs'), [('tag', 5), ('span', 1), ('mlm', 1), ('choice', 1)])
def test_other_heads(kind: str, outputs: int, tmp_path: Path, tiny_tokenizer: Path) -> None:
    config, spec = tiny_config(), HeadSpec(kind, outputs)
    model = Model(config, style='hf')
    params = random_params(model, {'x': spec})
    module = torch_model(config, params, tiny_tokenizer, tmp_path / 'm', ('x', spec))
    ids, segments = batch(config, rows=6)
    if kind == 'choice':
        ids, segments = ids.reshape(2, 3, -1), segments.reshape(2, 3, -1)
    with torch.no_grad():
        out = module(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(segments).long())
    want = torch.stack([out.start_logits, out.end_logits], -1) if kind == 'span' else out.logits
    ours, theirs = np.asarray(model.logits(params, 'x', spec, ids, segments)), want.numpy()
    real = segments > 0
    if kind != 'choice':
        ours, theirs = ours[real], theirs[real]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize('style', ['jiant', 'mean'])
def test_two_layer_pair_heads_written_out_in_torch(style: str, tmp_path: Path, tiny_tokenizer: Path) -> None:
    """The authors' head on transformers' pooler output (jiant: modeling/heads.py), and on the mean over the tokens."""
    config = tiny_config()
    model = Model(config, style=style)
    params = random_params(model, {'x': PAIR})
    module = torch_model(config, params, tiny_tokenizer, tmp_path / 'm')
    ids, segments = batch(config)
    head = jax.tree.map(torch.tensor, params['heads']['x'])
    with torch.no_grad():
        outputs, real = (
            module(torch.tensor(ids).long(), torch.tensor(segments).long()),
            torch.tensor(segments)[..., None],
        )
        mean = (outputs.last_hidden_state * real).sum(1) / real.sum(1)
        vector = outputs.pooler_output if style == 'jiant' else mean
        inner = torch.tanh(vector @ head['dense']['kernel'] + head['dense']['bias'])
        want = inner @ head['out']['kernel'] + head['out']['bias']
    np.testing.assert_allclose(model.logits(params, 'x', PAIR, ids, segments), want.numpy(), atol=1e-4)
