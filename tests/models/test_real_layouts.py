"""Directories as transformers saves them: sharded, 16 bits, with and without pooler and LM head, old buffers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='directories are made with transformers')

from data.test_tokenizer_types import gemma, wordpiece  # noqa: E402
from sentencepiece_files import DEBERTA, OWN, PIECES, model_file  # noqa: E402

from xlmr_flax.data.tokenize import Tokenizer  # noqa: E402
from xlmr_flax.kinds import HeadSpec  # noqa: E402
from xlmr_flax.models.model import Model  # noqa: E402
from xlmr_flax.models.source import EncoderSource, open_source  # noqa: E402

SHAPE: dict[str, Any] = {
    'vocab_size': 700, 'hidden_size': 24, 'num_hidden_layers': 3, 'num_attention_heads': 4, 'intermediate_size': 40,
    'max_position_embeddings': 34,
}  # fmt: skip
DISENTANGLED: dict[str, Any] = {
    'relative_attention': True, 'position_buckets': 8, 'norm_rel_ebd': 'layer_norm', 'share_att_key': True,
    'pos_att_type': 'p2c|c2p', 'position_biased_input': False, 'max_relative_positions': -1, 'type_vocab_size': 0,
    'legacy': False,
}  # fmt: skip
MMBERT: dict[str, Any] = {
    'pad_token_id': 0,
    'cls_token_id': 1,
    'sep_token_id': 1,
    'eos_token_id': 1,
    'bos_token_id': 2,
    'local_attention': 8,
}
# model_type -> prefix of transformers' classes, further fields of the config, the file that has the tokenizer.
XLM_R_FILE = ('sentencepiece.bpe.model', lambda: model_file([*OWN, *PIECES]))
FAMILIES: dict[str, tuple[str, dict[str, Any], str, Callable[[], bytes]]] = {
    'xlm-roberta': ('XLMRoberta', {'type_vocab_size': 1}, *XLM_R_FILE),
    'xlm-roberta-xl': ('XLMRobertaXL', {}, *XLM_R_FILE),
    'deberta-v2': ('DebertaV2', DISENTANGLED, 'spm.model', lambda: model_file([*DEBERTA, *PIECES])),
    'bert': ('Bert', {}, 'tokenizer.json', lambda: wordpiece().to_str().encode()),
    'modernbert': ('ModernBert', MMBERT, 'tokenizer.json', lambda: gemma().to_str().encode()),
}
POOLED = ('xlm-roberta', 'xlm-roberta-xl', 'bert')


def made(name: str, out: Path, what: str, dtype: Any, shards: bool = True) -> Any:
    """transformers' module of random weights, which is saved to a directory. what: 'bare', 'pooler' or 'mlm'."""
    import transformers

    class_name, more, file, content = FAMILIES[name]
    config = getattr(transformers, f'{class_name}Config')(**SHAPE | more)
    torch.manual_seed(0)
    if what == 'mlm':
        module = getattr(transformers, f'{class_name}ForMaskedLM')(config)
    else:
        pooling = {'add_pooling_layer': what == 'pooler'} if name in POOLED else {}
        module = getattr(transformers, f'{class_name}Model')(config, **pooling)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    module = module.to(dtype)
    module.save_pretrained(out, max_shard_size='10KB' if shards else '1GB')
    (out / file).write_bytes(content())
    return module.float().eval()


def hidden(source: EncoderSource, params: Any, ids: np.ndarray) -> np.ndarray:
    rows = jnp.asarray(ids, jnp.int32)
    return np.asarray(Model(source.config).encode(params, rows, jnp.ones_like(rows)))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
@pytest.mark.parametrize('name', FAMILIES)
def test_a_sharded_directory_of_16_bits_without_pooler(name: str, dtype: str, tmp_path: Path) -> None:
    """With nothing but config.json, the shards and the tokenizer's file: its states are transformers'."""
    module = made(name, tmp_path / 'm', 'bare', getattr(torch, dtype))
    shards = json.loads((tmp_path / 'm' / 'model.safetensors.index.json').read_text('utf-8'))['weight_map']
    assert len(set(shards.values())) > 2 and not any('pooler' in tensor for tensor in shards)
    assert {path.name for path in (tmp_path / 'm').iterdir()} == {
        'config.json', 'model.safetensors.index.json', FAMILIES[name][2], *shards.values()
    }  # fmt: skip
    source = open_source(f'hf:{tmp_path}/m')
    params = source.load()
    assert source.config.family == name and not source.heads and params.keys() == {'encoder'}
    tokenizer = Tokenizer(source.tokenizer, source.config.vocab_size)
    first, last = (tokenizer.bos, tokenizer.eos)
    assert tokenizer.pad == (0 if name in ('deberta-v2', 'bert', 'modernbert') else 1)
    ids = np.asarray([[first, 5, 6, 7, 8, 9, 4, 6, last]])
    with torch.no_grad():
        want = module(torch.tensor(ids), torch.ones(ids.shape)).last_hidden_state.numpy()
    np.testing.assert_allclose(hidden(source, params, ids), want, atol=1e-4)


@pytest.mark.parametrize('what', ['pooler', 'mlm'])
@pytest.mark.parametrize('name', FAMILIES)
def test_pooler_and_head_are_read_where_they_are(name: str, what: str, tmp_path: Path) -> None:
    made(name, tmp_path / 'm', what, torch.float32, shards=False)
    source = open_source(f'hf:{tmp_path}/m')
    params = source.load()
    pooled = what == 'pooler' and name in POOLED
    assert ('pooler' in params) == pooled
    assert dict(source.heads) == ({'mlm': HeadSpec('mlm')} if what == 'mlm' else {})
    assert ('heads' in params) == (what == 'mlm')


@pytest.mark.parametrize(
    ('name', 'prefix'), [('xlm-roberta', 'roberta.'), ('xlm-roberta-xl', 'roberta.'), ('bert', 'bert.')]
)
def test_buffers_of_older_versions_are_not_weights(name: str, prefix: str, tmp_path: Path) -> None:
    """position_ids, token_type_ids and copies of tied weights, as older versions of transformers saved them."""
    from safetensors.torch import load_file, save_file

    made(name, tmp_path / 'm', 'mlm', torch.float16, shards=False)
    before = open_source(f'hf:{tmp_path}/m').load()
    path = tmp_path / 'm' / 'model.safetensors'
    tensors = load_file(path)
    tensors |= {f'{prefix}embeddings.{n}_ids': torch.arange(34)[None] for n in ('position', 'token_type')}
    decoder = 'cls.predictions.decoder' if name == 'bert' else 'lm_head.decoder'
    tensors[f'{decoder}.weight'] = tensors[f'{prefix}embeddings.word_embeddings.weight'].clone()
    save_file(tensors, path)
    after = open_source(f'hf:{tmp_path}/m').load()
    for kind in ('encoder', 'heads'):
        ours, theirs = (jnp.concatenate([x.ravel() for x in _leaves(tree[kind])]) for tree in (before, after))
        np.testing.assert_array_equal(ours, theirs)


def _leaves(tree: Any) -> list[Any]:
    return [leaf for value in tree.values() for leaf in (_leaves(value) if isinstance(value, dict) else [value])]
