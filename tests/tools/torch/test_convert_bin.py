"""pytorch_model.bin to model.safetensors: whole, sharded, tied; what is refused; nothing half written."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="a .bin is torch.save's")

from safetensors.torch import load_file  # noqa: E402
from torch_reference import random_params, tiny_config  # noqa: E402

from xlmr_flax.encoders.config import ModelError  # noqa: E402
from xlmr_flax.kinds import HeadSpec  # noqa: E402
from xlmr_flax.models import hf  # noqa: E402
from xlmr_flax.models.model import Model, Params  # noqa: E402
from xlmr_flax.models.source import open_source  # noqa: E402
from xlmr_flax.tools.torch import convert_bin  # noqa: E402

PAIR = HeadSpec('pair', 3)


@pytest.fixture
def saved(tmp_path: Path, tiny_tokenizer: Path) -> tuple[Path, Params]:
    """(a model directory with a .bin instead of safetensors, the parameters in it)."""
    config = tiny_config()
    params = random_params(Model(config, style='hf'), {'x': PAIR})
    directory = tmp_path / 'model'
    hf.save(directory, config, params, tiny_tokenizer, head=('x', PAIR))
    weights = directory / 'model.safetensors'
    torch.save(load_file(weights), directory / 'pytorch_model.bin')
    weights.unlink()
    return directory, params


def same(directory: Path, params: Params) -> None:
    found = open_source(f'hf:{directory}').load()
    jax.tree.map(np.testing.assert_array_equal, found['encoder'], params['encoder'])
    jax.tree.map(np.testing.assert_array_equal, found['heads']['imported'], params['heads']['x'])


def test_the_command_in_the_refusal_converts(saved: tuple[Path, Params]) -> None:
    directory, params = saved
    with pytest.raises(ModelError, match='pickle') as refused:
        open_source(f'hf:{directory}')
    command = re.search(r'python -m (\S+) (\S+)', str(refused.value))
    assert command and command[1] == convert_bin.__name__
    assert convert_bin.main([command[2]]) == 0
    same(directory, params)
    assert sorted(p.name for p in directory.iterdir() if p.name.startswith('.')) == []


def test_shards(saved: tuple[Path, Params]) -> None:
    directory, params = saved
    whole = torch.load(directory / 'pytorch_model.bin', weights_only=True)
    (directory / 'pytorch_model.bin').unlink()
    names = sorted(whole)
    where = {name: f'pytorch_model-0000{1 + i % 2}-of-00002.bin' for i, name in enumerate(names)}
    for shard in set(where.values()):
        torch.save({name: whole[name] for name in names if where[name] == shard}, directory / shard)
    (directory / 'pytorch_model.bin.index.json').write_text(json.dumps({'metadata': {}, 'weight_map': where}))
    assert convert_bin.convert(directory) == (directory / 'model.safetensors', len(names))
    same(directory, params)


def test_tied_tensors_and_dtypes(tmp_path: Path) -> None:
    word = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    tensors = {'word': word, 'decoder': word, 'turned': word.T, 'half': torch.ones(2).half(), 'ids': torch.arange(3)}
    torch.save(tensors, tmp_path / 'pytorch_model.bin')
    convert_bin.convert(tmp_path)
    found = load_file(tmp_path / 'model.safetensors')
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name


def test_nothing_is_overwritten(saved: tuple[Path, Params], capsys: pytest.CaptureFixture[str]) -> None:
    directory, _ = saved
    for name in ('model.safetensors', 'model.safetensors.index.json'):
        (directory / name).write_text('mine')
        assert convert_bin.main([str(directory)]) == 1
        assert 'is not overwritten' in capsys.readouterr().err
        assert (directory / name).read_text() == 'mine'
        (directory / name).unlink()


class Harmful:
    def __reduce__(self) -> tuple:
        return print, ('executed',)


@pytest.mark.parametrize('content', [Harmful(), {'a': Harmful()}, {'step': 3}, {}, [1], b'no pickle', b''])
def test_other_files_are_refused(content: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'pytorch_model.bin'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    assert convert_bin.main([str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f'error: {path}: ') and printed.err.count('\n') == 1
    assert 'executed' not in printed.out
    assert [p.name for p in tmp_path.iterdir()] == ['pytorch_model.bin']


def test_a_missing_shard_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'no pytorch_model\.bin'):
        convert_bin.convert(tmp_path)
    (tmp_path / 'pytorch_model.bin.index.json').write_text('{"weight_map": {"a": "x.bin"}}')
    with pytest.raises(ModelError, match=r'names x\.bin'):
        convert_bin.convert(tmp_path)


def test_without_torch(saved: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(ModelError, match=r"pip install -e '\.\[torch\]' in the checkout"):
        convert_bin.convert(saved[0])


def test_a_failed_write_leaves_nothing(saved: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError('no space left')

    monkeypatch.setattr(os, 'replace', fail)
    before = sorted(p.name for p in saved[0].iterdir())
    with pytest.raises(OSError, match='no space'):
        convert_bin.convert(saved[0])
    assert sorted(p.name for p in saved[0].iterdir()) == before
