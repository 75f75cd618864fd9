"""Compiled programs that a process holds, and letting go of them."""

from __future__ import annotations

import gc
from pathlib import Path

import jax

_MAPS, _MOST = Path('/proc/self/maps'), Path('/proc/sys/vm/max_map_count')
_SHARE = 0.4


def is_crowded(share: float = _SHARE) -> bool:
    """Whether the process has more than this share of the memory maps that Linux gives one (65,530 unless set
    otherwise). A program for a CPU takes some ten of them, and XLA crashes when there are no more. False where that
    cannot be read."""
    try:
        most = int(_MOST.read_text())
        with _MAPS.open('rb') as maps:
            return sum(1 for _ in maps) > share * most
    except (OSError, ValueError):
        return False


def release() -> bool:
    """Between two runs: frees what only reference cycles keep alive (the arrays of a failed run live as long as its
    traceback), and where the process is crowded every compiled program; those that are needed again come from the
    compilation cache. Returns whether programs were let go of."""
    gc.collect()
    if not is_crowded():
        return False
    jax.clear_caches()
    gc.collect()
    return True
