"""Releases compiled programs when a process has too many memory maps."""

from __future__ import annotations

import gc
from pathlib import Path

import jax

_MAPS, _MOST = Path('/proc/self/maps'), Path('/proc/sys/vm/max_map_count')
_SHARE = 0.4


def is_crowded(share: float = _SHARE) -> bool:
    """Whether the process uses more than this share of the memory maps that Linux allows (65,530 by default).

    A compiled CPU program takes about ten maps, and XLA crashes when none are left. False if /proc cannot be read.
    """
    try:
        most = int(_MOST.read_text())
        with _MAPS.open('rb') as maps:
            return sum(1 for _ in maps) > share * most
    except (OSError, ValueError):
        return False


def release() -> bool:
    """Frees memory between two runs. Returns whether compiled programs were released.

    It collects reference cycles, because the arrays of a failed run live as long as its traceback. If `is_crowded`, it
    also releases all compiled programs; those that are needed again are read from the compilation cache.
    """
    gc.collect()
    if not is_crowded():
        return False
    jax.clear_caches()
    gc.collect()
    return True
