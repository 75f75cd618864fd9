"""The most memory that this process has held."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from xlmr_flax.util.heap import give_back


def peak_memory() -> int:
    """Bytes of resident memory at the process's peak, interpreter and libraries among them.

    Linux: VmHWM, which belongs to this program. Elsewhere ru_maxrss, which a child begins with its parent's value.
    """
    try:
        status = Path('/proc/self/status').read_text(encoding='ascii')
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith('VmHWM:')) * 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def forget_peak() -> bool:
    """Lets the peak count from now on; whether the system can (Linux: proc_pid_clear_refs(5)). What was freed is given
    back first, as far as the allocator can (glibc: malloc_trim(3)).
    """
    gc.collect()
    give_back()
    try:
        Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
    except OSError:
        return False
    return True
