"""What `prepare --check` finds about single splits."""

from __future__ import annotations

from pathlib import Path

from xlmr_flax.experiment.data_check.inventory import READABLE, check, find_overlaps, wanted


def test_a_task_without_english_training_rows_is_checked_to_the_end(tmp_path: Path) -> None:
    for split in ('train', 'test'):
        path = tmp_path / 'low_resource/masakhaner2/xho' / f'{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('Ada B-PER\nuhleli O\n\n', encoding='utf-8')
    states = [check(split) for split in wanted(['masakhaner2'], tmp_path, ['test'], ['xh'])]
    assert [state.state for state in states] == [READABLE]
    assert find_overlaps(states, ['masakhaner2']) == []
