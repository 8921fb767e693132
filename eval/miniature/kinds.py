"""Kinds of faults: what galleries and the metrics of inspection are sorted by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from staged.shapes.language.faults import (
    Contradiction,
    Extra,
    Fault,
    Misplaced,
    Missing,
    PlanFault,
    WrongKind,
    WrongLook,
    WrongNumber,
    WrongPlace,
)
from staged.shapes.world.scene import Size

KINDS = (
    "missing",
    "wrong number",
    "wrong colour",
    "wrong size",
    "wrong shape",
    "wrong place",
    "surplus",
    "wrong thing",
)
"""In the order in which they are shown; the last is of plans alone, which leave no picture to see
whether colour or shape is meant."""


def kind_of(fault: Fault | PlanFault) -> str:
    """Name the kind of a fault of a picture or a plan."""
    match fault:
        case Missing():
            return "missing"
        case WrongNumber():
            return "wrong number"
        case WrongLook(wanted=wanted):
            return "wrong size" if wanted in get_args(Size) else "wrong colour"
        case WrongKind():
            return "wrong shape"
        case WrongPlace() | Misplaced():
            return "wrong place"
        case Extra() | Contradiction(asked=None):
            return "surplus"
        case Contradiction():
            return "wrong thing"


def kinds_of(faults: Iterable[Fault | PlanFault]) -> tuple[str, ...]:
    """Name the kinds that occur, each once, in the order of `KINDS`."""
    there = {kind_of(fault) for fault in faults}
    return tuple(kind for kind in KINDS if kind in there)
