"""config.json, model.json and tokenizer.json of others: one error that names file and field, at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xlmr_flax.data.tokenize import Tokenizer, TokenizerError
from xlmr_flax.encoders import family_named, family_of
from xlmr_flax.encoders.config import SIZES, ModelError
from xlmr_flax.encoders.tensors import TensorFiles
from xlmr_flax.models import hf
from xlmr_flax.models.model import Model

CHANGES: list[dict[str, Any]] = [
    {'num_hidden_layers': 10**9},
    {'num_hidden_layers': 0},
    {'hidden_size': '64'},
    {'hidden_size': -64},
    {'hidden_size': None},
    {'num_attention_heads': 0},
    {'vocab_size': 2048.5},
    {'vocab_size': True},
    {'layer_norm_eps': []},
    {'hidden_dropout_prob': 7},
    {'max_position_embeddings': '130'},
    {'max_position_embeddings': '130', 'model_type': 'bert'},
    {'architectures': [5]},
    {'architectures': {'a': 1}},
    {'model_type': ['bert']},
    {'pad_token_id': {}},
]


@pytest.fixture(scope='module')
def directory(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    folder = tmp_path_factory.mktemp('model') / 'm'
    params = jax.device_get(Model(SIZES['tiny'], 'hf').init(jax.random.key(0), {}))
    hf.save(folder, SIZES['tiny'], params, tiny_tokenizer)
    return folder


@pytest.mark.parametrize('change', CHANGES, ids=str)
def test_a_field_of_another_type_or_size(directory: Path, change: dict[str, Any]) -> None:
    path = directory / 'config.json'
    before = path.read_text('utf-8')
    try:
        path.write_text(json.dumps(json.loads(before) | change), 'utf-8')
        with pytest.raises(ModelError, match=r'config\.json'):
            hf.HfModel(directory)
    finally:
        path.write_text(before, 'utf-8')


SHAPE = {
    'num_hidden_layers': 0, 'hidden_size': 0, 'num_attention_heads': 0, 'intermediate_size': 0, 'vocab_size': 0,
    'max_position_embeddings': 0,
}  # fmt: skip
RATES = {'hidden_dropout_prob': 7, 'attention_probs_dropout_prob': 7, 'layer_norm_eps': 7}
WRONG: dict[str, dict[str, Any]] = {
    'xlm-roberta': SHAPE | RATES,
    'xlm-roberta-xl': SHAPE | RATES,
    'bert': SHAPE | RATES,
    'deberta-v2': SHAPE
    | RATES
    | {'position_buckets': 3, 'max_relative_positions': 3, 'cls_dropout': 7, 'pad_token_id': -1, 'legacy': 7},
    'modernbert': SHAPE
    | {'norm_eps': 7, 'local_attention': 1, 'classifier_dropout': 7, 'attention_dropout': 7, 'pad_token_id': -1},
}


@pytest.mark.parametrize(
    ('family', 'name', 'value'),
    [(family, name, value) for family, wrong in WRONG.items() for name, value in wrong.items()],
)
def test_messages_name_the_field_and_the_value_of_the_file(family: str, name: str, value: object) -> None:
    found = family_named(family, 'x')
    raw = found.write_config(found.sizes['tiny'])
    assert name in raw
    with pytest.raises(ModelError, match=rf'^config\.json: {name} is {value}[;,]'):
        found.read_config(raw | {name: value}, 'config.json')


def test_heads_that_do_not_divide_the_width() -> None:
    for family in WRONG:
        found = family_named(family, 'x')
        with pytest.raises(ModelError, match=r'^config\.json: num_attention_heads is 5; '):
            found.read_config(found.write_config(found.sizes['tiny']) | {'num_attention_heads': 5}, 'config.json')


def test_distances_of_deberta_that_follow_from_the_positions() -> None:
    found = family_named('deberta-v2', 'x')
    raw = found.write_config(found.sizes['tiny']) | {'max_relative_positions': -1, 'max_position_embeddings': 8}
    with pytest.raises(ModelError, match=r'^config\.json: max_position_embeddings is 8;'):
        found.read_config(raw, 'config.json')


@pytest.mark.parametrize('name', ['../m/model.safetensors', '/etc/passwd', 'a/../../b'])
def test_an_index_that_names_a_file_outside(name: str, tmp_path: Path) -> None:
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': {'a': name}}), 'utf-8')
    with pytest.raises(ModelError, match=f'index.json: names {name!r}, which is not in'):
        TensorFiles(tmp_path)


NO_OBJECTS = ['{"a": Infinity}', '[]', '{', '[' * 100_000, '{"n": ' + '1' * 5000 + '}', '"\\ud83d"']


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / 'config.json'
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ModelError, match=f'{path}: .*byte 7$'):
        hf.HfModel(tmp_path)


@pytest.mark.parametrize('text', NO_OBJECTS)
def test_a_file_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    (tmp_path / 'config.json').write_text(text, 'utf-8')
    with pytest.raises(ModelError, match=r'config\.json'):
        hf.HfModel(tmp_path)


def test_shapes_of_the_sizes_are_accepted() -> None:
    for config in SIZES.values():
        assert (
            family_of(config).read_config(family_of(config).write_config(config), 'x').num_layers == config.num_layers
        )


@pytest.mark.parametrize('charsmap', ['AAAA', 'AQAAAA=='])  # the second makes it panic only when it encodes
def test_a_tokenizer_that_makes_the_library_panic(charsmap: str, tmp_path: Path, tiny_tokenizer: Path) -> None:
    raw = json.loads(tiny_tokenizer.read_text('utf-8'))
    table = {'type': 'Precompiled', 'precompiled_charsmap': charsmap}
    raw['normalizer'] = {'type': 'Sequence', 'normalizers': [table]}
    path = tmp_path / 'tokenizer.json'
    path.write_text(json.dumps(raw), 'utf-8')
    with pytest.raises(TokenizerError, match=r'tokenizer\.json'):
        Tokenizer(path, 2048)


def test_a_pooler_of_another_shape(directory: Path, tmp_path: Path) -> None:
    model = shutil.copytree(directory, tmp_path / 'm')
    tensors = load_file(model / 'model.safetensors') | {'pooler.dense.weight': np.zeros((64, 3), np.float32)}
    save_file(tensors, model / 'model.safetensors')
    with pytest.raises(ModelError, match=r'pooler\.dense\.weight is \[64, 3\], config\.json says \[64, 64\]'):
        hf.HfModel(model).load()


def test_a_tokenizer_that_pads_to_any_length(tmp_path: Path, tiny_tokenizer: Path) -> None:
    raw = json.loads(tiny_tokenizer.read_text('utf-8'))
    raw['padding'] = {
        'strategy': {'Fixed': 10**12}, 'direction': 'Right', 'pad_to_multiple_of': None, 'pad_id': 1, 'pad_type_id': 0,
        'pad_token': '<pad>',
    }  # fmt: skip
    path = tmp_path / 'tokenizer.json'
    path.write_text(json.dumps(raw), 'utf-8')
    assert len(Tokenizer(path, 2048).encode(['a'])[0]) < 10


def test_weights_have_the_mode_of_the_umask(directory: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in directory.iterdir() if path.is_file()}
    assert len(modes) == 1
