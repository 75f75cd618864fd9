"""The attention implementations, and the choice of one for a platform.

xla_cpu    cpu.py: in blocks, with products that XLA:CPU computes with its fast matmul
xla        reference.py: einsums, for any platform
cudnn      NVIDIA's fused kernel, bfloat16 only, where a call has no dropout and cuDNN takes its shape; else triton
triton     gpu.py: Pallas kernels with dropout for NVIDIA GPUs of compute capability 8.0 (A100) and newer
tpu        tpu.py: Pallas kernels with dropout, for rows of up to 512 tokens; and kernels/norm.py
interpret  the kernels of tpu in interpret mode, on any platform: slow, for tests
interpret_triton  the kernels of triton in interpret mode

Rows of more than 512 tokens use blocked.py, a loop over blocks of queries, with xla_cpu, xla, tpu and interpret.

'auto' on a GPU: cudnn for bfloat16 from capability 8.0 on, the first that computes in bfloat16 (so not on
T4 and V100); xla for float32, on older cards and on ROCm.
"""

from __future__ import annotations

from typing import Any

from xlmr_flax.encoders.config import ModelError

CPU, XLA, CUDNN, TRITON, TPU = 'xla_cpu', 'xla', 'cudnn', 'triton', 'tpu'
INTERPRET, INTERPRET_TRITON = 'interpret', 'interpret_triton'
IMPLEMENTATIONS = (CPU, XLA, CUDNN, TRITON, TPU, INTERPRET, INTERPRET_TRITON)
KERNELS = (TPU, INTERPRET)
GPU_KERNELS = (CUDNN, TRITON, INTERPRET_TRITON)
AUTO = 'auto'
# Longest row for whole matrices of scores; for the kernels, those of a longer one do not fit into a v4's VMEM.
MOST_TOKENS = 512
_NEEDS = {CUDNN: 'cuda', TRITON: 'cuda', TPU: 'tpu'}
CAPABILITY = 8.0  # the first with bfloat16, and the first that Triton and cuDNN's fused attention take
_CUDNN_SIZE = 128  # largest head of cuDNN on an A100


def platform_of(device: Any) -> str:
    """The platform of a jax device, for `choose`: 'cpu', 'tpu', 'rocm', or 'cuda:9.0' with the compute capability."""
    if device.platform not in ('gpu', 'cuda', 'rocm'):
        return device.platform
    capability = str(getattr(device, 'compute_capability', None) or '')
    if device.platform == 'rocm' or capability.startswith('gfx'):
        return 'rocm'
    return f'cuda:{capability}' if capability else 'cuda'


def choose(name: str, platform: str, dtype: str) -> str:
    """Resolves an attention implementation for a platform and a compute dtype. 'auto' = the platform's fastest.

    platform: of `platform_of`; 'gpu' is 'cuda'. Raises ModelError for an unknown name, and for one that the platform or
    the dtype does not support.
    """
    platform, _, capability = platform.partition(':')
    platform = 'cuda' if platform == 'gpu' else platform
    is_old = bool(capability) and float(capability) < CAPABILITY
    if name == AUTO:
        on_cuda = CUDNN if dtype == 'bfloat16' and not is_old else XLA
        return {'cpu': CPU, 'tpu': TPU, 'cuda': on_cuda}.get(platform, XLA)
    check_name(name)
    if _NEEDS.get(name, platform) != platform:
        raise ModelError(f'encoder.attention {name!r} needs the platform {_NEEDS[name]}, and this is {platform}')
    if name in (CUDNN, TRITON) and is_old:
        raise ModelError(f'encoder.attention {name!r} needs compute capability {CAPABILITY}, and this is {capability}')
    if name == CUDNN and dtype != 'bfloat16':
        raise ModelError(f"encoder.attention 'cudnn' computes in bfloat16, and encoder.dtype is {dtype}")
    return name


def cudnn_takes(tokens: int, size: int, rate: float) -> bool:
    """Whether cuDNN's kernel computes a training step of rows of `tokens` and heads of `size` with this dropout rate.

    With a mask it needs an even number of tokens (jax's check_is_flash_attention). Its dropout is not used: its
    seed would be a constant of the program.
    """
    return rate == 0.0 and tokens % 2 == 0 and size % 8 == 0 and size <= _CUDNN_SIZE


def check_name(name: str) -> None:
    """Raises ModelError for an unknown attention implementation."""
    if name not in (AUTO, *IMPLEMENTATIONS):
        raise ModelError(f'encoder.attention {name!r} is not one of {", ".join((AUTO, *IMPLEMENTATIONS))}')
