"""Devices as numbers: which chip a device is, and what a GPU can do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from xlmr_flax.parallel.chips import GPUS, TPUS, UNKNOWN, chip_of
from xlmr_flax.parallel.machine import CPU, GPU, TPU, Machine, machine_of

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        ('TPU v4', 'v4'),
        ('TPU v5 lite', 'v5e'),
        ('TPU v5e', 'v5e'),
        ('TPU v5', 'v5p'),
        ('TPU v5p', 'v5p'),
        ('TPU v6 lite', 'v6e'),
        ('NVIDIA H100 80GB HBM3', 'h100'),
        ('NVIDIA H200', 'h200'),
        ('NVIDIA A100-SXM4-80GB', 'a100'),
        ('NVIDIA A100-SXM4-40GB', 'a100-40gb'),
    ],
)
def test_chip_of_a_device(kind: str, name: str) -> None:
    """The longest beginning counts: v5e's name begins with that of v5p."""
    assert chip_of(kind) is (TPUS | GPUS)[name]


def test_a_chip_that_is_in_no_table() -> None:
    assert chip_of('cpu') is chip_of('Tesla T4') is UNKNOWN
    assert [Machine(TPU, kind, 8).label for kind in ('TPU v5 lite', 'TPU v9')] == ['8 × TPU v5e', '8 × TPU v9']
    assert Machine(GPU, 'NVIDIA H100 80GB HBM3', 2).label == '2 × NVIDIA H100 80GB HBM3'


@pytest.mark.parametrize(
    ('platform', 'capability', 'found', 'has_bfloat16'),
    [
        ('cpu', None, CPU, True),
        ('tpu', None, TPU, True),
        ('gpu', '9.0', GPU, True),
        ('gpu', '12.0', GPU, True),
        ('gpu', '7.5', GPU, False),
        ('gpu', 'gfx942', GPU, True),
        ('rocm', None, GPU, True),
    ],
)
def test_machine_of_devices(platform: str, capability: str | None, found: str, has_bfloat16: bool) -> None:
    device = SimpleNamespace(platform=platform, device_kind='some', compute_capability=capability)
    assert machine_of([device] * 4) == Machine(found, 'some', 4, has_bfloat16)


def test_slices() -> None:
    devices = [SimpleNamespace(platform='tpu', device_kind='TPU v4', slice_index=n // 2) for n in range(4)]
    assert machine_of(devices).slices == 2
