"""Datasets of tensorflow_datasets written as ArrayRecord files, without TensorFlow."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

Records = dict[str, list[dict[str, Any]]]


def write(root: Path, module: str, name: str, config: str, records: Records) -> Path:
    """Prepares a dataset of a builder of tensorflow_datasets, its own features and all, from these records."""
    import importlib

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import tensorflow_datasets as official

        importlib.import_module(f'tensorflow_datasets.{module}')
        cls: Any = official.builder_cls(name)

        def generators(self: Any, manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(split) for split in records}

        def examples(self: Any, split: str) -> Iterable[tuple[str, dict[str, Any]]]:
            return ((str(i), record) for i, record in enumerate(records[split]))

        with mock.patch.multiple(cls, _split_generators=generators, _generate_examples=examples):
            builder = cls(config=config or None, data_dir=str(root), file_format='array_record')
            builder.download_and_prepare()
    return Path(builder.data_path)
