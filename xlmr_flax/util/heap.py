"""Memory that was freed and not yet given back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def give_back() -> None:
    """Returns free memory of the C heap to the system, as far as its allocator can (glibc: malloc_trim(3)); elsewhere
    nothing happens. A compiler frees hundreds of MiB in small pieces, which glibc would keep beside the arrays of the
    program that it made."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
