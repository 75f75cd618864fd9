"""The devices of this job as numbers: platform, kind, count, and what defaults depend on (parallel/chips.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from xlmr_flax.encoders.attention.choose import CAPABILITY, platform_of
from xlmr_flax.parallel.chips import Chip, chip_of

CPU, GPU, TPU = 'cpu', 'gpu', 'tpu'


@dataclass(frozen=True)
class Machine:
    """The devices of a job. platform: 'cpu', 'gpu' or 'tpu'. kind: jax's name of a device. devices: their number, over
    all processes. has_bfloat16: whether matrix products in bfloat16 are faster than in float32. slices:
    number of TPU slices that the devices belong to."""

    platform: str
    kind: str
    devices: int
    has_bfloat16: bool = True
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """The numbers of a device; typical ones for an unknown kind."""
        return chip_of(self.kind)

    @property
    def label(self) -> str:
        """Number and name of the devices, for the user: '8 × TPU v5e'."""
        name = f'TPU {self.chip.name}' if self.platform == TPU and self.chip.name else self.kind
        return f'{self.devices} × {name}'


def machine_of(devices: list[Any]) -> Machine:
    """Describes devices of one kind."""
    first = devices[0]
    name, _, capability = platform_of(first).partition(':')
    platform = {'tpu': TPU, 'cpu': CPU}.get(name, GPU)
    slices = len({getattr(device, 'slice_index', None) for device in devices})
    return Machine(platform, first.device_kind, len(devices), float(capability or CAPABILITY) >= CAPABILITY, slices)


def this_machine() -> Machine:
    """Describes the devices of this job."""
    return machine_of(jax.devices())
