"""TPU slices and GPUs by name, and JAX device descriptions of slices without hardware. Numbers: parallel/chips.py."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xlmr_flax.parallel.chips import GPUS, TPUS, Chip
from xlmr_flax.tools.estimate import EstimateError
from xlmr_flax.util.errors import closest

# Chips for which programs can be compiled without hardware: gpus.py describes the GPUs.
CHIPS = TPUS | {name: GPUS[name] for name in ('h100', 'a100')}
MOST_GPUS = 8  # of a machine, joined by NVLink; several machines are not estimated
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
    """A slice of a TPU pod, or GPUs of a machine: the chip, and the number of chips along each dimension."""

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
    """Parses 'v5e:4x4' or 'h100:8'. Raises EstimateError for an unknown chip or a shape that no slice of it has."""
    kind, _, rest = text.strip().lower().partition(':')
    if kind not in CHIPS:
        raise EstimateError(f'topology {text!r}: unknown chip {kind!r}{closest(kind, CHIPS)}')
    chip = CHIPS[kind]
    if chip.is_gpu:
        if not rest.isdecimal() or not 1 <= int(rest) <= MOST_GPUS:
            raise EstimateError(f'topology {text!r}: expected a number of GPUs from 1 to {MOST_GPUS}, as in {kind}:8')
        return Topology(chip, (int(rest),))
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
    """Device descriptions of a slice of TPUs, one per chip; needs no hardware. Raises EstimateError without libtpu."""
    # Without these variables libtpu queries the metadata of a TPU host, which takes long and fails elsewhere.
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    if not has_libtpu():
        raise EstimateError("libtpu, the compiler for TPUs, is not installed: pip install -e '.[tpu]' in the checkout")
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
