"""Returns freed heap memory to the operating system."""

from __future__ import annotations

import contextlib
import ctypes


def give_back() -> None:
    """Returns free memory of the C heap to the operating system (glibc: malloc_trim(3)); does nothing without glibc.

    XLA's compiler frees hundreds of MiB in small pieces. Without this call, glibc keeps them while the compiled
    program runs.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
