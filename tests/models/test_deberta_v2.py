"""mDeBERTa-v3 against transformers on small shapes: states, heads, gradients, packed rows, directories, runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip('torch', reason='parity is measured against torch')

from family_parity import Parity, check_packed  # noqa: E402
from sentencepiece_files import DEBERTA, PIECES, model_file  # noqa: E402
from torch_reference import random_params  # noqa: E402

from xlmr_flax.encoders.attention import disentangled  # noqa: E402
from xlmr_flax.encoders.attention.disentangled import buckets_of, disentangled_attention  # noqa: E402
from xlmr_flax.encoders.compute import ComputeOptions  # noqa: E402
from xlmr_flax.encoders.config import ModelError  # noqa: E402
from xlmr_flax.encoders.deberta_v2 import DebertaV2, DebertaV2Config, DisentangledAttention, Shared  # noqa: E402
from xlmr_flax.encoders.dropout import seed_of  # noqa: E402
from xlmr_flax.encoders.logical_axes import UNCONSTRAINED  # noqa: E402
from xlmr_flax.kinds import HeadSpec  # noqa: E402
from xlmr_flax.models import hf  # noqa: E402
from xlmr_flax.models.model import Model  # noqa: E402
from xlmr_flax.models.source import open_source, save_checkpoint  # noqa: E402

# Rows longer than the linear buckets (4 to a side) and than the furthest distance, so that all three parts are used.
CONFIG = DebertaV2Config(
    vocab_size=101, hidden_size=24, num_layers=3, num_heads=4, ffn_size=40, max_positions=64, dropout=0.0,
    attention_dropout=0.0, pad_id=1, bos_id=0, eos_id=2, initializer_range=0.2, buckets=8, furthest=20,
)  # fmt: skip
LATER = dataclasses.replace(CONFIG, legacy=False)
PAIR, MLM = HeadSpec('pair', 3), HeadSpec('mlm')
LENGTH = 27


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks shorter than the rows and no divisor of their length, so that the loop over blocks is used."""
    set_block(monkeypatch, 8)


def set_block(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    jax.clear_caches()  # programs of other blocks
    monkeypatch.setattr(disentangled, 'BLOCK', size)


@pytest.fixture(scope='module')
def pair(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Parity:
    return Parity(CONFIG, PAIR, tiny_tokenizer, tmp_path_factory.mktemp('deberta') / 'm', LENGTH)


def test_states_loss_and_gradients(pair: Parity) -> None:
    pair.check_states()
    pair.check_logits()
    pair.check_loss_and_gradients()


def test_ten_optimizer_steps(tmp_path: Path, tiny_tokenizer: Path) -> None:
    Parity(CONFIG, PAIR, tiny_tokenizer, tmp_path / 'm', LENGTH).check_steps()


@pytest.mark.usefixtures('small_blocks')
def test_states_and_gradients_in_blocks(pair: Parity) -> None:
    pair.check_states()
    pair.check_loss_and_gradients()


@pytest.mark.parametrize(
    ('config', 'spec'),
    [
        (CONFIG, HeadSpec('tag', 5)),
        (CONFIG, HeadSpec('choice')),
        (CONFIG, HeadSpec('span', 2)),
        (CONFIG, MLM),
        (LATER, MLM),
    ],
    ids=['tag', 'choice', 'span', 'mlm', 'later mlm'],
)
def test_other_heads(config: DebertaV2Config, spec: HeadSpec, tmp_path: Path, tiny_tokenizer: Path) -> None:
    case = Parity(config, spec, tiny_tokenizer, tmp_path / 'm', LENGTH)
    case.check_logits()
    if spec.kind != 'span':  # transformers' loss of spans has other labels
        case.check_loss_and_gradients()


@pytest.mark.parametrize(('buckets', 'furthest'), [(256, 512), (8, 20), (32, 4096)])
def test_buckets_are_transformers(buckets: int, furthest: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distances = np.arange(-3 * furthest, 3 * furthest + 1)
    theirs = make_log_bucket_position(torch.tensor(distances), buckets, furthest).long().numpy()
    found = buckets_of(distances, buckets, furthest)
    np.testing.assert_array_equal(found, theirs)
    assert (found[distances == furthest - 1], found[distances == 2]) == (buckets - 1, 2)


@pytest.mark.parametrize('block', [4, 128])
def test_attention_is_the_definition(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a dense matrix of scores, for lengths around multiples of the block."""
    set_block(monkeypatch, block)
    random = np.random.default_rng(0)
    for length in (1, 2, 8, 13, 21):
        qkv = random.normal(size=(3, 2, length, 2, 6)).astype(np.float32)
        position = random.normal(size=(2, 16, 2, 6)).astype(np.float32)
        segments = np.sort(random.integers(0, 3, (2, length)))[:, ::-1].astype(np.int32)
        index = np.clip(buckets_of(np.subtract.outer(np.arange(length), np.arange(length)), 8, 20) + 8, 0, 15)
        scores = np.einsum('bqhk,bshk->bhqs', qkv[0], qkv[1])
        scores += np.einsum('bqhk,qshk->bhqs', qkv[0], position[1][index])
        scores += np.einsum('bshk,qshk->bhqs', qkv[1], position[0][index])
        seen = (segments[:, :, None] == segments[:, None]) & (segments[:, None] > 0)
        weights = jax.nn.softmax(np.where(seen[:, None], scores * 18**-0.5, -1e30), axis=-1)
        want = np.einsum('bhqs,bshk->bqhk', weights, qkv[2]).reshape(2, length, 12)
        first, second, third = (jnp.asarray(x) for x in (qkv, position, segments))
        found = np.asarray(disentangled_attention(first, second, third, 20, None, 0.0, UNCONSTRAINED))
        np.testing.assert_allclose(found[segments > 0], want[segments > 0], atol=1e-5)


def test_no_scores_of_whole_rows() -> None:
    """Neither pass has an array with two axes of the row's length."""
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3, 1, 512, 2, 6), (2, 64, 2, 6))]
    segments = jax.ShapeDtypeStruct((1, 512), jnp.int32)

    def total(qkv: jax.Array, position: jax.Array, segments: jax.Array) -> jax.Array:
        return disentangled_attention(qkv, position, segments, 400, None, 0.0, UNCONSTRAINED).sum()

    text = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*shapes, segments).as_text()
    assert '512x512' not in text and '128x512' in text and '4x1x2x128x512' not in text


def test_dropout_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG, attention_dropout=0.5)
    model, ids = Model(config), jnp.arange(5, 5 + LENGTH, dtype=jnp.int32)[None]
    params, ones = random_params(model, {}), jnp.ones_like(ids)
    whole = model.encode(params, ids, ones, jax.random.key(0))
    assert not np.allclose(whole, model.encode(params, ids, ones, jax.random.key(1)), atol=1e-3)
    set_block(monkeypatch, 8)
    np.testing.assert_allclose(model.encode(params, ids, ones, jax.random.key(0)), whole, atol=1e-5)


def test_the_relative_embeddings_have_dropout() -> None:
    """Of the rate of hidden states, with other masks than the attention weights."""
    random, segments = np.random.default_rng(0), jnp.ones((2, LENGTH), jnp.int32)
    x, relative = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((2, LENGTH, 24), (16, 24)))

    def output(rate: float, key: int) -> np.ndarray:
        config = dataclasses.replace(CONFIG, dropout=rate)
        attention = DisentangledAttention(config, rngs=nnx.Rngs(params=0))
        seed = jnp.concatenate([seed_of(jax.random.key(key), site) for site in (0, 1)])
        return np.asarray(attention(x, Shared(segments, relative), seed, ComputeOptions()))

    np.testing.assert_array_equal(output(0.0, 0), output(0.0, 1))
    assert not np.allclose(output(0.5, 0), output(0.0, 0), atol=1e-3)
    assert not np.allclose(output(0.5, 0), output(0.5, 1), atol=1e-3)


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize('attention', ['xla_cpu', 'xla', 'interpret'])
def test_packed_rows(attention: str) -> None:
    model = Model(CONFIG, style='hf', attention=attention)
    params, random = random_params(model, {'x': PAIR}), np.random.default_rng(1)
    check_packed(model, params, PAIR, [random.integers(5, 101, n).astype(np.int32) for n in (17, 5, 11, 3)], 40)


def test_export_and_import_are_inverse(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """Bit by bit: the bare encoder, with either masked-LM head, and as a run's model.

    The standard deviation of new parameters is not read from config.json; special ids are the tokenizer's.
    """
    for config in (CONFIG, LATER):
        params = random_params(Model(config), {'mlm': MLM})
        out = tmp_path / str(config.legacy)
        hf.save(out, config, params, tiny_tokenizer, head=('mlm', MLM))
        source = open_source(f'hf:{out}')
        assert source.config == dataclasses.replace(config, initializer_range=0.02)
        assert dict(source.heads) == {'mlm': MLM}
        want = {'encoder': params['encoder'], 'heads': params['heads']}
        jax.tree.map(np.testing.assert_array_equal, source.load(), want)
    hf.save(tmp_path / 'bare', CONFIG, params, tiny_tokenizer)
    jax.tree.map(np.testing.assert_array_equal, open_source(f'hf:{tmp_path}/bare').load(), {'encoder': want['encoder']})
    save_checkpoint(
        tmp_path / 'c', LATER, params, tiny_tokenizer, style='hf', heads={'mlm': MLM}, labels={}, max_length=32,
        extra={},
    )  # fmt: skip
    again = open_source(f'ckpt:{tmp_path}/c')
    assert again.config == LATER
    jax.tree.map(np.testing.assert_array_equal, again.load(), params)


def test_a_directory_of_the_real_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mDeBERTa's config.json, which names no class; sharded float16 weights; spm.model as the only tokenizer."""
    import transformers

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    fields: dict[str, Any] = {
        'vocab_size': 101, 'hidden_size': 24, 'num_hidden_layers': 3, 'num_attention_heads': 4, 'intermediate_size': 40,
        'max_position_embeddings': 64, 'relative_attention': True, 'position_buckets': 8, 'norm_rel_ebd': 'layer_norm',
        'share_att_key': True, 'pos_att_type': 'p2c|c2p', 'position_biased_input': False, 'max_relative_positions': -1,
    }  # fmt: skip
    raw = transformers.DebertaV2Config(**fields)
    torch.manual_seed(0)
    made = transformers.DebertaV2Model(raw).half()
    made.save_pretrained(tmp_path / 'm', max_shard_size='10KB')
    assert (tmp_path / 'm' / 'model.safetensors.index.json').is_file()
    about = json.loads((tmp_path / 'm' / 'config.json').read_text('utf-8'))
    del about['architectures']
    (tmp_path / 'm' / 'config.json').write_text(json.dumps(about), 'utf-8')
    (tmp_path / 'm' / 'spm.model').write_bytes(model_file([*DEBERTA, *PIECES]))
    source = open_source(f'hf:{tmp_path}/m')
    want = dataclasses.replace(
        CONFIG, dropout=0.1, attention_dropout=0.1, initializer_range=0.02, furthest=64, pad_id=0,
        bos_id=1,
    )  # fmt: skip
    assert source.config == want and not source.heads and source.config.max_length == 64
    ids = np.arange(4, 10)[None]
    with torch.no_grad():
        theirs = made.float().eval()(torch.tensor(ids), torch.ones(ids.shape)).last_hidden_state.numpy()
    found = Model(want).encode(source.load(), jnp.asarray(ids, jnp.int32), jnp.ones(ids.shape, jnp.int32))
    np.testing.assert_allclose(found, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ('change', 'name'),
    [
        ({'relative_attention': False}, 'relative_attention'),
        ({'share_att_key': False}, 'share_att_key'),
        ({'position_biased_input': True}, 'position_biased_input'),
        ({'norm_rel_ebd': 'none'}, 'norm_rel_ebd'),
        ({'type_vocab_size': 2}, 'type_vocab_size'),
        ({'conv_kernel_size': 3}, 'conv_kernel_size'),
        ({'pos_att_type': 'c2p'}, 'pos_att_type'),
        ({'pos_att_type': 3}, 'pos_att_type'),
        ({'position_buckets': -1}, 'position_buckets'),
        ({'max_relative_positions': 4}, 'max_relative_positions'),
        ({'legacy': 3}, 'legacy'),
        ({'cls_dropout': 'x'}, 'cls_dropout'),
    ],
)
def test_what_is_not_computed_is_refused(change: dict[str, Any], name: str) -> None:
    raw = DebertaV2().write_config(CONFIG) | change
    with pytest.raises(ModelError, match=f'there/config.json.*{name}'):
        DebertaV2().read_config(raw, 'there/config.json')


def test_counts_of_operations() -> None:
    """mDeBERTa base: 86 M parameters in layers and 190 M in the word table (arXiv 2111.09543, table 6)."""
    base, family = DebertaV2.sizes['base'], DebertaV2()
    assert family.layer_weights(base) == 12 * (4 * 768**2 + 2 * 768 * 3072)
    leaves = jax.tree.leaves(Model(base).shapes({})['encoder'])
    assert round(sum(np.prod(x.shape) for x in leaves) / 1e6) == 278
    assert family.attention_flops(base, 512) == 12 * 12 * 768 * 512
