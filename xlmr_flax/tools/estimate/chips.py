"""TPU chips and slices: published peak numbers of each chip, and JAX device descriptions without hardware.

Numbers are per chip:
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
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xlmr_flax.tasks.base import closest
from xlmr_flax.tools.estimate import EstimateError

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """One TPU chip.

    flops: peak bfloat16 FLOP/s. clock: Hz. hbm: bytes. hbm_speed: bytes per second. ici_speed: bytes per second that
    the chip can send. dimensions: number of dimensions of a slice. config: libtpu's name of the configuration in which
    a chip is one device.
    """

    name: str
    flops: float
    clock: float
    hbm: int
    hbm_speed: float
    ici_speed: float
    dimensions: int
    config: str = 'default'
    vector: int = 4096  # 32-bit elements per cycle
    integer_product: int = 1  # cost of a 32-bit integer product, in vector operations


CHIPS = {
    chip.name: chip
    for chip in (
        Chip('v4', 275e12, 1.05e9, 32 * GIB, 1228e9, 300e9, 3, 'megacore', 8192, 24),
        Chip('v5e', 197e12, 1.5e9, 16 * GIB, 819e9, 200e9, 2),
        Chip('v5p', 459e12, 1.75e9, 95 * GIB, 2765e9, 600e9, 3, 'megacore', 8192),
        Chip('v6e', 918e12, 1.75e9, 32 * GIB, 1640e9, 400e9, 2),
    )
}
_QUIET = {
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # only one process at a time may use the hardware, and this one does not use it
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_MIN_LOG_LEVEL': '3',
    'TPU_STDERR_LOG_LEVEL': '3',
}
_HOST = 2  # chips of a host along each of the first two dimensions, if a slice has several hosts


@dataclass(frozen=True)
class Topology:
    """A slice of a TPU pod: its chip, and the number of chips along each dimension."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        product = 1
        for n in self.shape:
            product *= n
        return product

    @property
    def name(self) -> str:
        return f'{self.chip.name}:{"x".join(map(str, self.shape))}'


def parse_topology(text: str) -> Topology:
    """Parses 'v5e:4x4'. Raises EstimateError for an unknown chip or a shape that no slice of it has."""
    kind, _, rest = text.strip().lower().partition(':')
    if kind not in CHIPS:
        raise EstimateError(f'topology {text!r}: unknown chip {kind!r}{closest(kind, CHIPS)}')
    chip = CHIPS[kind]
    example = 'x'.join(['4'] * chip.dimensions)
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', rest) or rest.count('x') + 1 != chip.dimensions:
        raise EstimateError(
            f'topology {text!r}: expected {chip.dimensions} numbers of chips after the colon, as in {kind}:{example}'
        )
    shape = tuple(map(int, rest.split('x')))
    if any(n % _HOST and n != 1 for n in shape[:2]) or (1 in shape[:2] and max(shape) > _HOST):
        raise EstimateError(
            f'topology {text!r}: chips come in hosts of 2 x 2; expected even numbers, as in {kind}:{example}'
        )
    return Topology(chip, shape)


def parse_topologies(texts: Sequence[str]) -> list[Topology]:
    """Parses topologies; keeps their order and drops duplicates."""
    return list({t.name: t for t in map(parse_topology, texts)}.values())


def devices(topology: Topology) -> list[Any]:
    """Device descriptions of a slice, one per chip; needs no hardware. Raises EstimateError without libtpu."""
    # Without these variables libtpu queries the metadata of a TPU host, which takes long and fails elsewhere.
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    if not has_libtpu():
        raise EstimateError("libtpu is not installed, the compiler for TPUs: pip install -e '.[tpu]' in the checkout")
    options: dict[str, Any] = {'chip_config_name': topology.chip.config}
    if 1 in topology.shape[:2]:
        options['chips_per_host_bounds'] = (*topology.shape[:2], 1)
    try:
        described = topologies.get_topology_desc(platform='tpu', topology_name=topology.name, **options).devices
    except Exception as e:  # the type depends on the version
        raise EstimateError(f'topology {topology.name}: libtpu refuses it: {str(e).splitlines()[0]}') from None
    if len(described) != topology.chips:
        raise EstimateError(f'topology {topology.name}: libtpu gives {len(described)} devices, expected one a chip')
    return list(described)


def has_libtpu() -> bool:
    """Whether libtpu, the compiler for TPUs, is installed."""
    import importlib.util

    return importlib.util.find_spec('libtpu') is not None
