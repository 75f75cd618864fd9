"""Encoder sources: every form opened, saved and opened again; what is refused."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from xlmr_flax.encoders.config import SIZES, ModelError
from xlmr_flax.encoders.tensors import TensorFiles
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.description import read_description
from xlmr_flax.models.model import Model, Params
from xlmr_flax.models.source import open_source, save_checkpoint

HEADS = {'pairs': HeadSpec('pair', 3), 'tags': HeadSpec('tag', 5)}
LABELS = {'pairs': ('c', 'e', 'n'), 'tags': tuple('abcde')}
CONFIG = dataclasses.replace(SIZES['tiny'], num_layers=1)


@pytest.fixture(scope='module')
def params() -> Params:
    return jax.device_get(Model(CONFIG).init(jax.random.key(0), HEADS))


def save(out: Path, params: Params, tokenizer: Path, **changes: Any) -> Path:
    facts: dict[str, Any] = {
        'style': 'jiant', 'heads': HEADS, 'labels': LABELS, 'max_length': 48, 'note': 'a note',
        'extra': {'trained': {'step': 3}},
    }  # fmt: skip
    save_checkpoint(out, CONFIG, params, tokenizer, **(facts | changes))
    return out


def assert_same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_checkpoint_comes_back_bit_by_bit(params: Params, tiny_tokenizer: Path, tmp_path: Path) -> None:
    out = save(tmp_path / 'run' / 'model', params, tiny_tokenizer)
    for name in (f'ckpt:{out}', f'ckpt:{out.parent}'):  # the model's folder, or the run's
        source = open_source(name)
        assert_same(source.load(), params)
        assert (source.config, source.style, source.note, source.max_length) == (CONFIG, 'jiant', 'a note', 48)
        assert source.heads == HEADS
        assert source.labels == LABELS
        assert source.tokenizer.read_bytes() == tiny_tokenizer.read_bytes()
    assert [p.name for p in out.parent.iterdir()] == ['model'], 'nothing half-written is left'


def test_saving_again_replaces_and_changes_the_digest(params: Params, tiny_tokenizer: Path, tmp_path: Path) -> None:
    out = save(tmp_path / 'model', params, tiny_tokenizer)
    before = open_source(f'ckpt:{out}').digest
    assert open_source(f'ckpt:{shutil.copytree(out, tmp_path / "copy")}').digest == before
    changed = jax.tree.map(lambda x: x + 1, params)
    save(out, changed, tiny_tokenizer)
    source = open_source(f'ckpt:{out}')
    assert_same(source.load(), changed)
    assert source.digest != before


def test_a_save_that_fails_leaves_the_old_one(params: Params, tiny_tokenizer: Path, tmp_path: Path) -> None:
    out = save(tmp_path / 'model', params, tiny_tokenizer)
    with pytest.raises(FileNotFoundError):
        save(out, params, tmp_path / 'no-tokenizer.json')
    assert_same(open_source(f'ckpt:{out}').load(), params)
    assert [p.name for p in tmp_path.iterdir()] == ['model']


def test_a_disk_that_is_full(
    params: Params, tiny_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files makes the real write fail."""
    out = save(tmp_path / 'model', params, tiny_tokenizer)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(ModelError, match=rf'^{out}: cannot be saved: .*File too large.* MB needed, .* MB free\)$'):
            save(out, jax.tree.map(lambda x: x + 1, params), tiny_tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_same(open_source(f'ckpt:{out}').load(), params)
    assert [p.name for p in tmp_path.iterdir()] == ['model']


def test_random_weights_are_the_seeds() -> None:
    a, b, c = (open_source('random:tiny', seed) for seed in (1, 1, 2))
    assert_same(a.load(), b.load())
    assert a.digest == b.digest != c.digest
    words = [s.load()['encoder']['embeddings']['word'] for s in (a, c)]
    assert np.abs(words[0] - words[1]).max() > 0.01
    assert words[0].dtype == np.float32
    assert a.note == 'The encoder has random weights.'
    assert not a.heads


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'encoder': {'hidden': 3}}, 'model.json: field .*hidden.* is unknown'),
        ({'style': None}, "model.json: field 'style' is missing"),
        (
            {'heads': {'pairs': {'kind': 'pair', 'outputs': 4}, 'tags': {'kind': 'tag', 'outputs': 5}}, 'labels': {}},
            r'model\.json says \(4,\)',
        ),
        (
            {'heads': {'pairs': {'kind': 'pair', 'outputs': 3}}},
            r"\['tags'\].* is \(5,\), model\.json says None \(and 1 more\)",
        ),
    ],
)
def test_a_description_that_does_not_fit(
    change: dict[str, Any], said: str, params: Params, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    path = save(tmp_path / 'model', params, tiny_tokenizer) / 'model.json'
    (tmp_path / 'model' / 'manifest.json').unlink()  # as the message about a changed file says
    raw = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))
    with pytest.raises(ModelError, match=said):
        open_source(f'ckpt:{tmp_path}/model').load()


@pytest.mark.parametrize(
    ('change', 'field'),
    [
        ({'heads': {'pairs': {'kind': [], 'outputs': 3}}}, 'heads.pairs.kind'),
        ({'heads': {'pairs': {'kind': 'pears', 'outputs': 3}}}, 'heads.pairs.kind'),
        ({'heads': {'pairs': {'kind': 'retrieval'}}}, 'heads.pairs.kind'),
        ({'heads': {'pairs': {'outputs': 3}}}, 'heads.pairs.kind'),
        ({'heads': {'pairs': {'kind': 'span', 'outputs': 3}}}, 'heads.pairs.outputs'),
        *(({'heads': {'pairs': {'kind': 'pair', 'outputs': n}}}, 'heads.pairs.outputs') for n in ('3', -3, 0, True)),
        ({'heads': {'pairs': 5}}, 'heads.pairs'),
        ({'heads': []}, 'heads'),
        ({'labels': {'pairs': ['a', 'b']}}, 'labels.pairs'),
        ({'labels': {'pairs': [1, 2, 3]}}, 'labels.pairs'),
        ({'labels': {'pairs': 'abc'}}, 'labels.pairs'),
        ({'labels': {'pairs': ['a', 'a', 'b']}}, 'labels.pairs'),
        ({'labels': {'pairs': ['a', ' ', 'b']}}, 'labels.pairs'),
        ({'labels': 5}, 'labels'),
        *(({'max_length': n}, 'max_length') for n in ('64', 64.5, -1, None)),
        ({'note': 5}, 'note'),
        ({'style': 'jyant'}, 'style'),
        ({'style': []}, 'style'),
        ({'encoder': 5}, 'encoder'),
    ],
    ids=str,
)
def test_a_field_of_another_type(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    encoder = dataclasses.asdict(CONFIG)
    raw = {'encoder': encoder, 'heads': {'pairs': {'kind': 'pair', 'outputs': 3}}, 'labels': {'pairs': list('abc')}}
    raw |= {'style': 'hf', 'note': '', 'max_length': 64}
    path = tmp_path / 'model.json'
    path.write_text(json.dumps(raw), 'utf-8')
    assert read_description(path).labels == {'pairs': ('a', 'b', 'c')}
    path.write_text(json.dumps(raw | change), 'utf-8')
    with pytest.raises(ModelError) as caught:
        read_description(path)
    assert str(caught.value).startswith(f"{path}: field '{field}'")


def test_weights_that_are_not_finite(params: Params, tiny_tokenizer: Path, tmp_path: Path) -> None:
    bad = jax.tree.map(np.array, params)
    bad['encoder']['embeddings']['word'][5, 3] = np.nan
    out = save(tmp_path / 'model', bad, tiny_tokenizer)
    with pytest.raises(ModelError, match=r"model\.safetensors: tensor 'encoder/embeddings/word' has 1 values of \d+"):
        open_source(f'ckpt:{out}').load()
    bad['encoder']['embeddings']['word'][:] = 3e38  # the sum is infinite, the weights are not
    out = save(tmp_path / 'model', bad, tiny_tokenizer)
    open_source(f'ckpt:{out}').load()


@pytest.mark.parametrize('dtype', ['int8', 'uint8', 'int32', 'bool', 'float16', 'float64'])
def test_weights_of_a_quantized_model(dtype: str, tmp_path: Path) -> None:
    save_file({'w': np.ones((2, 3), dtype)}, tmp_path / 'model.safetensors')
    tensors = TensorFiles(tmp_path)
    if dtype.startswith('float'):
        assert tensors.get('w').tolist() == [[1.0] * 3] * 2
        return
    with pytest.raises(ModelError, match=r"model\.safetensors: tensor 'w' is [IUB]"):
        tensors.get('w')


@pytest.mark.parametrize('name', ['model.json', 'tokenizer.json', 'model.safetensors', 'manifest.json'])
def test_a_flipped_byte_is_found(name: str, params: Params, tiny_tokenizer: Path, tmp_path: Path) -> None:
    out = save(tmp_path / 'model', params, tiny_tokenizer)
    path = out / name
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match='delete it to train the run again') as caught:
        open_source(f'ckpt:{out}').load()
    assert name == 'manifest.json' or str(path) in str(caught.value)


def test_a_directory_of_an_older_version_has_no_list(params: Params, tiny_tokenizer: Path, tmp_path: Path) -> None:
    out = save(tmp_path / 'model', params, tiny_tokenizer)
    (out / 'manifest.json').unlink()
    assert_same(open_source(f'ckpt:{out}').load(), params)


@pytest.mark.parametrize('name', ['', 'embedded:x', 'random', 'random:', 'hf', 'ckpt:', 'tf:x', 'Embedded'])
def test_names_that_are_no_source(name: str) -> None:
    with pytest.raises(ModelError, match='is not one of embedded, hf:NAME-OR-DIR, ckpt:DIR, random:SIZE'):
        open_source(name)


def test_a_workdir_names_its_run_directories(tmp_path: Path) -> None:
    """ckpt: takes a run directory; of a workdir and of a folder of workdirs the message lists those with weights."""
    for i in range(6):
        (tmp_path / 'w' / 'runs' / f'r{i}' / 'model').mkdir(parents=True)
        (tmp_path / 'w' / 'runs' / f'r{i}' / 'model' / 'model.safetensors').write_text('')
    (tmp_path / 'w' / 'runs' / 'a' / 'model').mkdir(parents=True)
    (tmp_path / 'w' / 'runs' / 'b' / 'model').mkdir(parents=True)
    (tmp_path / 'w' / 'runs' / 'b' / 'model' / 'model.json').write_text('{}')  # its weights were not kept
    names = ', '.join(f'ckpt:{tmp_path}/w/runs/r{i}' for i in range(5))
    for folder in (tmp_path, tmp_path / 'w', tmp_path / 'w' / 'runs'):
        with pytest.raises(ModelError) as caught:
            open_source(f'ckpt:{folder}')
        assert str(caught.value).endswith(f'; name a run directory: {names}, ...')
    with pytest.raises(ModelError, match=r'name a run directory$'):
        open_source(f'ckpt:{tmp_path}/w/runs/a')
