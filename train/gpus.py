"""Devices that a run can be planned for: memory as torch reports it, and dense bfloat16 rates."""

from __future__ import annotations

from dataclasses import dataclass

_GIB = 2**30  # of its own: `--help` reads this file, without torch


@dataclass(frozen=True)
class Gpu:
    """A device of a data sheet.

    Attributes:
        memory: Bytes.
        flops: Dense bfloat16 operations a second, without sparsity.
    """

    memory: int
    flops: float


GPUS = {
    "a100-40": Gpu(39 * _GIB, 312e12),
    "a100-80": Gpu(79 * _GIB, 312e12),
    "h100": Gpu(79 * _GIB, 989e12),
    "h200": Gpu(139 * _GIB, 989e12),
    "b200": Gpu(178 * _GIB, 2250e12),
    "l40s": Gpu(44 * _GIB, 362e12),
    "rtx4090": Gpu(23 * _GIB, 165e12),
}
"""NVIDIA's data sheets (A100, H100 SXM, H200, B200 SXM, L40S, GeForce RTX 4090)."""
