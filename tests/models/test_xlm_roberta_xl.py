"""XLM-R XL against transformers on a small random shape: states, heads, gradients, steps, packed rows, directories."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='parity is measured against torch')

from family_parity import Parity, check_packed  # noqa: E402
from torch_reference import random_params, tiny_config  # noqa: E402

from xlmr_flax.cli.main import main  # noqa: E402
from xlmr_flax.encoders.config import EncoderConfig, ModelError  # noqa: E402
from xlmr_flax.encoders.xlm_roberta_xl import XlmRobertaXl, XlmRobertaXlConfig  # noqa: E402
from xlmr_flax.kinds import HeadSpec  # noqa: E402
from xlmr_flax.models import hf  # noqa: E402
from xlmr_flax.models.model import Model  # noqa: E402
from xlmr_flax.models.source import open_source, save_checkpoint  # noqa: E402

CONFIG = XlmRobertaXlConfig(**dataclasses.asdict(tiny_config()))
PAIR, MLM = HeadSpec('pair', 3), HeadSpec('mlm')
LENGTH = 13


@pytest.mark.parametrize(
    'spec', [PAIR, HeadSpec('tag', 5), HeadSpec('choice'), HeadSpec('span', 2), MLM], ids=lambda spec: spec.kind
)
def test_parity(spec: HeadSpec, tmp_path: Path, tiny_tokenizer: Path) -> None:
    case = Parity(CONFIG, spec, tiny_tokenizer, tmp_path / 'm', LENGTH)
    case.check_logits()
    if spec.kind != 'span':  # transformers' loss of spans has other labels
        case.check_loss_and_gradients()
    if spec == PAIR:
        case.check_states()
        case.check_steps()


@pytest.mark.parametrize('attention', ['xla_cpu', 'xla', 'interpret'])
def test_packed_rows(attention: str) -> None:
    model = Model(CONFIG, style='hf', attention=attention)
    params, random = random_params(model, {'x': PAIR}), np.random.default_rng(1)
    check_packed(model, params, PAIR, [random.integers(5, 101, n).astype(np.int32) for n in (9, 4, 7)], 24)


def test_dropout_changes_the_states_as_its_key_says() -> None:
    ids = jnp.full((1, LENGTH), 7, jnp.int32)
    for rate in ('dropout', 'attention_dropout'):
        model = Model(dataclasses.replace(CONFIG, **{rate: 0.5}))
        encode, params = jax.jit(model.encode), random_params(model, {})
        plain = encode(params, ids, jnp.ones_like(ids))
        one, same, other = (encode(params, ids, jnp.ones_like(ids), jax.random.key(k)) for k in (0, 0, 1))
        np.testing.assert_array_equal(one, same)
        assert not np.allclose(one, plain, atol=1e-3) and not np.allclose(one, other, atol=1e-3)


def test_export_and_import_are_inverse(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """Bit by bit: the encoder with its pooler, with a masked-LM head, and as a run's model.

    The standard deviation of new parameters is not read from config.json.
    """
    params = random_params(Model(CONFIG), {'mlm': MLM})
    hf.save(tmp_path / 'a', CONFIG, params, tiny_tokenizer, head=('mlm', MLM))
    source = open_source(f'hf:{tmp_path}/a')
    assert source.config == dataclasses.replace(CONFIG, initializer_range=0.02) and dict(source.heads) == {'mlm': MLM}
    jax.tree.map(np.testing.assert_array_equal, source.load(), {'encoder': params['encoder'], 'heads': params['heads']})
    bare = {'encoder': params['encoder'], 'pooler': params['pooler']}
    hf.save(tmp_path / 'b', CONFIG, bare, tiny_tokenizer)
    jax.tree.map(np.testing.assert_array_equal, open_source(f'hf:{tmp_path}/b').load(), bare)
    save_checkpoint(
        tmp_path / 'c', CONFIG, params, tiny_tokenizer, style='hf', heads={'mlm': MLM}, labels={}, max_length=9,
        extra={},
    )  # fmt: skip
    again = open_source(f'ckpt:{tmp_path}/c')
    assert again.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, again.load(), params)


def test_a_directory_of_the_real_layout(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """As transformers saves it: sharded, float16, without a pooler, with a masked-LM head."""
    import transformers

    raw = transformers.XLMRobertaXLConfig(
        vocab_size=101, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40,
        max_position_embeddings=34,
    )  # fmt: skip
    torch.manual_seed(0)
    made = transformers.XLMRobertaXLForMaskedLM(raw).half()
    made.save_pretrained(tmp_path / 'm', max_shard_size='10KB')
    assert (tmp_path / 'm' / 'model.safetensors.index.json').is_file()
    (tmp_path / 'm' / 'tokenizer.json').write_bytes(tiny_tokenizer.read_bytes())
    source = open_source(f'hf:{tmp_path}/m')
    expected = dataclasses.replace(CONFIG, dropout=0.1, attention_dropout=0.1, initializer_range=0.02)
    assert source.config == expected and dict(source.heads) == {'mlm': MLM}
    params = source.load()
    assert 'pooler' not in params and 'norm' not in params['encoder']['embeddings']
    want = made.state_dict()['roberta.encoder.LayerNorm.weight'].numpy().astype(np.float32)
    np.testing.assert_array_equal(params['encoder']['final_norm']['scale'], want)
    path = tmp_path / 'm' / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text('utf-8')) | {'hidden_act': 'relu'}), 'utf-8')
    with pytest.raises(ModelError, match=r'config\.json: hidden_act is .relu.'):
        open_source(f'hf:{tmp_path}/m')


def test_sizes_are_the_published_ones() -> None:
    """3.5 and 10.7 billion parameters (arXiv 2105.00572, table 1)."""
    for size, billions in (('xl', 3.5), ('xxl', 10.7)):
        config = XlmRobertaXl.sizes[size]
        leaves = jax.tree.leaves(Model(config).shapes({})['encoder'])
        assert round(sum(np.prod(x.shape) for x in leaves) / 1e9, 1) == billions
        plain = EncoderConfig(**dataclasses.asdict(config))
        assert XlmRobertaXl().layer_weights(config) == XlmRobertaXl().layer_weights(plain)


def test_a_run(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    flags = ['--config.encoder.source=random:xlm-roberta-xl-tiny', '--config.intermediate=("none",)']
    flags += ['--config.targets=("world_pairs",)', '--config.recipe.steps=2', '--config.recipe.packing=True']
    assert main(['run', f'--config={root}/configs/tiny.py', f'--workdir={tmp_path}/w', *flags]) == 0
    rows = (tmp_path / 'w' / 'results.jsonl').read_text('utf-8').splitlines()
    assert {json.loads(row)['encoder'] for row in rows} == {'random:xlm-roberta-xl-tiny'}
