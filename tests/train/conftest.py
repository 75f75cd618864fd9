"""One tiny encoder (dropout 0 unless asked for) with random data for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import pytest
from one_head import make_train_step

from xlmr_flax.config import OptimizerSpec
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import make_mesh, put_batch, put_tree
from xlmr_flax.train.head_padding import ProgramHead
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.step import init_state

CONFIG = EncoderConfig(
    vocab_size=1300, hidden_size=16, num_layers=1, num_heads=2, ffn_size=24, max_positions=34,
    dropout=0.0, attention_dropout=0.0, initializer_range=0.2,
)  # fmt: skip
PAIR = HeadSpec('pair', 3)


@dataclasses.dataclass(frozen=True)
class Tiny:
    """The head is called 'x' and may be of any kind."""

    model: Model
    params: Params
    head: HeadSpec

    def steps(
        self, batches: list[dict[str, np.ndarray]], spec: OptimizerSpec, accumulation: int = 1, total: int = 0
    ) -> tuple[Params, list[dict[str, float]]]:
        """(host parameters, metrics by step) after one optimizer step a batch."""
        mesh = make_mesh()
        optimizer, step = _step(self.model, self.head, spec, accumulation, total or len(batches))
        state = init_state(put_tree(self.params, mesh), optimizer, mesh)
        metrics = []
        for batch in batches:
            state, values = step(state, put_batch(batch, mesh), jax.random.key(0))
            metrics.append({k: float(v) for k, v in values.items()})
        return jax.device_get(state['params']), metrics


@lru_cache
def _step(model: Model, head: HeadSpec, spec: OptimizerSpec, accumulation: int, total: int) -> tuple[Any, Any]:
    """Compiled once for all tests that ask for the same."""
    optimizer = Optimizer(spec, total)
    return optimizer, make_train_step(
        model, 'x', ProgramHead(head), optimizer, mesh=make_mesh(), accumulation=accumulation
    )


def make_tiny(kind: str = 'pair', outputs: int = 3, style: str = 'jiant', **changes: Any) -> Tiny:
    head = HeadSpec(kind, outputs)
    model = Model(dataclasses.replace(CONFIG, **changes), style=style)
    params = jax.device_get(model.init(jax.random.key(0), {'x': head}))
    random = np.random.default_rng(1)  # biases that are not 0
    return Tiny(model, jax.tree.map(lambda x: x + random.normal(0, 0.02, x.shape).astype(np.float32), params), head)


def make_batch(rows: int, length: int = 12, seed: int = 0, vocab: int = 1300) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = random.integers(3, length + 1, rows)
    segments = (np.arange(length) < lengths[:, None]).astype(np.int32)
    ids = np.where(segments > 0, random.integers(5, vocab, (rows, length)), 1).astype(np.int32)
    label = random.integers(0, 3, rows).astype(np.int32)
    return {'ids': ids, 'segments': segments, 'label': label, 'valid': np.ones(rows, np.float32)}


@pytest.fixture(scope='session')
def tiny() -> Tiny:
    return make_tiny()


@pytest.fixture
def tiny_of() -> Callable[..., Tiny]:
    return make_tiny


@pytest.fixture
def batch_of() -> Callable[..., dict[str, np.ndarray]]:
    return make_batch


@pytest.fixture(scope='session')
def data() -> Encoded:
    """50 rows of 4 to 12 tokens."""
    random = np.random.default_rng(3)
    rows = [random.integers(5, 1300, random.integers(4, 13)) for _ in range(50)]
    label = random.integers(0, 3, 50).astype(np.int32)
    return Encoded('pair', Ragged.from_rows(rows), label, tuple(f'row-{i}' for i in range(50)))
