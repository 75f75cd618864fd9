"""The attention implementations, and the choice of one for a platform.

xla_cpu    cpu.py: in blocks, with products that XLA:CPU computes with its fast matmul
xla        reference.py: einsums, for any platform
cudnn      NVIDIA's fused kernel, bfloat16 only; steps with attention dropout use xla
tpu        tpu.py: Pallas kernels with dropout, for rows of up to 512 tokens (longer rows use xla); and kernels/norm.py
interpret  the Pallas kernels in interpret mode, on any platform: slow, for tests
"""

from __future__ import annotations

from xlmr_flax.encoders.config import ModelError

CPU, XLA, CUDNN, TPU, INTERPRET = 'xla_cpu', 'xla', 'cudnn', 'tpu', 'interpret'
IMPLEMENTATIONS = (CPU, XLA, CUDNN, TPU, INTERPRET)
KERNELS = (TPU, INTERPRET)
AUTO = 'auto'
MOST_TOKENS = 512  # longest row for the kernels; the scores of a longer one do not fit into a v4's VMEM
_NEEDS = {CUDNN: 'gpu', TPU: 'tpu'}
_PLATFORMS = {'cuda': 'gpu', 'rocm': 'gpu'}


def choose(name: str, platform: str, dtype: str) -> str:
    """Resolves an attention implementation for a platform and a compute dtype. 'auto' = the platform's fastest.

    Raises ModelError for an unknown name, and for one that the platform or the dtype does not support.
    """
    platform = _PLATFORMS.get(platform, platform)
    if name == AUTO:
        fastest = {'cpu': CPU, 'tpu': TPU, 'gpu': CUDNN if dtype == 'bfloat16' else XLA}
        return fastest.get(platform, XLA)
    check_name(name)
    if _NEEDS.get(name, platform) != platform:
        raise ModelError(f'encoder.attention {name!r} needs the platform {_NEEDS[name]}, and this is {platform}')
    if name == CUDNN and dtype != 'bfloat16':
        raise ModelError(f"encoder.attention 'cudnn' computes in bfloat16, and encoder.dtype is {dtype}")
    return name


def check_name(name: str) -> None:
    """Raises ModelError for an unknown attention implementation."""
    if name not in (AUTO, *IMPLEMENTATIONS):
        raise ModelError(f'encoder.attention {name!r} is not one of {", ".join((AUTO, *IMPLEMENTATIONS))}')
