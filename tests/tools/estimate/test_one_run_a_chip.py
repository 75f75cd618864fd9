"""Which completes a table first: one run a chip, or one after the other on all chips."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.tools.estimate.chips import parse_topology
from xlmr_flax.tools.estimate.one_run_a_chip import Comparison, makespan, single_chip

TINY = Path(__file__).parents[3] / 'configs' / 'tiny.py'


@pytest.mark.parametrize(
    ('seconds', 'parents', 'workers', 'span'),
    [
        ([1.0] * 8, [-1] * 8, 8, 1.0),
        ([1.0] * 9, [-1] * 9, 8, 2.0),
        ([2.0, 1.0, 1.0], [-1, 0, 0], 8, 3.0),
        ([2.0, 1.0, 1.0, 1.0], [-1, 0, -1, 0], 1, 5.0),
        ([5.0, 1.0, 1.0], [-1, 0, -1], 2, 6.0),
        ([], [], 2, 0.0),
    ],
)
def test_time_until_all_runs_are_done(seconds: list[float], parents: list[int], workers: int, span: float) -> None:
    assert makespan(seconds, parents, workers) == span


def test_an_unknown_time_stays_unknown() -> None:
    assert math.isnan(makespan([1.0, math.nan], [-1, -1], 2))
    slice = parse_topology('v5e:2x4')
    assert 'cannot run on one chip' in Comparison(slice, 1.0, math.nan).text()
    assert single_chip(slice).name == 'v5e:1x1' and single_chip(parse_topology('v4:2x2x2')).name == 'v4:1x1x1'


def test_the_command(tmp_path: Path, no_compiler: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'out.json'
    assert main(['estimate', f'--config={TINY}', '--topology=v5e:2x2', '--one_run_a_chip', f'--json={out}']) == 0
    assert re.search(r'v5e:2x2: the table is complete after .* first: one run', capsys.readouterr().out)
    (found,) = json.loads(out.read_text())
    assert found['table_hours']['apart'] > 0 and found['table_hours']['together'] > 0
