"""TensorBoard event files of a plan's runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Board:
    """TensorBoard scalars, one folder a run."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.writers: dict[str, Any] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Takes one record of the metrics: its numbers, under their names, at its step."""
        from tensorboardX import SummaryWriter

        run = record['run']
        if run not in self.writers:
            self.writers[run] = SummaryWriter(str(self.directory / run), purge_step=record['step'])
        for name, value in record.items():
            if name not in ('step', 'seed') and isinstance(value, (int, float)) and not isinstance(value, bool):
                self.writers[run].add_scalar(name, value, record['step'])

    def close(self) -> None:
        """Writes what is left."""
        for writer in self.writers.values():
            writer.close()
