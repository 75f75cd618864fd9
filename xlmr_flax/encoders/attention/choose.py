"""The formulations of attention, and which one a platform takes.

xla_cpu    cpu.py: products that XLA:CPU hands to its fast matrix product, in blocks
xla        reference.py: einsums, for any platform
cudnn      the fused kernel of NVIDIA's library, bfloat16 only; a step that drops attention weights takes xla
tpu        tpu.py: Pallas kernels, dropout included, rows of up to 512 tokens (of more, xla); and kernels/norm.py
interpret  these kernels interpreted, on any platform: slow, for tests
"""

from __future__ import annotations

from xlmr_flax.encoders.config import ModelError

CPU, XLA, CUDNN, TPU, INTERPRET = 'xla_cpu', 'xla', 'cudnn', 'tpu', 'interpret'
IMPLEMENTATIONS = (CPU, XLA, CUDNN, TPU, INTERPRET)
KERNELS = (TPU, INTERPRET)
AUTO = 'auto'
MOST_TOKENS = 512  # of a row that the kernels take: a v4's VMEM holds no more scores
_NEEDS = {CUDNN: 'gpu', TPU: 'tpu'}
_PLATFORMS = {'cuda': 'gpu', 'rocm': 'gpu'}


def choose(name: str, platform: str, dtype: str) -> str:
    """The formulation that `name` ('auto': the platform's fastest) means on a platform. Raises ModelError for one that
    is not known or that the platform or the compute dtype does not have."""
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
    """Raises ModelError for a formulation that is not known."""
    if name not in (AUTO, *IMPLEMENTATIONS):
        raise ModelError(f'encoder.attention {name!r} is not one of {", ".join((AUTO, *IMPLEMENTATIONS))}')
