"""NVIDIA GPUs: JAX device descriptions without hardware.

The numbers of a GPU are in parallel/chips.py, the description follows OpenXLA's h100_sxm.txtpb and a100_sxm_80.txtpb in
xla/backends/gpu/target_config/specs. The compiler gets it as XLA's GpuTargetConfigProto.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from xlmr_flax.parallel.chips import Chip
from xlmr_flax.tools.estimate import EstimateError
from xlmr_flax.tools.estimate.chips import Topology

# As a real GPU would give them: name, capability, multiprocessors, float32 lanes, shared memory of a multiprocessor and
# of a block, L2 cache.
_DESCRIPTIONS = {
    'h100': ('NVIDIA H100 80GB HBM3', 9, 132, 128, 233_472, 232_448, 52_428_800),
    'a100': ('NVIDIA A100-SXM4-80GB', 8, 108, 64, 167_936, 166_912, 41_943_040),
}
_WITHOUT_DRIVER = {'JAX_SKIP_CUDA_CONSTRAINTS_CHECK': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
# Choosing the fastest kernel takes measurements on a GPU.
COMPILER_OPTIONS = {'xla_gpu_autotune_level': '0'}


def target(gpu: Chip) -> str:
    """The GPU as XLA's GpuTargetConfigProto, in text format."""
    name, major, cores, lanes, shared, optin, cache = _DESCRIPTIONS[gpu.name]
    return f"""gpu_device_info {{
threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: {cores}
fpus_per_core: {lanes} shared_memory_per_block: 49152 shared_memory_per_core: {shared}
shared_memory_per_block_optin: {optin} block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
block_dim_limit_z: 65535 memory_bandwidth: {round(gpu.hbm_speed)} l2_cache_size: {cache}
clock_rate_ghz: {gpu.clock / 1e9} device_memory_size: {gpu.hbm} cuda_compute_capability {{ major: {major} }}
registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{name}"
"""


def has_cuda() -> bool:
    """Whether JAX's plugin for CUDA, the compiler for NVIDIA GPUs, is installed."""
    return any(importlib.util.find_spec(f'jax_cuda{n}_plugin') is not None for n in (12, 13))


def gpu_devices(topology: Topology) -> list[Any]:
    """Device descriptions of the GPUs of a machine; needs no GPU. Raises EstimateError without JAX's CUDA plugin."""
    if not has_cuda():
        raise EstimateError(
            "JAX's plugin for CUDA, the compiler for NVIDIA GPUs, is not installed: pip install -e "
            "'.[estimate-gpu]' in the checkout"
        )
    # The plugin looks for a driver and for GPUs when jax loads it; where there is none, it would not load.
    for name, value in _WITHOUT_DRIVER.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(
            platform='cuda', target_config=target(topology.chip), topology=f'1x1x{topology.chips}'
        ).devices
    except Exception as e:  # the type depends on the version
        raise EstimateError(f'topology {topology.name}: XLA refuses it: {str(e).splitlines()[0]}') from None
    return list(described)
