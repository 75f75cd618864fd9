"""The progress line: speed and time left, slow speeds included."""

from __future__ import annotations

import pytest

from xlmr_flax.util import console


@pytest.mark.parametrize(
    ('seconds', 'speed', 'left'), [(40, '0.25', '7m40s'), (10, '1.0', '1m55s')], ids=['below one', 'one']
)
def test_speed_and_time_left(
    seconds: float, speed: str, left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(console.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(console, '_quiet', False)
    line = console.Line('evaluate', unit='languages')
    now[0] += 10
    line(0, 125, 0)
    now[0] += seconds
    line(10, 125, 10, loss=0.5)
    found = capsys.readouterr().err.splitlines()[-1].split('  ')
    assert found == ['evaluate', '10/125', f'{speed} languages/s', f'{left} left', 'loss 0.5']
