"""Memory that this process has in use, its weights, caches and all, at most.

Told by Linux with glibc; elsewhere there is no number.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Final

import torch

from staged.device_memory import peak_gib

_FORGET: Final = Path("/proc/self/clear_refs")


class ResidentPeak:
    """The most resident memory since this was made.

    Only the latest tells the truth: the system keeps one peak for a process.
    """

    def __init__(self) -> None:
        """Hand back what is free, so that nothing which was done before counts."""
        gc.collect()
        try:
            # `staged.allocator.keep_freed_memory` has glibc hold on to it.
            ctypes.CDLL(None).malloc_trim(0)
            _FORGET.write_text("5")  # proc(5): the peak becomes what is resident now
            self._told = True
        except (OSError, AttributeError):
            self._told = False

    def gib(self) -> float | None:
        """So far; None where the system does not tell."""
        return peak_gib(torch.device("cpu")) if self._told else None
