"""Names of slices, and what is published of their chips."""

from __future__ import annotations

import pytest

from xlmr_flax.parallel.chips import TPUS
from xlmr_flax.tools.estimate import EstimateError, chips
from xlmr_flax.tools.estimate.chips import Topology, devices, parse_topologies, parse_topology


@pytest.mark.parametrize(
    ('text', 'shape', 'count'),
    [
        ('v5e:4x4', (4, 4), 16),
        ('v5e:16x16', (16, 16), 256),
        ('V6E:2x4', (2, 4), 8),
        ('v5e:1x1', (1, 1), 1),
        ('v5e:1x2', (1, 2), 2),
        ('v4:2x2x1', (2, 2, 1), 4),
        (' v5p:4x4x8 ', (4, 4, 8), 128),
    ],
)
def test_topologies(text: str, shape: tuple[int, ...], count: int) -> None:
    found = parse_topology(text)
    assert found.shape == shape and found.chips == count
    assert found.name == text.strip().lower()


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('v5x:4x4', "unknown chip 'v5x'.*did you mean"),
        ('4x4', "unknown chip '4x4'"),
        ('v5e', 'expected 2 numbers of chips after the colon, as in v5e:4x4'),
        ('v5e:2x2x2', 'expected 2 numbers'),
        ('v4:4x4', 'expected 3 numbers of chips after the colon, as in v4:4x4x4'),
        ('v5e:0x4', 'expected 2 numbers'),
        ('v5e:3x4', 'hosts of 2 x 2'),
        ('v5e:1x8', 'hosts of 2 x 2'),
    ],
)
def test_topologies_that_do_not_exist(text: str, said: str) -> None:
    with pytest.raises(EstimateError, match=said):
        parse_topology(text)


def test_several_topologies_each_once() -> None:
    assert [t.name for t in parse_topologies(['v5e:2x4', 'v5p:2x2x1', 'v5e:2x4'])] == ['v5e:2x4', 'v5p:2x2x1']


def test_peaks_follow_from_the_matrix_units() -> None:
    """Units x side x side x 2 operations x clock, to a per cent: two published numbers that must agree."""
    units = {'v4': (8, 128), 'v5e': (4, 128), 'v5p': (8, 128), 'v6e': (4, 256)}
    assert set(units) == set(TPUS)
    for name, (count, side) in units.items():
        chip = TPUS[name]
        assert 2 * count * side**2 * chip.clock == pytest.approx(chip.flops, rel=0.01)


def test_without_libtpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chips, 'has_libtpu', lambda: False)
    with pytest.raises(
        EstimateError,
        match=r"libtpu, .* is not installed.*pip install -e '\.\[tpu\]' in the checkout",
    ):
        devices(Topology(TPUS['v5e'], (2, 2)))
