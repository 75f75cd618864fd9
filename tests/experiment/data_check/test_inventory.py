"""What the check for overlap reads: English training rows of tasks that have them."""

from __future__ import annotations

from pathlib import Path

from xlmr_flax.data.split import Split
from xlmr_flax.experiment.data_check.inventory import READABLE, State, find_overlaps
from xlmr_flax.tasks import get_task


def test_a_task_without_english_overlaps_with_nothing(tmp_path: Path) -> None:
    path = Split(get_task('masakhaner2'), 'swa', 'test', tmp_path)
    state = State(path, READABLE, 1)
    assert find_overlaps([state]) == []
