"""There and back: encoders and fine-tuned heads as transformers' directories, sharded and foreign ones too."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xlmr_flax.cli.main import main
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import SIZES, EncoderConfig, ModelError
from xlmr_flax.eval.zero_shot import label_order
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models import hf
from xlmr_flax.models.model import Model, Params
from xlmr_flax.models.source import open_source, save_checkpoint
from xlmr_flax.tasks import get_task

LABELS = {'pair': ('contradiction', 'entailment', 'neutral'), 'tag': ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')}
SPECS = {
    'pair': HeadSpec('pair', 3), 'choice': HeadSpec('choice'), 'span': HeadSpec('span'), 'tag': HeadSpec('tag', 5),
    'mlm': HeadSpec('mlm'),
}  # fmt: skip
TEXTS = ['A station.', ' two  blanks ', 'tab\tand\nline ', '', '한국어 e\u0301']
SMALL = EncoderConfig(
    vocab_size=2048, hidden_size=24, num_layers=2, num_heads=4, ffn_size=40, max_positions=34, initializer_range=0.2,
    layer_norm_eps=1e-6,
)  # fmt: skip


def random_params(model: Model, heads: dict[str, HeadSpec]) -> Params:
    params = jax.device_get(model.init(jax.random.key(0), heads))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + random.normal(0, 0.05, x.shape).astype(np.float32), params)


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def convert(source: str, out: Path, *flags: str) -> Path:
    assert main(['convert', f'--source={source}', f'--out={out}', *flags]) == 0
    return out


@pytest.mark.parametrize('name', ['random:tiny', 'embedded', pytest.param('random:large', marks=pytest.mark.slow)])
def test_an_encoder_comes_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    try:
        source = open_source(name, 5)
    except ModelError as e:
        pytest.skip(str(e))
    back = open_source(f'hf:{convert(name, tmp_path / "m", "--seed=5")}')
    assert back.config == source.config
    ours, theirs = (Tokenizer(s.tokenizer, s.config.vocab_size).encode(TEXTS) for s in (source, back))
    assert [row.tolist() for row in ours] == [row.tolist() for row in theirs]
    again = convert(f'hf:{tmp_path}/m', tmp_path / 'again')
    for name in ('tokenizer.json', 'config.json', 'model.safetensors'):
        assert (again / name).read_bytes() == (tmp_path / 'm' / name).read_bytes(), name
    assert_same(back.load(), source.load())
    assert not back.heads


def imported(kind: str) -> str:
    """The name of a head that comes with a transformers directory."""
    return 'mlm' if kind == 'mlm' else 'imported'


def checkpoint(kind: str, out: Path, tokenizer: Path, style: str = 'hf') -> Params:
    params = random_params(Model(SMALL, style), {'task': SPECS[kind]})
    save_checkpoint(
        out, SMALL, params, tokenizer, style=style, heads={'task': SPECS[kind]},
        labels={'task': LABELS.get(kind, ())}, max_length=16, extra={},
    )  # fmt: skip
    return params


@pytest.mark.parametrize('kind', SPECS)
def test_a_head_goes_out_and_comes_back(kind: str, tmp_path: Path, tiny_tokenizer: Path) -> None:
    params = checkpoint(kind, tmp_path / 'run', tiny_tokenizer)
    out = convert(f'ckpt:{tmp_path}/run', tmp_path / 'm')
    source = open_source(f'hf:{out}')
    assert source.heads == {imported(kind): SPECS[kind]}
    assert source.style == 'hf'
    back = source.load()
    assert_same(back['heads'][imported(kind)], params['heads']['task'])
    assert_same(back['encoder'], params['encoder'])
    if kind == 'choice':
        assert_same(back['pooler'], params['pooler'])
    if kind in LABELS:
        assert source.labels == {'imported': LABELS[kind]}
        raw = json.loads((out / 'config.json').read_text())
        assert raw['label2id'] == {name: i for i, name in enumerate(LABELS[kind])}


@pytest.mark.parametrize('kind', SPECS)
def test_transformers_saves_what_comes_back(kind: str, tmp_path: Path, tiny_tokenizer: Path) -> None:
    """Through transformers' own save_pretrained, as a checkpoint that somebody else fine-tuned."""
    pytest.importorskip('torch')
    from torch_reference import torch_model

    params = random_params(Model(SMALL, 'hf'), {'x': SPECS[kind]})
    torch_model(SMALL, params, tiny_tokenizer, tmp_path / 'a', ('x', SPECS[kind])).save_pretrained(tmp_path / 'b')
    (tmp_path / 'b' / 'tokenizer.json').write_bytes(tiny_tokenizer.read_bytes())
    source = open_source(f'hf:{tmp_path}/b')
    assert source.heads == {imported(kind): SPECS[kind]}
    assert source.labels == {}, 'LABEL_0 names nothing'
    back = source.load()
    assert_same(back['heads'][imported(kind)], params['heads']['x'])
    assert_same(back['encoder'], params['encoder'])


def test_the_encoder_alone_of_a_fine_tuned_model(tmp_path: Path, tiny_tokenizer: Path) -> None:
    params = checkpoint('pair', tmp_path / 'run', tiny_tokenizer)
    source = open_source(f'hf:{convert(f"ckpt:{tmp_path}/run", tmp_path / "m", "--head=none")}')
    assert not source.heads
    assert_same(source.load(), {k: params[k] for k in ('encoder', 'pooler')})


@pytest.mark.parametrize('kind', ['pair', 'choice'])
def test_the_authors_head_has_no_class_in_transformers(
    kind: str, tmp_path: Path, tiny_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(kind, tmp_path / 'run', tiny_tokenizer, 'jiant')
    assert main(['convert', f'--source=ckpt:{tmp_path}/run', f'--out={tmp_path}/m']) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: a '{kind}' head of style 'jiant'")
    assert "has no class in transformers; train with encoder.head='hf' to export it" in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'm').exists()
    assert [p.name for p in tmp_path.iterdir()] == ['run']


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_a_sharded_directory_reads_the_same(dtype: Any, tmp_path: Path) -> None:
    out = convert('random:tiny', tmp_path / 'm')
    want = open_source(f'hf:{out}').load()
    tensors = {k: v.astype(dtype) for k, v in load_file(out / 'model.safetensors').items()}
    (out / 'model.safetensors').unlink()
    names, index = sorted(tensors), {}
    for i in range(3):
        shard = f'model-0000{i + 1}-of-00003.safetensors'
        save_file({name: tensors[name] for name in names[i::3]}, out / shard)
        index |= dict.fromkeys(names[i::3], shard)
    (out / 'model.safetensors.index.json').write_text(json.dumps({'metadata': {}, 'weight_map': index}))
    found = open_source(f'hf:{out}').load()
    assert_same(found, jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), want))


@pytest.mark.parametrize('shards', ['there', 'gone'])
def test_an_index_beside_a_whole_file_is_not_read(shards: str, tmp_path: Path) -> None:
    """As transformers: model.safetensors comes first, whatever an earlier export has left."""
    out = convert('random:tiny', tmp_path / 'm')
    want = open_source(f'hf:{out}').load()
    shard, tensors = 'model-00001-of-00001.safetensors', load_file(out / 'model.safetensors')
    (out / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': dict.fromkeys(tensors, shard)}))
    if shards == 'there':
        save_file({name: value + 1 for name, value in tensors.items()}, out / shard)
    assert_same(open_source(f'hf:{out}').load(), want)


@pytest.mark.parametrize('weight_map', [None, {}, [1], {'a': 3}, {'a': ['b']}, {'a': 'gone.safetensors'}], ids=str)
def test_an_index_that_names_no_file_of_the_folder(weight_map: Any, tmp_path: Path) -> None:
    out = convert('random:tiny', tmp_path / 'm')
    (out / 'model.safetensors').unlink()
    (out / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': weight_map}))
    with pytest.raises(ModelError, match=r'model\.safetensors\.index\.json'):
        open_source(f'hf:{out}')


def test_a_bert_is_read_as_an_xlmr(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """As multilingual-e5-small: model type bert, XLM-R's ids, positions from 0, two token types of which the first
    counts.
    """
    torch = pytest.importorskip('torch')
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=2048, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
        max_position_embeddings=20, pad_token_id=1, initializer_range=0.3, layer_norm_eps=1e-5,
    )  # fmt: skip
    module = BertModel(config).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    module.save_pretrained(tmp_path / 'm')
    (tmp_path / 'm' / 'tokenizer.json').write_bytes(tiny_tokenizer.read_bytes())
    source = open_source(f'hf:{tmp_path}/m')
    assert (source.config.max_positions, source.config.max_length) == (22, 20)
    ids = np.random.default_rng(0).integers(5, 2048, (3, 20)).astype(np.int32)
    segments = (np.arange(20) < np.array([[20], [7], [13]])).astype(np.int32)
    ids = np.where(segments > 0, ids, 1)
    with torch.no_grad():
        want = module(torch.tensor(ids).long(), torch.tensor(segments).long())
    model, params = Model(source.config), source.load()
    found = model.encode(params, ids, segments)
    np.testing.assert_allclose(
        np.asarray(found)[segments > 0], want.last_hidden_state.numpy()[segments > 0], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(model.pool(params, found), want.pooler_output.numpy(), atol=1e-5)


def test_the_label_order_of_a_foreign_checkpoint(tmp_path: Path, tiny_tokenizer: Path) -> None:
    task, order = get_task('world_nli'), ('ENTAILMENT', 'NEUTRAL', 'CONTRADICTION')
    assert task.labels == ('contradiction', 'entailment', 'neutral')
    params = random_params(Model(SMALL, 'hf'), {'x': SPECS['pair']})
    hf.save(tmp_path / 'm', SMALL, params, tiny_tokenizer, head=('x', SPECS['pair']), labels=order)
    source = open_source(f'hf:{tmp_path}/m')
    assert source.labels['imported'] == order
    assert label_order(task, source.labels['imported']) == (2, 0, 1)


def test_labels_beyond_ten_stay_in_order(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """'10' sorts before '2' as text."""
    names = tuple(f'T{i}' for i in range(17))
    spec = HeadSpec('tag', 17)
    params = random_params(Model(SMALL, 'hf'), {'x': spec})
    hf.save(tmp_path / 'm', SMALL, params, tiny_tokenizer, head=('x', spec), labels=names)
    assert open_source(f'hf:{tmp_path}/m').labels['imported'] == names


def test_sizes_are_the_published_ones() -> None:
    """Parameters without pooler: XLM-R base has 277 M, large 559 M."""
    counts = {}
    for name in ('base', 'large'):
        shapes = Model(SIZES[name]).shapes({})['encoder']
        counts[name] = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    assert counts == {'base': 277453056, 'large': 558840832}
    assert dataclasses.replace(SIZES['large'], num_layers=24) == SIZES['large']
