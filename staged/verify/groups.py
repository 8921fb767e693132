"""The groups of comparisons, and running them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from staged.verify import parts
from staged.verify.comparison import Comparisons
from staged.verify.golden import Golden
from staged.verify.infer import infer
from staged.verify.train import train

GROUPS: dict[str, Callable[[Golden, Comparisons], None]] = {
    "vae": parts.vae,
    "vit": parts.vit,
    "train": train,
    "infer": infer,
    "schedule": parts.schedule,
    "positions": parts.positions,
    "resize": parts.resizing,
}


def verify_golden(
    folder: Path, *, groups: Sequence[str], device: str, dtype: str, tolerance: float
) -> dict[str, Any]:
    """Compare, and print what was found.

    Args:
        folder: Reference numbers.
        groups: Names of `GROUPS`.
        device: Torch device.
        dtype: Name of torch's type of the weights.
        tolerance: Largest error over the reference's largest magnitude.

    Returns:
        Figures: comparisons made and failed, and the largest relative error.

    Raises:
        ValueError: a file is missing, damaged, or lacks what is needed.
    """
    # cuDNN's convolutions round float32 inputs to TF32 by default: errors of 1e-3.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    started = time.perf_counter()
    golden = Golden.read(folder, device=device, dtype=getattr(torch, dtype))
    results = Comparisons(tolerance=tolerance)
    for name in groups:
        GROUPS[name](golden, results)
    seconds = time.perf_counter() - started
    failed = results.failed
    worst = max(results.made, key=lambda comparison: comparison.relative)
    print(
        f"{len(results.made)} comparisons in {len(groups)} groups on {device} in "
        f"{dtype}, {seconds:.1f} s; largest relative error {worst.relative:.2e} "
        f"({worst.group} {worst.name})"
    )
    if failed:
        broken = ", ".join(dict.fromkeys(comparison.group for comparison in failed))
        print(f"FAILED: {len(failed)} comparisons, in {broken}")
    else:
        print(f"passed: {', '.join(groups)}")
    return {
        "comparisons": len(results.made),
        "failed": len(failed),
        "largest_relative_error": float(worst.relative),
        "groups": list(groups),
    }
