"""Peak resident memory of this process."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from xlmr_flax.util.heap import give_back


def peak_memory() -> int:
    """Peak resident memory of this process in bytes, including the interpreter and the libraries.

    On Linux this is VmHWM, which counts from the start of this program. Elsewhere it is ru_maxrss, whose start value a
    child process inherits from its parent.
    """
    try:
        status = Path('/proc/self/status').read_text(encoding='ascii')
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith('VmHWM:')) * 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def forget_peak() -> bool:
    """Resets the peak memory; returns whether the system supports that (Linux: proc_pid_clear_refs(5)).

    Freed memory is returned to the system first, as far as the allocator supports it (glibc: malloc_trim(3)).
    """
    gc.collect()
    give_back()
    try:
        Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
    except OSError:
        return False
    return True
