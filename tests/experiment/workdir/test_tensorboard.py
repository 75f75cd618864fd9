"""Event files for TensorBoard: what is in them, and that writing them needs no torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

PROGRAM = """
import sys
from pathlib import Path
from xlmr_flax.experiment.workdir.tensorboard import Board

board = Board(Path(sys.argv[1]))
board.add({'run': 'a', 'step': 3, 'seed': 1, 'loss': 0.5, 'task': 'mnli', 'finite': True})
board.add({'run': 'a', 'step': 6, 'seed': 1, 'loss': 0.25})
board.close()
sys.exit('torch' in sys.modules)
"""


def test_numbers_are_written_at_their_steps_without_torch(tmp_path: Path):
    assert find_spec('torch') is not None, 'without torch this test could not fail'
    subprocess.run([sys.executable, '-c', PROGRAM, str(tmp_path)], check=True)
    (file,) = (tmp_path / 'a').glob('events*')
    assert _scalars(file.read_bytes()) == [('loss', 3, 0.5), ('loss', 6, 0.25)]


def _scalars(data: bytes) -> list[tuple[str, int, float]]:
    """Reads the records of an event file: 8 bytes of length, 4 of checksum, the event, 4 of checksum."""
    found = []
    while data:
        size = int.from_bytes(data[:8], 'little')
        event = Event.FromString(data[12 : 12 + size])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    return found
