"""Published numbers of TPU chips and GPUs: peak speeds, memory and links. Defaults and estimates read them here.

TPUs, per chip:
- peak bfloat16 FLOP/s, HBM and its bandwidth, interconnect: cloud.google.com/tpu/docs/v4, /v5e, /v5p-training, /v6e.
  These pages give the interconnect bandwidth as the sum of both directions for v5p (1200 GB/s), and as that of one
  direction for v4, v5e and v6e (2400, 1600 and 3200 Gbit/s). Here it is the bytes per second that a chip can send over
  all its links.
- clocks: v4 from Jouppi et al. 2023 (TPU v4, arXiv 2304.01433, table 4). The others are computed from the peak and the
  operations of the matrix units in a cycle, as in Austin et al. 2025 (How to Scale Your Model, chapter 2): v5e 4 units
  of 128 x 128 at 1.5 GHz, v5p 8 such units at 1.75 GHz, v6e 4 units' worth of 256 x 256 at 1.75 GHz, with a multiply
  and an add each.
- vector units: 8 x 128 lanes with four units each per core (same source); v4 and v5p chips have two cores. The cost of
  an integer product on v4 is counted in libtpu's schedule of this package's kernels; the other chips have an
  instruction for it.

GPUs, dense, without sparsity:
- bfloat16, float32 and NVLink: NVIDIA's data sheets of the H100 (SXM5: 989.4 and 67 TFLOP/s, 900 GB/s in both
  directions together; half of the 1,979 TFLOP/s with sparsity, with the digit of the architecture's white paper) and of
  the A100 (SXM4, 80 GB: 312 and 19.5 TFLOP/s, 600 GB/s).
- memory, its bandwidth, clocks, multiprocessors and their float32 lanes (`vector` is their product): as the driver
  gives them, from OpenXLA, xla/backends/gpu/target_config/specs/h100_sxm.txtpb and a100_sxm_80.txtpb.
- memory and bandwidth of the H200 and of the A100 with 40 GB, which differ in nothing else here: NVIDIA's data sheets.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """One TPU chip, or one GPU.

    kinds: how jax's device_kind begins. flops: peak bfloat16 FLOP/s. clock: Hz. hbm: bytes of memory. hbm_speed: bytes
    per second. link_speed: bytes per second that the chip can send, over all its links to the others. dimensions:
    number of dimensions of a slice. config: libtpu's name of the configuration in which a chip is one device. vector:
    32-bit elements per cycle. integer_product: cost of a 32-bit integer product, in vector operations. flops32: peak
    float32 FLOP/s, of GPUs alone.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    clock: float
    hbm: int
    hbm_speed: float
    link_speed: float
    dimensions: int
    config: str = 'default'
    vector: int = 4096
    integer_product: int = 1
    flops32: float = 0.0

    @property
    def is_gpu(self) -> bool:
        return bool(self.flops32)


TPUS = {
    chip.name: chip
    for chip in (
        Chip('v4', ('TPU v4',), 275e12, 1.05e9, 32 * GIB, 1228e9, 300e9, 3, 'megacore', 8192, 24),
        Chip('v5e', ('TPU v5 lite', 'TPU v5e'), 197e12, 1.5e9, 16 * GIB, 819e9, 200e9, 2),
        Chip('v5p', ('TPU v5',), 459e12, 1.75e9, 95 * GIB, 2765e9, 600e9, 3, 'megacore', 8192),
        Chip('v6e', ('TPU v6',), 918e12, 1.75e9, 32 * GIB, 1640e9, 400e9, 2),
    )
}
_H100 = Chip(
    'h100', ('NVIDIA H100',), 989.4e12, 1.98e9, 84_942_979_072, 3352.32e9, 450e9, 1, 'gpu', 132 * 128, flops32=67e12
)
_A100 = Chip(
    'a100', ('NVIDIA A100',), 312e12, 1.41e9, 85_100_068_864, 2039.04e9, 300e9, 1, 'gpu', 108 * 64, flops32=19.5e12
)
GPUS = {
    chip.name: chip
    for chip in (
        _H100,
        _A100,
        dataclasses.replace(_H100, name='h200', kinds=('NVIDIA H200',), hbm=141_000_000_000, hbm_speed=4800e9),
        dataclasses.replace(
            _A100, name='a100-40gb', kinds=('NVIDIA A100-SXM4-40GB',), hbm=40_000_000_000, hbm_speed=1555e9
        ),
    )
}
# For a device that is not in the tables: the ratios of speeds decide, and no number is shown to the user.
UNKNOWN = Chip('', (), 100e12, 1e9, 16 * GIB, 800e9, 50e9, 1)


def chip_of(kind: str) -> Chip:
    """The chip whose `kinds` have the longest beginning of jax's device_kind; UNKNOWN if none has one."""
    known = [(len(start), chip) for chip in (TPUS | GPUS).values() for start in chip.kinds if kind.startswith(start)]
    return max(known, key=lambda each: each[0])[1] if known else UNKNOWN
