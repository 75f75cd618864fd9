"""Writes the metrics of a plan's runs as TensorBoard event files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


class Board:
    """Writes TensorBoard scalars, with one folder per run."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.writers: dict[str, Any] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Adds the numbers of one metrics record as scalars, under their names and at the step of the record."""
        run = record['run']
        if run not in self.writers:
            self.writers[run] = _summary_writer_class()(str(self.directory / run), purge_step=record['step'])
        for name, value in record.items():
            if name not in ('step', 'seed') and isinstance(value, (int, float)) and not isinstance(value, bool):
                self.writers[run].add_scalar(name, value, record['step'])

    def close(self) -> None:
        """Flushes and closes all event files."""
        for writer in self.writers.values():
            writer.close()


def _summary_writer_class() -> Any:
    """Imports tensorboardX with torch hidden. tensorboardX would import an installed torch, which takes seconds, and
    works without it.
    """
    hide = 'torch' not in sys.modules
    if hide:
        sys.modules['torch'] = None  # pyright: ignore[reportArgumentType]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hide:
            del sys.modules['torch']
    return SummaryWriter
