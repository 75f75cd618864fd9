"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from xlmr_flax.util.heap import give_back


def resident() -> int:
    return int(Path('/proc/self/statm').read_text().split()[1])


def test_freed_memory_goes_back() -> None:
    try:
        libc = ctypes.CDLL(None)
        assert libc.malloc_trim
        resident()
    except (OSError, AttributeError):
        pytest.skip('not glibc on Linux')
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    give_back()
    size, count = 64 << 10, 1024
    pieces = [libc.malloc(size) for _ in range(count)]
    for piece in pieces:
        ctypes.memset(piece, 1, size)
    held = resident()
    # The last piece stays: without a trim glibc keeps everything below it.
    for piece in pieces[:-1]:
        libc.free(piece)
    give_back()
    pages = size * count // 4096
    assert held - resident() > pages // 2
    libc.free(pieces[-1])
