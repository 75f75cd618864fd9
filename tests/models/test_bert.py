"""BERT with its own tokenizer (multilingual BERT, LaBSE): token types, heads, packed rows, a real directory."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

torch = pytest.importorskip('torch', reason='parity is measured against torch')

from family_parity import Parity, check_packed  # noqa: E402
from torch_reference import random_params  # noqa: E402

from xlmr_flax.encoders.bert import BertConfig  # noqa: E402
from xlmr_flax.encoders.config import EncoderConfig, ModelError  # noqa: E402
from xlmr_flax.kinds import HeadSpec  # noqa: E402
from xlmr_flax.models.hf import HfModel  # noqa: E402
from xlmr_flax.models.model import Model  # noqa: E402
from xlmr_flax.models.source import open_source, save_checkpoint  # noqa: E402
from xlmr_flax.train.vocabulary import ActiveRows  # noqa: E402

CLS, SEP = 8, 9
CONFIG = BertConfig(
    vocab_size=101, hidden_size=24, num_layers=3, num_heads=4, ffn_size=40, max_positions=32, layer_norm_eps=1e-12,
    dropout=0.0, attention_dropout=0.0, pad_id=0, bos_id=CLS, eos_id=SEP, initializer_range=0.2,
)  # fmt: skip
PAIR, MLM = HeadSpec('pair', 3), HeadSpec('mlm')


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WordPiece tokenizer with [CLS] and [SEP] at ids from 5, as multilingual BERT has them."""
    words = ['[PAD]', *(f'[unused{i}]' for i in range(6)), '[UNK]', '[CLS]', '[SEP]', '[MASK]', *'abcdef']
    made = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token='[UNK]'))
    made.add_special_tokens(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'])
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single='[CLS] $A [SEP]', pair='[CLS] $A [SEP] $B:1 [SEP]:1', special_tokens=[('[CLS]', CLS), ('[SEP]', SEP)]
    )
    out = tmp_path_factory.mktemp('wordpiece') / 'tokenizer.json'
    made.save(str(out))
    return out


def types(ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Token types by the definition, a row at a time: 1 after the first separator."""
    out = np.zeros_like(ids)
    for row, tokens in zip(out.reshape(-1, ids.shape[-1]), ids.reshape(-1, ids.shape[-1]), strict=True):
        ends = np.flatnonzero(tokens == SEP)
        if len(ends):
            row[ends[0] + 1 :] = 1
    return out * (segments > 0)


def _with_separators(case: Parity) -> Parity:
    ids = case.ids.reshape(-1, case.ids.shape[-1])
    ids[ids == SEP] = SEP + 1
    ids[:, 0], ids[::2, 2] = CLS, SEP  # every other row is a pair
    return case


@pytest.mark.parametrize(
    'spec', [PAIR, HeadSpec('tag', 5), HeadSpec('choice'), MLM], ids=['pair', 'tag', 'choice', 'mlm']
)
def test_parity(spec: HeadSpec, tokenizer: Path, tmp_path: Path) -> None:
    case = _with_separators(Parity(CONFIG, spec, tokenizer, tmp_path / 'm', 12, types))
    case.check_logits()
    case.check_loss_and_gradients()
    if spec == PAIR:
        case.check_states()
        case.check_steps()


def test_packed_rows_have_the_types_of_their_own_separators() -> None:
    model = Model(CONFIG, style='hf')
    params, random = random_params(model, {'x': PAIR}), np.random.default_rng(1)
    texts = [random.integers(10, 101, n).astype(np.int32) for n in (8, 4, 9)]
    for text in texts:
        text[0], text[-1] = CLS, SEP
    texts[0][3] = texts[2][5] = SEP
    check_packed(model, params, PAIR, texts, 25)
    plain = Model(dataclasses.replace(CONFIG, eos_id=99), style='hf')  # another separator gives other logits
    ids = jnp.asarray(texts[0][None])
    ones = jnp.ones_like(ids)
    assert not np.allclose(plain.logits(params, 'x', PAIR, ids, ones), model.logits(params, 'x', PAIR, ids, ones))


def test_the_separator_keeps_its_meaning_among_active_rows() -> None:
    active = ActiveRows(np.asarray([0, 1, 2, 3, 4, CLS, SEP, 40, 60], np.int32))
    assert CONFIG.renumbered(active.number) == {'eos_id': 6}
    assert EncoderConfig().renumbered(active.number) == {}
    with pytest.raises(ValueError, match='active rows'):
        active.number(50)


def test_a_directory_of_the_real_layout(tokenizer: Path, tmp_path: Path) -> None:
    """As transformers saves it: sharded, with a masked-LM head; the tokenizer decides that it has token types."""
    import transformers

    raw = transformers.BertConfig(
        vocab_size=101, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40,
        max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForMaskedLM(raw).half().save_pretrained(tmp_path / 'm', max_shard_size='10KB')
    assert (tmp_path / 'm' / 'model.safetensors.index.json').is_file()
    (tmp_path / 'm' / 'tokenizer.json').write_bytes(tokenizer.read_bytes())
    source = open_source(f'hf:{tmp_path}/m')
    want = dataclasses.replace(CONFIG, dropout=0.1, attention_dropout=0.1, initializer_range=0.02)
    assert source.config == want and dict(source.heads) == {'mlm': MLM}
    params = source.load()
    assert params['encoder']['embeddings']['token_type'].shape == (2, 24)
    assert params['encoder']['embeddings']['position'].shape == (32, 24)
    params['pooler'] = jax.device_get(Model(want).init_pooler(jax.random.key(0)))  # as training adds it
    save_checkpoint(
        tmp_path / 'c', want, params, tokenizer, style='hf', heads={'mlm': MLM}, labels={}, max_length=9, extra={}
    )
    again = open_source(f'ckpt:{tmp_path}/c')
    assert again.config == want
    jax.tree.map(np.testing.assert_array_equal, again.load(), params)


def test_with_a_tokenizer_without_types_it_is_an_xlmr(tokenizer: Path, tiny_tokenizer: Path, tmp_path: Path) -> None:
    """As multilingual-e5: BERT's weights and XLM-R's tokenizer."""
    case = Parity(CONFIG, PAIR, tokenizer, tmp_path / 'm', 12)
    (tmp_path / 'm' / 'tokenizer.json').write_bytes(tiny_tokenizer.read_bytes())
    config = open_source(f'hf:{tmp_path}/m').config
    assert type(config) is EncoderConfig and config.max_positions == CONFIG.max_positions + 2
    assert config.max_length == CONFIG.max_length == 32
    assert case.config.family == 'bert'


def test_more_than_two_types_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    Parity(CONFIG, PAIR, tokenizer, tmp_path / 'm', 12)
    path = tmp_path / 'm' / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text('utf-8')) | {'type_vocab_size': 16}), 'utf-8')
    with pytest.raises(ModelError, match=r'config\.json: type_vocab_size is 16'):
        HfModel(tmp_path / 'm')
