"""Section golden: the reference numbers of `staged verify`, on this device.

float32 must hold to 1e-4 of each tensor's largest magnitude. bfloat16 has no reference of its own:
its errors against the float32 numbers are reported, and only gross ones fail.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.parts.harness import Recorder, Setup
from benchmarks.parts.models import LinearAutoencoder
from staged.model import checkpoint
from staged.verify.comparison import Comparison, Comparisons
from staged.verify.golden import Golden
from staged.verify.groups import GROUPS

FOLDER = Path(__file__).resolve().parents[2] / "tests/golden/bagel_tiny"
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1}
_NEED_AUTOENCODER = ("vae", "infer")


def run(setup: Setup, record: Recorder) -> None:
    """Compare every group in both types.

    Raises:
        ArithmeticError: A comparison is off.
    """
    # Tensor cores would round float32 operands to ten bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    complete = importlib.util.find_spec("diffusers") is not None
    broken: list[str] = []
    for dtype, tolerance in _TOLERANCES.items():
        golden = _read(setup, dtype, complete)
        for group in GROUPS:
            if group in _NEED_AUTOENCODER and not complete:
                record.note(_name(group, dtype), skipped="diffusers is not installed")
                continue
            broken += _compare(group, golden, tolerance, complete, record)
    if broken:
        raise ArithmeticError(f"off by more than allowed: {'; '.join(broken)}")


def _read(setup: Setup, dtype: torch.dtype, complete: bool) -> Golden:
    def read() -> Golden:
        return Golden.read(FOLDER, device=str(setup.device), dtype=dtype)

    if complete:
        return read()

    def stand_in(
        _folder: Path, config: Any, *, device: Any, dtype: torch.dtype = torch.float32
    ) -> LinearAutoencoder:
        return LinearAutoencoder(config).to(device, dtype)

    with patch.object(checkpoint, "load_autoencoder", stand_in):
        return read()


def _compare(
    group: str, golden: Golden, tolerance: float, complete: bool, record: Recorder
) -> list[str]:
    results = Comparisons(tolerance=tolerance, announce=lambda line: None)
    failure = None
    try:
        GROUPS[group](golden, results)
    except Exception as error:  # the groups after it still tell something
        failure = f"{group}: {error!r}"[:300]
    made = [c for c in results.made if complete or (c.group, c.name) != ("train", "latents")]
    exact = golden.dtype == torch.float32
    # Rounding may turn a close choice between two tokens; it must not in float32.
    failed = [c for c in made if not c.passed and (exact or not _is_choice(c))]
    finite = [c for c in made if c.relative < float("inf") and not _is_choice(c)]
    worst = max(finite, key=lambda c: c.relative, default=None)
    record.add(
        _name(group, golden.dtype),
        worst.relative if worst else 0.0,
        "largest relative error",
        of=worst.name if worst else None,
        comparisons=len(made),
        failed=[c.line() for c in failed],
        error=failure,
    )
    offences = [f"{golden.dtype} {c.group} {c.name} ({c.relative:.1e})" for c in failed]
    return [*offences, failure] if failure else offences


def _is_choice(comparison: Comparison) -> bool:
    return comparison.name == "greedy_ids"


def _name(group: str, dtype: torch.dtype) -> str:
    return f"{group}_{str(dtype).removeprefix('torch.')}"
