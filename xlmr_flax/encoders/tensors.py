"""Reads safetensors and JSON files of a model directory; reads and sets leaves of parameter trees by path.

Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from xlmr_flax.encoders.config import ModelError
from xlmr_flax.util import strict_json
from xlmr_flax.util.errors import quote

_FLOATS = ('F64', 'F32', 'F16', 'BF16')  # safetensors' names


class TensorFiles:
    """The tensors of a directory's safetensors files by name, read one at a time."""

    def __init__(self, directory: Path):
        self.files = _weight_files(directory)
        self.where: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in self.files:
            with _open(path) as f:
                for name in f.keys():  # noqa: SIM118 (safe_open is no mapping)
                    self.where[name] = path
                    self.shapes[name] = tuple(f.get_slice(name).get_shape())

    def get(self, name: str) -> np.ndarray:
        """Reads one tensor as float32.

        Raises ModelError, which names the file and the tensor, if it is missing, has values that are not finite or has
        another dtype than 16, 32 or 64 bit floats: the numbers of a quantized model are no weights without its scales.
        """
        if name not in self.where:
            raise ModelError(f'{self.files[0]}: tensor {name!r} is missing')
        with _open(self.where[name]) as f:
            if (dtype := f.get_slice(name).get_dtype()) not in _FLOATS:
                raise ModelError(
                    f'{self.where[name]}: tensor {name!r} is {dtype}, one of {", ".join(_FLOATS)} is expected: '
                    'quantized models cannot be read'
                )
            value = np.asarray(f.get_tensor(name), np.float32)
        with np.errstate(all='ignore'):
            suspect = not np.isfinite(value.sum())  # one pass without a second array; also if the sum is too large
        if suspect and not np.isfinite(value).all():
            wrong = int(np.count_nonzero(~np.isfinite(value)))
            raise ModelError(
                f'{self.where[name]}: tensor {name!r} has {wrong} values of {value.size} that are not finite'
            )
        return value

    def digest(self) -> str:
        """Returns the sha256 over the contents of all files, in order."""
        total = hashlib.sha256()
        for path in self.files:
            with path.open('rb') as f:
                total.update(hashlib.file_digest(f, 'sha256').digest())
        return total.hexdigest()


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework='numpy') as f:
            yield f
    except SafetensorError as e:
        raise ModelError(f'{path}: not a whole safetensors file ({e}); copy it again') from None


def _weight_files(directory: Path) -> list[Path]:
    """Returns [model.safetensors], or the shards that the index names.

    This is transformers' order; so an index that remains from an earlier export is not read.
    """
    index, single = directory / 'model.safetensors.index.json', directory / 'model.safetensors'
    if single.is_file():
        return [single]
    if index.is_file():
        weight_map = read_json(index).get('weight_map')
        files = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
        outside = [name for name in files if Path(name).is_absolute() or '..' in Path(name).parts]
        if outside:
            raise ModelError(f'{index}: names {quote(outside[0])}, which is not in {directory}')
        missing = [name for name in files if not (directory / name).is_file()]
        if missing or not files:
            raise ModelError(f'{index}: names {", ".join(missing) or "no file"}, not in {directory}')
        return [directory / name for name in files]
    pickles = sorted(directory.glob('*.bin'))
    if pickles:
        raise ModelError(
            f'{pickles[0]} is a pickle, and nothing is unpickled here; convert it once with: '
            f'python -m xlmr_flax.tools.torch.convert_bin {directory}   (needs torch: '
            "pip install -e '.[torch]' in the checkout)"
        )
    raise ModelError(f'{directory}: no model.safetensors or model.safetensors.index.json')


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a file. Raises ModelError, which names the file and the line."""
    try:
        data = strict_json.read(path)
    except FileNotFoundError:
        raise ModelError(f'{path} is missing') from None
    except strict_json.JsonError as e:
        raise ModelError(str(e)) from None
    if not isinstance(data, dict):
        raise ModelError(f'{path}: not a JSON object')
    return data


def put(tree: dict[str, Any], path: tuple[str, ...], value: np.ndarray) -> None:
    """Sets the leaf of a nested dict at a path; creates missing parents."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def leaf(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Returns the leaf of a nested dict at a path."""
    for key in path:
        tree = tree[key]
    return tree


def at(tree: Mapping[str, Any], path: tuple[str, ...]) -> np.ndarray:
    """Returns the leaf of a nested dict at a path as an array."""
    return np.asarray(leaf(tree, path))


def matrix(name: str, value: np.ndarray) -> np.ndarray:
    """Transposes dense kernels between [out, in] and [in, out]; tables and vectors stay. name: transformers' name."""
    return value.T if value.ndim == 2 and 'embeddings' not in name else value
