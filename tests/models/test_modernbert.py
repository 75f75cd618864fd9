"""ModernBERT against transformers on a small random shape with windows, packed rows, import and export, a run."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='parity is measured against torch')

from family_parity import Parity, check_packed  # noqa: E402
from torch_reference import random_params  # noqa: E402

from xlmr_flax.encoders.attention.window import window_attention, window_mask  # noqa: E402
from xlmr_flax.encoders.config import ModelError  # noqa: E402
from xlmr_flax.encoders.logical_axes import UNCONSTRAINED  # noqa: E402
from xlmr_flax.encoders.modernbert import ModernBert  # noqa: E402
from xlmr_flax.encoders.modernbert_encoder import ModernBertConfig  # noqa: E402
from xlmr_flax.kinds import HeadSpec  # noqa: E402
from xlmr_flax.models import hf  # noqa: E402
from xlmr_flax.models.model import Model  # noqa: E402
from xlmr_flax.models.source import open_source, save_checkpoint  # noqa: E402

# The first layer, a period of local, local, global and two more; every size another; rows longer than the window.
CONFIG = ModernBertConfig(
    vocab_size=101, hidden_size=24, num_layers=6, num_heads=4, ffn_size=40, max_positions=64, initializer_range=0.2,
    window=8, global_theta=1000.0, local_theta=100.0, pad_id=1,
)  # fmt: skip
MEAN = dataclasses.replace(CONFIG, pooling='mean')
PAIR, MLM = HeadSpec('pair', 3), HeadSpec('mlm')
LENGTH = 23  # not a multiple of half a window


@pytest.fixture(scope='module')
def pair(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Parity:
    return Parity(CONFIG, PAIR, tiny_tokenizer, tmp_path_factory.mktemp('modernbert') / 'm', LENGTH)


def test_every_hidden_state(pair: Parity) -> None:
    pair.check_states()


@pytest.mark.parametrize(
    ('config', 'spec'),
    [
        (CONFIG, HeadSpec('tag', 5)),
        (CONFIG, HeadSpec('span')),
        (CONFIG, HeadSpec('choice')),
        (MEAN, HeadSpec('choice')),
    ],
    ids=['tag', 'span', 'choice', 'mean choice'],
)
def test_logits_of_heads(config: ModernBertConfig, spec: HeadSpec, tmp_path: Path, tiny_tokenizer: Path) -> None:
    Parity(config, spec, tiny_tokenizer, tmp_path / 'm', LENGTH).check_logits()


def test_logits_loss_and_gradients(pair: Parity) -> None:
    pair.check_logits()
    pair.check_loss_and_gradients()


@pytest.mark.parametrize(('config', 'spec'), [(MEAN, PAIR), (CONFIG, MLM)], ids=['mean', 'mlm'])
def test_loss_and_gradients_of(config: ModernBertConfig, spec: HeadSpec, tmp_path: Path, tiny_tokenizer: Path) -> None:
    case = Parity(config, spec, tiny_tokenizer, tmp_path / 'm', LENGTH)
    case.check_logits()
    case.check_loss_and_gradients()


def test_ten_optimizer_steps(tmp_path: Path, tiny_tokenizer: Path) -> None:
    Parity(CONFIG, PAIR, tiny_tokenizer, tmp_path / 'm', LENGTH).check_steps()


@pytest.mark.parametrize('attention', ['xla_cpu', 'xla'])
@pytest.mark.parametrize('config', [CONFIG, MEAN], ids=['cls', 'mean'])
def test_packed_rows_keep_windows_and_positions_inside_segments(config: ModernBertConfig, attention: str) -> None:
    model = Model(config, style='hf', attention=attention)
    params, random = random_params(model, {'x': PAIR}), np.random.default_rng(1)
    texts = [random.integers(5, 101, n).astype(np.int32) for n in (17, 5, 11, 3)]
    check_packed(model, params, PAIR, texts, 40)


def test_window_attention_is_attention_under_a_window_mask() -> None:
    """Against softmax over a dense mask, for lengths around multiples of the block; no [T, T] array in the program."""
    random, side = np.random.default_rng(0), 4
    for length in (3, 8, 13, 21):
        qkv = jnp.asarray(random.normal(size=(3, 2, length, 2, 6)), jnp.float32)
        segments = jnp.asarray(np.sort(random.integers(0, 3, (2, length)))[:, ::-1].copy(), jnp.int32)
        near = np.abs(np.subtract.outer(np.arange(length), np.arange(length))) <= side
        seen = (segments[:, :, None] == segments[:, None]) & (segments[:, None] > 0) & near
        scores = jnp.einsum('bqhk,bshk->bhqs', qkv[0], qkv[1]) * 6**-0.5
        weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30), axis=-1)
        want = jnp.einsum('bhqs,bshk->bqhk', weights, qkv[2]).reshape(2, length, 12)
        found = window_attention(qkv, window_mask(segments, side), None, 0.0, UNCONSTRAINED)
        real = np.asarray(segments) > 0
        np.testing.assert_allclose(np.asarray(found)[real], np.asarray(want)[real], atol=1e-5)
    shape = jax.ShapeDtypeStruct((3, 1, 512, 2, 6), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 512), jnp.int32)
    compute = jax.jit(lambda q, s: window_attention(q, window_mask(s, 32), None, 0.0, UNCONSTRAINED))
    text = compute.lower(shape, mask)
    assert '512x512' not in text.as_text() and '32x96' in text.as_text()


def test_dropout_of_every_site_changes_the_states() -> None:
    ids = jnp.full((1, LENGTH), 7, jnp.int32)
    for rate in ('embedding_dropout', 'ffn_dropout', 'attention_dropout'):
        model = Model(dataclasses.replace(CONFIG, **{rate: 0.5}))
        encode, params = jax.jit(model.encode), random_params(model, {})
        plain = encode(params, ids, jnp.ones_like(ids))
        one, same, other = (encode(params, ids, jnp.ones_like(ids), jax.random.key(k)) for k in (0, 0, 1))
        np.testing.assert_array_equal(one, same)
        assert not np.allclose(one, plain, atol=1e-3) and not np.allclose(one, other, atol=1e-3)


def test_export_and_import_are_inverse(pair: Parity, tmp_path: Path, tiny_tokenizer: Path) -> None:
    """Bit by bit, with the masked-LM head; config.json as transformers 5 and as earlier versions write it."""
    params = random_params(Model(MEAN), {'mlm': MLM})
    hf.save(tmp_path / 'a', MEAN, params, tiny_tokenizer, head=('mlm', MLM))
    source = open_source(f'hf:{tmp_path}/a')
    assert source.config == MEAN and dict(source.heads) == {'mlm': MLM}
    back = source.load()
    want = {'encoder': params['encoder'], 'heads': params['heads']}
    jax.tree.map(np.testing.assert_array_equal, back, want)
    pair.torch.save_pretrained(tmp_path / 'b')
    raw = json.loads((tmp_path / 'b' / 'config.json').read_text('utf-8'))
    assert 'rope_parameters' in raw and 'layer_types' in raw
    assert ModernBert().read_config(raw, 'config.json') == CONFIG
    save_checkpoint(
        tmp_path / 'c',
        CONFIG,
        params,
        tiny_tokenizer,
        style='hf',
        heads={'mlm': MLM},
        labels={},
        max_length=32,
        extra={},
    )
    again = open_source(f'ckpt:{tmp_path}/c')
    assert again.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, again.load(), params)


@pytest.mark.parametrize(
    ('change', 'name'),
    [
        ({'norm_bias': True}, 'norm_bias'),
        ({'hidden_activation': 'silu'}, 'hidden_activation'),
        ({'classifier_pooling': 'max'}, 'classifier_pooling'),
        ({'layer_types': ['sliding_attention'] * 6}, 'layer_types'),
        ({'global_attn_every_n_layers': 0}, 'global_attn_every_n_layers'),
        ({'rope_parameters': {'full_attention': {'rope_type': 'yarn'}}}, 'rope_parameters'),
        ({'local_rope_theta': 'x'}, 'local_rope_theta'),
        ({'local_attention': 1}, 'local_attention'),
    ],
)
def test_what_is_not_computed_is_refused(change: dict[str, Any], name: str) -> None:
    raw = ModernBert().write_config(CONFIG) | change
    with pytest.raises(ModelError, match=f'there/config.json.*{name}'):
        ModernBert().read_config(raw, 'there/config.json')


def test_counts_of_operations() -> None:
    """mmBERT base: 110 M weights in layers (arXiv 2509.06888); a local layer costs the same per token at any length."""
    base, family = ModernBert.sizes['base'], ModernBert()
    assert family.layer_weights(base) == 22 * (4 * 768**2 + 3 * 768 * 1152)
    leaves = jax.tree_util.tree_leaves_with_path(Model(base).shapes({})['encoder'])
    weights = sum(np.prod(x.shape) for path, x in leaves if not re.search('norm|word', jax.tree_util.keystr(path)))
    assert weights == family.layer_weights(base)
    longer = family.attention_flops(base, 8192) - family.attention_flops(base, 4096)
    assert longer == 8 * 4 * 768 * 4096  # of the eight global layers alone
    assert base.max_length == 8192
