"""What every encoder family is compared in with transformers: states, logits, loss, gradients, optimizer steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from one_head import make_train_step
from torch_reference import batch, random_params, torch_model

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.data.labels import IGNORED
from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.family import POOLER
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.models.model import Model, Params
from xlmr_flax.models.weights import export_head, export_pooler
from xlmr_flax.parallel.mesh import make_mesh, put_batch, put_tree
from xlmr_flax.train.head_padding import ProgramHead
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.step import init_state

Types = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Parity:
    """One encoder of a family with one head of transformers' class, on both sides.

    types: (ids, segments) -> token types, for an encoder that has them.
    """

    def __init__(
        self, config: EncoderConfig, spec: HeadSpec, tokenizer: Path, out: Path, length: int, types: Types | None = None
    ):
        self.config, self.spec, self.model = config, spec, Model(config, style='hf')
        self.params = random_params(self.model, {'x': spec})
        self.torch: Any = torch_model(config, self.params, tokenizer, out, ('x', spec))
        self.ids, self.segments = batch(config, rows=6, length=length)
        if spec.kind == 'choice':
            self.ids, self.segments = (x.reshape(2, 3, -1) for x in (self.ids, self.segments))
        self.types = types
        self.labels = self._labels()

    def _labels(self) -> np.ndarray:
        random, shape = np.random.default_rng(3), self.ids.shape
        if self.spec.kind == 'pair':
            return random.integers(0, self.spec.outputs, shape[0]).astype(np.int32)
        if self.spec.kind == 'choice':
            return random.integers(0, shape[1], shape[0]).astype(np.int32)
        top = self.config.vocab_size if self.spec.kind == 'mlm' else self.spec.outputs
        return np.where(self.segments > 0, random.integers(0, top, shape), IGNORED).astype(np.int32)

    def torch_labels(self) -> torch.Tensor:
        """The labels with torch's number for tokens without one."""
        return torch.tensor(np.where(self.labels == IGNORED, -100, self.labels)).long()

    def inputs(self) -> dict[str, torch.Tensor]:
        arrays = {'input_ids': self.ids, 'attention_mask': self.segments}
        if self.types is not None:
            arrays['token_type_ids'] = self.types(self.ids, self.segments)
        return {name: torch.tensor(value).long() for name, value in arrays.items()}

    def check_states(self) -> None:
        """Every hidden state, and stopping at some layers."""
        encode = jax.jit(self.model.encode, static_argnames=('layer', 'all_layers'))
        states = encode(self.params, self.ids, self.segments, all_layers=True)
        encoder = getattr(self.torch, self.torch.base_model_prefix)
        with torch.no_grad():
            want = encoder(**self.inputs(), output_hidden_states=True).hidden_states
        assert len(states) == len(want) == self.config.num_layers + 1
        real = self.segments > 0
        for layer, (ours, theirs) in enumerate(zip(states, want, strict=True)):
            np.testing.assert_allclose(np.asarray(ours)[real], theirs.numpy()[real], atol=1e-4, err_msg=f'{layer}')
        for layer in (0, 1, self.config.num_layers - 1, self.config.num_layers):
            stopped = encode(self.params, self.ids, self.segments, layer=layer)
            np.testing.assert_allclose(stopped, states[layer], atol=1e-5, err_msg=f'stopped at {layer}')

    def check_logits(self) -> None:
        with torch.no_grad():
            out = self.torch(**self.inputs())
        span = self.spec.kind == 'span'
        theirs = (torch.stack([out.start_logits, out.end_logits], -1) if span else out.logits).numpy()
        logits = jax.jit(lambda params, *rows: self.model.logits(params, 'x', self.spec, *rows))
        ours = np.asarray(logits(self.params, self.ids, self.segments))
        if kind_of(self.spec).by_token or self.spec.kind == 'mlm':
            ours, theirs = ours[self.segments > 0], theirs[self.segments > 0]
        np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def targets(self) -> dict[str, np.ndarray]:
        name = 'label' if self.spec.kind in ('pair', 'choice') else 'labels'
        return {name: self.labels, 'valid': np.ones(len(self.ids), np.float32)}

    def loss(self, params: Params) -> jax.Array:
        ids, segments = jnp.asarray(self.ids), jnp.asarray(self.segments)
        logits = self.model.logits(params, 'x', self.spec, ids, segments)
        batch = {name: jnp.asarray(value) for name, value in self.targets().items()}
        total, count, _ = kind_of(self.spec).loss_sums(logits, batch)
        return total / count

    def named(self, params: Params) -> dict[str, np.ndarray]:
        """Our tree under transformers' names."""
        family = family_of(self.config)
        tensors = dict(family.export_encoder(params['encoder'], self.config))
        if kind_of(self.spec).head_input(self.config, 'hf') == POOLER:
            tensors |= dict(export_pooler(params['pooler']))
        found = {family.prefixes[1] + name: value for name, value in tensors.items()}
        return found | dict(export_head(params['heads']['x'], self.spec, 'hf', self.config))

    def check_loss_and_gradients(self) -> None:
        loss, grads = jax.jit(jax.value_and_grad(self.loss))(self.params)
        self.torch.zero_grad()
        theirs = self.torch(**self.inputs(), labels=self.torch_labels()).loss
        theirs.backward()
        assert abs(float(loss) - float(theirs.detach())) < 1e-4
        want = {name: p.grad.numpy() for name, p in self.torch.named_parameters() if p.grad is not None}
        found = self.named(jax.device_get(grads))
        assert want.keys() == found.keys()
        # Their true gradient is 0: a softmax does not see a shift of all scores.
        zero = ('self.key.bias', 'classifier.bias') if self.spec.kind == 'choice' else ('self.key.bias',)
        for name, gradient in want.items():
            if not name.endswith(zero):
                limit = 1e-4 * np.abs(gradient).max()
                assert limit > 0, name
                np.testing.assert_allclose(found[name], gradient, atol=limit, err_msg=name)

    def check_steps(self, steps: int = 10) -> None:
        """Losses and parameters after AdamW steps with warm-up, clipping, weight decay and layer-wise decay."""
        from xlmr_flax.tools.torch.torch_modules import learning_rates, make_optimizer

        spec = OptimizerSpec(learning_rate=1e-4, epsilon=1e-6, warmup=0.2, clip_norm=0.5, layer_decay=0.7)
        mesh, optimizer = make_mesh(), Optimizer(spec, steps)
        state = init_state(put_tree(self.params, mesh), optimizer, mesh)
        step = make_train_step(self.model, 'x', ProgramHead(self.spec), optimizer, mesh=mesh)
        rows = {'ids': self.ids, 'segments': self.segments, **self.targets()}
        torch_optimizer = make_optimizer(self.torch, spec)
        schedule = learning_rates(torch_optimizer, spec, steps)
        ours, theirs = [], []
        for _ in range(steps):
            state, metrics = step(state, put_batch(rows, mesh), jax.random.key(0))
            ours.append(float(metrics['loss']))
            torch_optimizer.zero_grad()
            loss = self.torch(**self.inputs(), labels=self.torch_labels()).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.torch.parameters(), spec.clip_norm)
            torch_optimizer.step()
            schedule.step()
            theirs.append(float(loss.detach()))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert abs(ours[-1] - ours[0]) > 1e-3
        found = self.named(jax.device_get(state['params']))
        for name, value in self.torch.named_parameters():
            if not name.endswith('self.key.bias'):
                np.testing.assert_allclose(found[name], value.detach().numpy(), atol=1e-4, err_msg=name)


def check_packed(model: Model, params: Params, spec: HeadSpec, texts: list[np.ndarray], length: int) -> None:
    """Texts packed into one row give each the logits that it has alone (pair heads)."""
    ids, segments = np.zeros((2, 1, length), np.int32)
    starts, place = [], 0
    for number, text in enumerate(texts, 1):
        starts.append(place)
        ids[0, place : place + len(text)], segments[0, place : place + len(text)] = text, number
        place += len(text)
    logits = jax.jit(lambda params, *rows, **more: model.logits(params, 'x', spec, *rows, **more))
    packed = logits(params, ids, segments, starts=jnp.asarray([starts]))
    for number, text in enumerate(texts):
        one = np.zeros((2, 1, length), np.int32)
        one[0, 0, : len(text)], one[1, 0, : len(text)] = text, 1
        alone = logits(params, *one)
        np.testing.assert_allclose(packed[0, number], alone[0], atol=1e-5)
