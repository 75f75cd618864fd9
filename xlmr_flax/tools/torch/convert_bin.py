"""usage: python -m xlmr_flax.tools.torch.convert_bin DIR

Writes DIR/model.safetensors from DIR/pytorch_model.bin, or from the shards that DIR/pytorch_model.bin.index.json lists.
Tensors keep their names and dtypes. torch reads the pickle and builds only tensors: no code in it is executed.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlmr_flax.encoders.config import ModelError
from xlmr_flax.encoders.tensors import read_json
from xlmr_flax.util.files import replacing

SINGLE, INDEX = 'pytorch_model.bin', 'pytorch_model.bin.index.json'
OUT, OUT_INDEX = 'model.safetensors', 'model.safetensors.index.json'


def bin_files(directory: Path) -> list[Path]:
    """Paths of the pickle files of a model directory. Raises ModelError that names a missing file."""
    index, single = directory / INDEX, directory / SINGLE
    if index.is_file():
        weight_map = read_json(index).get('weight_map')
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{index}: no 'weight_map'")
        paths = [directory / str(name) for name in sorted(set(weight_map.values()))]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ModelError(f'{index}: names {", ".join(missing)}, not in {directory}')
        return paths
    if single.is_file():
        return [single]
    raise ModelError(f'{directory}: no {SINGLE} or {INDEX}')


def convert(directory: Path) -> tuple[Path, int]:
    """Converts a directory; returns (the safetensors file, number of tensors). The file is written atomically.

    Raises ModelError without torch, for a directory that already has safetensors, and for a file that is not a
    dictionary of tensors.
    """
    for name in (OUT, OUT_INDEX):
        if (directory / name).exists():
            raise ModelError(f'{directory / name} is there already and is not overwritten')
    paths = bin_files(directory)
    try:
        import torch
        from safetensors.torch import save_file
    except ModuleNotFoundError as e:
        if (e.name or '').split('.')[0] != 'torch':
            raise
        message = "torch reads it, and is not installed: pip install -e '.[torch]' in the checkout"
        raise ModelError(f'{paths[0]}: {message}') from None
    tensors: dict[str, torch.Tensor] = {}
    stored: set[int] = set()
    for path in paths:
        for name, value in _read(path).items():
            if not isinstance(value, torch.Tensor):
                raise ModelError(f"{path}: {name!r} is no tensor but {type(value).__name__}: not a model's weights")
            if name in tensors:
                raise ModelError(f'{path}: tensor {name!r} is in an earlier shard too')
            value = value.detach()
            # safetensors cannot share storage: tied weights (decoder and word embeddings) are written for each name.
            place = value.untyped_storage().data_ptr()
            value = value.clone() if place in stored else value
            stored.add(place)
            tensors[name] = value.contiguous()
    with replacing(directory / OUT) as part:
        save_file(tensors, part, metadata={'format': 'pt'})
    return directory / OUT, len(tensors)


def _read(path: Path) -> dict[str, Any]:
    """Reads the dictionary of a pickle onto the CPU. Raises ModelError for a broken file or one with more than data."""
    import torch

    try:
        data = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as e:
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise ModelError(f'{path}: not a whole file with nothing but tensors ({reason})') from None
    if not isinstance(data, dict) or not data:
        raise ModelError(f'{path}: not a dictionary of tensors but {type(data).__name__}')
    return data


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code (0 done, 1 a known error)."""
    parser = argparse.ArgumentParser(
        'python -m xlmr_flax.tools.torch.convert_bin', description='Writes model.safetensors from pytorch_model.bin.'
    )
    parser.add_argument('directory', type=Path, metavar='DIR', help='a model directory of transformers')
    try:
        path, count = convert(parser.parse_args(argv).directory)
    except ModelError as e:
        sys.stderr.write(f'error: {e}\n')
        return 1
    sys.stdout.write(f'{path}: {count} tensors\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
