"""Keeps the C library from handing every large block back to the system.

By default glibc maps each large tensor anew and unmaps it when it is freed. A step frees and
allocates the same sizes again and again, and where page faults are dear (virtual machines above
all) that took a third of a CPU's time in training and generation.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BYTES = (1 << 31) - 1  # the largest that mallopt's int takes


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks; memory stays at the process's peak.

    Returns:
        Whether the C library took the advice; elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _BYTES))
