"""Kernels that give the same bits every time, on devices whose fastest do not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def prepare_determinism() -> None:
    """Have cuBLAS keep workspaces of its own; it looks once, when it is first used.

    A value that is set already is left: `:4096:8` and `:16:8` are those that repeat.
    """
    os.environ.setdefault(_WORKSPACE, ":4096:8")


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Use no kernel that sums in an order of its own, inside the context.

    An operation that has no other raises a RuntimeError which names it.

    Args:
        wanted: Otherwise nothing is changed.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
