"""The devices of this job as numbers: platform, kind, count, and the speeds and memory that defaults depend on.

Published peak numbers of TPUs: cloud.google.com/tpu/docs/v4, /v5e, /v5p-training, /v6e; of GPUs: NVIDIA's data sheets
of A100 (SXM), H100 (SXM) and H200. tools/estimate/chips.py has the same numbers of the chips that it compiles for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

GIB = 1 << 30
CPU, GPU, TPU = 'cpu', 'gpu', 'tpu'


@dataclass(frozen=True)
class Chip:
    """One accelerator. flops: peak bfloat16 FLOP/s. memory: bytes. speed: bytes of memory per second. link: bytes per
    second that it can send over all its links to the others."""

    name: str
    flops: float
    memory: float
    speed: float
    link: float


# Beginning of jax's device_kind -> chip. Longer names come first.
KINDS: dict[str, Chip] = {
    'TPU v6': Chip('v6e', 918e12, 32 * GIB, 1640e9, 400e9),
    'TPU v5 lite': Chip('v5e', 197e12, 16 * GIB, 819e9, 200e9),
    'TPU v5e': Chip('v5e', 197e12, 16 * GIB, 819e9, 200e9),
    'TPU v5': Chip('v5p', 459e12, 95 * GIB, 2765e9, 600e9),
    'TPU v4': Chip('v4', 275e12, 32 * GIB, 1228e9, 300e9),
    'NVIDIA H200': Chip('H200', 989e12, 141e9, 4800e9, 450e9),
    'NVIDIA H100': Chip('H100', 989e12, 80e9, 3350e9, 450e9),
    'NVIDIA A100-SXM4-40GB': Chip('A100', 312e12, 40e9, 1555e9, 300e9),
    'NVIDIA A100': Chip('A100', 312e12, 80e9, 2039e9, 300e9),
}
# For a device that is not in the table: the ratios of speeds decide, and no number is shown to the user.
_UNKNOWN = Chip('', 100e12, 16 * GIB, 800e9, 50e9)
_BFLOAT16 = 8.0  # the CUDA compute capability from which on a GPU multiplies in bfloat16


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
        return next((chip for start, chip in KINDS.items() if self.kind.startswith(start)), _UNKNOWN)

    @property
    def label(self) -> str:
        """'8 × TPU v5e'."""
        name = f'TPU {self.chip.name}' if self.platform == TPU and self.chip.name else self.kind
        return f'{self.devices} × {name}'


def machine_of(devices: list[Any]) -> Machine:
    """Describes devices of one kind."""
    first = devices[0]
    platform = TPU if first.platform == 'tpu' else CPU if first.platform == 'cpu' else GPU
    # A string such as '8.0' on CUDA; ROCm's names of architectures, such as 'gfx90a', are not numbers.
    capability = str(getattr(first, 'compute_capability', ''))
    number = capability.replace('.', '', 1).isdigit()
    fast = not number or float(capability) >= _BFLOAT16
    slices = len({getattr(device, 'slice_index', None) for device in devices})
    return Machine(platform, first.device_kind, len(devices), fast, slices)


def this_machine() -> Machine:
    """Describes the devices of this job."""
    return machine_of(jax.devices())
