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
        float8: Whether it multiplies float8.
    """

    memory: int
    flops: float
    float8: bool = True


GPUS = {
    "a100-40": Gpu(39 * _GIB, 312e12, float8=False),
    "a100-80": Gpu(79 * _GIB, 312e12, float8=False),
    "h100": Gpu(79 * _GIB, 989e12),
    "h200": Gpu(139 * _GIB, 989e12),
    "b200": Gpu(178 * _GIB, 2250e12),
    "l40s": Gpu(44 * _GIB, 362e12),
    "rtx4090": Gpu(23 * _GIB, 165e12),
}
"""NVIDIA's data sheets (A100, H100 SXM, H200, B200 SXM, L40S, GeForce RTX 4090)."""

_RATES = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "A100": GPUS["a100-80"].flops,
    "H100": GPUS["h100"].flops,
    "H200 NVL": 835e12,
    "H200": GPUS["h200"].flops,
    "B200": GPUS["b200"].flops,
    "L40S": GPUS["l40s"].flops,
    "RTX 4090": GPUS["rtx4090"].flops,
}
"""The same by what a driver calls them; the first name that fits."""


def rate_of(name: str) -> float | None:
    """Dense bfloat16 operations a second, by a driver's name of a device; None where unknown."""
    return next((rate for part, rate in _RATES.items() if part in name), None)
