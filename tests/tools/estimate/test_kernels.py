"""The kernels of encoders/ compile for every chip: what a chip's vector memory holds is known to its compiler alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from xlmr_flax.encoders.attention import attend, attention_mask
from xlmr_flax.encoders.attention.choose import TPU
from xlmr_flax.encoders.kernels.norm import sum_and_norm
from xlmr_flax.encoders.logical_axes import UNCONSTRAINED
from xlmr_flax.tools.estimate.chips import devices, has_libtpu, parse_topology
from xlmr_flax.tools.estimate.programs import _no_cache

SLICES = ('v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_libtpu(), reason="libtpu is not installed (pip install -e '.[tpu]')"),
]


def compiled(slice: str, run: Any, *operands: tuple[tuple[int, ...], str]) -> str:
    """The text of `run` and of its gradient, compiled for one chip."""
    place = SingleDeviceSharding(devices(parse_topology(slice))[0])
    shapes = [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=place) for shape, dtype in operands]
    with _no_cache():
        return jax.jit(run).lower(*shapes).compile().as_text()


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
@pytest.mark.parametrize(
    ('rows', 'length', 'heads', 'size'),
    [(40, 16, 16, 64), (32, 128, 16, 64), (5, 200, 12, 64), (2, 512, 16, 64), (8, 128, 4, 8), (16, 40, 12, 32)],
)
@pytest.mark.parametrize('slice', SLICES)
def test_attention(slice: str, rows: int, length: int, heads: int, size: int, dtype: str) -> None:
    """Rows that fill a program and that several share; lengths that are no multiple of a register's; few lanes."""
    width = heads * size

    def run(qkv: jax.Array, bias: jax.Array, segments: jax.Array, seed: jax.Array, given: jax.Array) -> Any:
        mask = attention_mask(segments, heads, TPU)

        def forward(qkv: jax.Array, bias: jax.Array) -> jax.Array:
            return attend(qkv, bias, mask, heads=heads, implementation=TPU, seed=seed, rate=0.1)

        mixed, pull = jax.vjp(forward, qkv, bias)
        return mixed, pull(given)

    whole = (rows, length, width)
    operands = (((3, *whole), dtype), ((3, width), 'float32'), (whole[:2], 'int32'), ((1, 2), 'int32'), (whole, dtype))
    text = compiled(slice, run, *operands)
    assert text.count('custom_call_target="tpu_custom_call"') == 2


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
@pytest.mark.parametrize(('rows', 'length', 'width'), [(8, 512, 1024), (40, 16, 768), (5, 200, 1024), (4, 24, 96)])
@pytest.mark.parametrize('slice', SLICES)
def test_sum_and_norm(slice: str, rows: int, length: int, width: int, dtype: str) -> None:
    def run(seed: jax.Array, one: jax.Array, two: jax.Array, *operands: jax.Array) -> Any:
        more = {'epsilon': 1e-5, 'rate': 0.1, 'name': 'sum', 'uses': 2, 'place': UNCONSTRAINED, 'interpret': False}
        out, pull = jax.vjp(lambda *given: sum_and_norm(*given, seed, **more), *operands)
        return out, pull((one, two))

    whole, vector = ((rows, length, width), dtype), ((width,), 'float32')
    text = compiled(slice, run, ((1, 2), 'int32'), whole, whole, whole, whole, vector, vector, vector)
    assert text.count('custom_call_target="tpu_custom_call"') == 2
