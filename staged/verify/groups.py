"""The groups of comparisons, and running them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from staged.devices import AUTO, choose_arithmetic
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
        device: `auto`, or a torch device.
        dtype: Name of torch's type of the weights; `auto` is that of the reference, float32.
        tolerance: Largest error over the reference's largest magnitude.

    Returns:
        Figures: comparisons made and failed, the largest relative error, and where and in what.

    Raises:
        ValueError: a file is missing, damaged, or lacks what is needed.
    """
    # cuDNN's convolutions round float32 inputs to TF32 by default: errors of 1e-3.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    started = time.perf_counter()
    # Not the fastest: in bfloat16, its rounding alone exceeds the tolerance.
    chosen = choose_arithmetic(device, "float32" if dtype == AUTO else dtype)
    print(chosen.words)
    golden = Golden.read(folder, device=str(chosen.device), dtype=chosen.dtype)
    results = Comparisons(tolerance=tolerance)
    for name in groups:
        before = len(results.made)
        GROUPS[name](golden, results)
        if len(results.made) == before:
            raise ValueError(f"{folder} has no numbers of {name}: nothing was compared")
    seconds = time.perf_counter() - started
    failed = results.failed
    worst = max(results.made, key=lambda comparison: comparison.relative)
    print(
        f"{len(results.made)} comparisons in {len(groups)} groups on {chosen.device} in "
        f"{chosen.dtype_name}, {seconds:.1f} s; largest relative error {worst.relative:.2e} "
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
        "device": str(chosen.device),
        "dtype": chosen.dtype_name,
    }
