"""TPU chips and slices of them: what a chip can do at most, and device descriptions without hardware.

Numbers are per chip, as published:
- peak bfloat16 FLOP/s, HBM and its bandwidth, interconnect: cloud.google.com/tpu/docs/v4, /v5e, /v5p-training, /v6e.
  Interconnect is given there in both directions together for v5p (1200 GB/s) and in one for v4, v5e and v6e (2400, 1600
  and 3200 Gbit/s); here it is bytes a second that a chip can send over all of its links.
- clocks: v4 in Jouppi et al. 2023 (TPU v4, arXiv 2304.01433, table 4); the others follow from the peak and what the
  matrix units do in a cycle, as Austin et al. 2025 (How to Scale Your Model, chapter 2) count it: v5e 4 units of 128 x
  128 at 1.5 GHz, v5p 8 of them at 1.75 GHz, v6e 4 units' worth of 256 x 256 at 1.75 GHz, a multiply and an add each.
- vector units: 8 x 128 lanes with four units each a core (the same); v4 and v5p chips have two cores. What a product of
  two integers takes on a v4 is counted in libtpu's schedule of this package's kernels; the others have an instruction.
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
    """One chip. flops: bfloat16 a second. clock: Hz. hbm: bytes. hbm_speed, ici_speed: bytes a second; the second is
    what it can send. dimensions: of a slice. config: the name that libtpu has for a chip that is one device."""

    name: str
    flops: float
    clock: float
    hbm: int
    hbm_speed: float
    ici_speed: float
    dimensions: int
    config: str = 'default'
    vector: int = 4096  # elements of 32 bits a cycle
    integer_product: int = 1  # of 32 bits, in vector operations


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
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # nothing of the hardware is used, which one process at a time may have
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_MIN_LOG_LEVEL': '3',
    'TPU_STDERR_LOG_LEVEL': '3',
}
_HOST = 2  # chips of a host along the first two dimensions, where a slice has more than one host


@dataclass(frozen=True)
class Topology:
    """A slice of a pod: its chip and how many of them lie along each dimension."""

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
    """'v5e:4x4' -> its Topology. Raises EstimateError for an unknown chip or a shape that no slice of it has."""
    kind, _, rest = text.strip().lower().partition(':')
    if kind not in CHIPS:
        raise EstimateError(f'topology {text!r}: unknown chip {kind!r}{closest(kind, CHIPS)}')
    chip = CHIPS[kind]
    example = 'x'.join(['4'] * chip.dimensions)
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', rest) or rest.count('x') + 1 != chip.dimensions:
        raise EstimateError(
            f'topology {text!r}: expected {chip.dimensions} numbers of chips behind the colon, as in {kind}:{example}'
        )
    shape = tuple(map(int, rest.split('x')))
    if any(n % _HOST and n != 1 for n in shape[:2]) or (1 in shape[:2] and max(shape) > _HOST):
        raise EstimateError(
            f'topology {text!r}: chips come in hosts of 2 x 2; expected even numbers, as in {kind}:{example}'
        )
    return Topology(chip, shape)


def parse_topologies(texts: Sequence[str]) -> list[Topology]:
    """Topologies in the order given, each once."""
    return list({t.name: t for t in map(parse_topology, texts)}.values())


def devices(topology: Topology) -> list[Any]:
    """Device descriptions of a slice, one a chip; no hardware is asked for. Raises EstimateError without libtpu."""
    # What libtpu would otherwise ask the machine for, at length and in vain where it is no TPU host.
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    if not has_libtpu():
        raise EstimateError("libtpu is not installed, the compiler for TPUs: pip install -e '.[tpu]' in the checkout")
    options: dict[str, Any] = {'chip_config_name': topology.chip.config}
    if 1 in topology.shape[:2]:
        options['chips_per_host_bounds'] = (*topology.shape[:2], 1)
    try:
        found = topologies.get_topology_desc(platform='tpu', topology_name=topology.name, **options).devices
    except Exception as e:  # of several types, by version
        raise EstimateError(f'topology {topology.name}: libtpu refuses it: {str(e).splitlines()[0]}') from None
    if len(found) != topology.chips:
        raise EstimateError(f'topology {topology.name}: libtpu gives {len(found)} devices, expected one a chip')
    return list(found)


def has_libtpu() -> bool:
    """Whether the compiler for TPUs is installed."""
    import importlib.util

    return importlib.util.find_spec('libtpu') is not None
