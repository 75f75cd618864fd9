"""Times the attention implementations of the device that this process has, forward and with gradients.

All get the same rows of random numbers, as XLM-R Large's layers have them (16 heads of 64), packed with two examples
and padding. Each is compared with the einsums (xla) in float32: the root of the mean square of the error over that of
the values. Nothing is timed before it has run twice.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_flax.encoders.attention import attend, attention_mask
from xlmr_flax.encoders.attention.choose import (
    CUDNN,
    IMPLEMENTATIONS,
    INTERPRET,
    INTERPRET_TRITON,
    XLA,
    choose,
    cudnn_takes,
    platform_of,
)
from xlmr_flax.encoders.config import ModelError
from xlmr_flax.encoders.dropout import seed_of

HEADS, SIZE = 16, 64
_CALLS = 10  # calls between two looks at the clock


def measure(
    *, rows: int, length: int, rate: float, dtype: str, rounds: int, say: Callable[[str], None]
) -> tuple[str, str]:
    """Returns (Markdown, JSON): milliseconds, temporary memory and error of every implementation that the device has.

    rate: of dropout on attention weights. rounds: looks at the clock; the median counts.
    """
    device = jax.devices()[0]
    names = [name for name in IMPLEMENTATIONS if _is_here(name, platform_of(device), dtype, length, rate)]
    operands = _operands(rows, length, dtype)
    wide = [x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x for x in operands]
    want = jax.device_get(_both(XLA, rate)(*wide))
    found = []
    for name in names:
        say(name)
        forward, both = (f.lower(*operands).compile() for f in (_forward(name, rate), _both(name, rate)))
        found.append(
            {
                'implementation': name,
                'forward_ms': _milliseconds(forward, operands, rounds),
                'gradients_ms': _milliseconds(both, operands, rounds),
                'temporary_mib': both.memory_analysis().temp_size_in_bytes / (1 << 20),
                'errors': [_error(a, b) for a, b in zip(jax.device_get(both(*operands)), want, strict=True)],
            }
        )
    about = {
        'device': device.device_kind, 'platform': platform_of(device), 'jax': jax.__version__, 'rows': rows,
        'length': length, 'heads': HEADS, 'size': SIZE, 'rate': rate, 'dtype': dtype, 'rounds': rounds,
    }  # fmt: skip
    return _markdown(about, found), json.dumps({**about, 'found': found}, indent=2) + '\n'


def _is_here(name: str, platform: str, dtype: str, length: int, rate: float) -> bool:
    if name in (INTERPRET, INTERPRET_TRITON) or (name == CUDNN and not cudnn_takes(length, SIZE, rate)):
        return False
    try:
        return choose(name, platform, dtype) == name
    except ModelError:
        return False


def _operands(rows: int, length: int, dtype: str) -> list[jax.Array]:
    """qkv, bias, segments, the output's gradient."""
    random, width = np.random.default_rng(0), HEADS * SIZE
    segments = np.ones((rows, length), np.int32)
    segments[:, length // 2 :] = 2
    segments[:, length - length // 16 :] = 0
    given = random.normal(size=(rows, length, width)) * (segments > 0)[..., None]
    qkv, bias = random.normal(size=(3, rows, length, width)), random.normal(size=(3, width))
    return [jnp.asarray(qkv, dtype), jnp.asarray(bias, jnp.float32), jnp.asarray(segments), jnp.asarray(given, dtype)]


def _forward(name: str, rate: float) -> Any:
    @jax.jit
    def run(qkv: jax.Array, bias: jax.Array, segments: jax.Array, given: jax.Array) -> jax.Array:
        del given
        return _attend(name, rate, segments)(qkv, bias)

    return run


def _both(name: str, rate: float) -> Any:
    @jax.jit
    def run(qkv: jax.Array, bias: jax.Array, segments: jax.Array, given: jax.Array) -> tuple[jax.Array, ...]:
        mixed, pull = jax.vjp(_attend(name, rate, segments), qkv, bias)
        return jnp.where((segments > 0)[..., None], mixed, 0), *pull(given)

    return run


def _attend(name: str, rate: float, segments: jax.Array) -> Callable[..., jax.Array]:
    seed = seed_of(jax.random.key(0), 0) if rate else None

    def run(qkv: jax.Array, bias: jax.Array) -> jax.Array:
        mask = attention_mask(segments, HEADS, name)
        return attend(qkv, bias, mask, heads=HEADS, implementation=name, seed=seed, rate=rate)

    return run


def _milliseconds(program: Any, operands: list[jax.Array], rounds: int) -> float:
    """Median time of a call in milliseconds."""
    for _ in range(2):
        jax.block_until_ready(program(*operands))
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready([program(*operands) for _ in range(_CALLS)])
        times.append((time.perf_counter() - began) / _CALLS)
    return 1e3 * statistics.median(times)


def _error(found: Any, want: Any) -> float:
    a, b = np.asarray(found, np.float64), np.asarray(want, np.float64)
    return float(np.sqrt(np.square(a - b).mean() / np.square(b).mean()))


def _markdown(about: dict[str, Any], found: list[dict[str, Any]]) -> str:
    shape = f'{about["rows"]} × {about["length"]}, {HEADS} heads of {SIZE}, {about["dtype"]}, dropout {about["rate"]}'
    lines = [f'# Attention: {shape}, {about["device"]} ({about["platform"]}), jax {about["jax"]}', '']
    lines += ['| | forward ms | with gradients ms | temporary MiB | error | of gradients |']
    lines += ['|---|---:|---:|---:|---:|---:|']
    for each in found:
        values, *gradients = each['errors']
        lines.append(
            f'| {each["implementation"]} | {each["forward_ms"]:.3f} | {each["gradients_ms"]:.3f} | '
            f'{each["temporary_mib"]:.1f} | {values:.1e} | {max(gradients):.1e} |'
        )
    return '\n'.join([*lines, ''])
