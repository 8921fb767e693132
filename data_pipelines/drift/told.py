"""What a trajectory's provenance says of the drift of its edits, for readers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from staged.trajectory import Trajectory


def drawn_moved(trajectory: Trajectory) -> float:
    """Most that an edit moved the whole picture as it was drawn, laid back or not.

    Returns:
        A share of the longer side; 0 where nothing was measured.
    """
    return max((_moved(one) for one in _noted(trajectory)), default=0.0)


def drift_in_words(trajectory: Trajectory) -> str:
    """Say the most that any edit did; empty where nothing was measured."""
    noted = list(_noted(trajectory))
    if not noted:
        return ""
    tint = max((abs(value) for one in noted for value in one["tint"]), default=0.0)
    laid = sum("realigned" in one for one in noted)
    said = f"moved {drawn_moved(trajectory):.2%} at most, colours {tint:.0f} of 255"
    return f"{said}, {laid} laid back" if laid else said


def _moved(one: dict[str, Any]) -> float:
    drawn = one["realigned"]["drawn"] if "realigned" in one else one
    return float(drawn["moved"])


def _noted(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    """What was measured; other shapes, of trajectories from elsewhere, are passed over."""
    noted = trajectory.provenance.get("drift")
    for one in noted if isinstance(noted, list) else []:
        if _is_measured(one):  # of another size nothing is measured
            yield one


def _is_measured(one: Any) -> bool:
    if not isinstance(one, dict) or not _is_number(one.get("moved")):
        return False
    tint = one.get("tint")
    if not isinstance(tint, list) or not all(map(_is_number, tint)):
        return False
    if "realigned" not in one:
        return True
    realigned = one["realigned"]
    drawn = realigned.get("drawn") if isinstance(realigned, dict) else None
    return isinstance(drawn, dict) and _is_number(drawn.get("moved"))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
