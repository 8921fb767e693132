"""Drift: whether what an edit does not touch stays as it was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from staged.shapes.language.instructions import Add, Edit, Ref, Swap, read_edits
from staged.shapes.sight.detect import ShapeDetection
from staged.shapes.sight.pictures import seen
from staged.shapes.sight.recognition import MAX_DRIFT_PX
from staged.shapes.sight.verdict import MIN_SCORE, looks
from staged.trajectory import ImageRef, Plan, Refinement, Sketch, Trajectory


@dataclass(frozen=True, kw_only=True)
class Stayed:
    """What became of one untouched object in the next picture.

    Attributes:
        kept: Whether one of its class and colour is within `MAX_DRIFT_PX` of where it was, on
            either axis.
        shift_px: How far away the nearest of its class and colour is; None where none is left.
    """

    kept: bool
    shift_px: float | None


def untouched(trajectory: Trajectory) -> Iterator[tuple[Stayed, ...] | None]:
    """Compare each picture with the one before it.

    An object is touched when an edit names it, or anything that looks like it: of "one heart",
    nobody can say which. What is placed against an object leaves that untouched.

    Yields:
        For each pair of pictures the fate of the objects of the first that the instruction
        between them leaves alone; None where the instruction is not in the miniature world's
        language.
    """
    before: Sketch | None = None
    edits: tuple[Edit, ...] | None = None
    for step in trajectory.steps:
        match step:
            case Plan(instruction=instruction):
                edits = _read(instruction, "plan")
            case Refinement(instruction=instruction):
                edits = _read(instruction, "refinement")
            case Sketch():
                if before is not None:
                    yield None if edits is None else fates(before.image, step.image, edits)
                before = step


def _read(text: str, voice: Literal["plan", "refinement"]) -> tuple[Edit, ...] | None:
    try:
        return read_edits(text, voice)
    except ValueError:
        return None


def fates(before: ImageRef, after: ImageRef, edits: Sequence[Edit]) -> tuple[Stayed, ...]:
    """What became of each object that no edit names."""
    touched = [ref.thing for edit in edits for ref in _targets(edit)]
    left_alone = [
        shape
        for shape in _shapes(before)
        if not any(thing.allows(looks(shape)) for thing in touched)
    ]
    new = _shapes(after)
    partner = _nearest(left_alone, new)
    return tuple(
        _fate(shape, new[partner[i]] if i in partner else None)
        for i, shape in enumerate(left_alone)
    )


def _targets(edit: Edit) -> tuple[Ref, ...]:
    match edit:
        case Add():
            return ()
        case Swap(first=first, second=second):
            return first, second
        case _:
            return (edit.target,)


def _shapes(image: ImageRef) -> list[ShapeDetection]:
    return [found for found in seen(image) if found.score >= MIN_SCORE]


def _nearest(old: Sequence[ShapeDetection], new: Sequence[ShapeDetection]) -> dict[int, int]:
    """Pair objects that look alike, the closest first."""
    pairs = sorted(
        (math.dist((a.x, a.y), (b.x, b.y)), i, j)
        for i, a in enumerate(old)
        for j, b in enumerate(new)
        if (a.kind, a.color) == (b.kind, b.color)
    )
    partner: dict[int, int] = {}
    for _, i, j in pairs:
        if i not in partner and j not in partner.values():
            partner[i] = j
    return partner


def _fate(old: ShapeDetection, new: ShapeDetection | None) -> Stayed:
    if new is None:
        return Stayed(kept=False, shift_px=None)
    offsets = abs(old.x - new.x), abs(old.y - new.y)
    return Stayed(kept=max(offsets) <= MAX_DRIFT_PX, shift_px=math.hypot(*offsets))
