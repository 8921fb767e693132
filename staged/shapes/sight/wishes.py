"""Whether a picture shows an idea that leaves much open, judged from its pixels alone."""

from __future__ import annotations

from collections.abc import Sequence

from staged.shapes.language.wishes import Vision, Wish
from staged.shapes.sight.detect import ShapeDetection
from staged.shapes.sight.verdict import MIN_SCORE, SceneCheck, looks, relations_between, satisfied
from staged.shapes.world.scene import KINDS
from staged.shapes.world.spec import Spec, Thing


def fulfilled(vision: Vision, detections: Sequence[ShapeDetection]) -> tuple[SceneCheck, Spec]:
    """Judge detections against everything definite that an idea allows.

    Args:
        vision: What is wanted.
        detections: What the detector found.

    Returns:
        The verdict by the candidate that fits best, and that candidate.
    """
    kinds = tuple(dict.fromkeys(d.kind for d in detections if d.score >= MIN_SCORE))
    best: tuple[SceneCheck, Spec] | None = None
    for spec in vision.candidates(kinds or KINDS[:1]):
        check = satisfied(spec, detections)
        if best is None or faults_of(check) < faults_of(best[0]):
            best = check, spec
        if faults_of(best[0]) == (0, 0):
            break
    assert best is not None, "an idea wants something"
    return best


def faults_of(check: SceneCheck) -> tuple[int, int]:
    """How many faults a picture has, and how many things too many: the fewer, the better."""
    return len(check.faults), len(check.surplus)


def wish_is_there(wish: Wish, detections: Sequence[ShapeDetection], *, colored: bool) -> bool:
    """Whether anything is as wished, its colour and size left aside unless `colored`."""
    return any(_fits(wish, looks(d), colored) for d in detections if d.score >= MIN_SCORE)


def relation_is_there(vision: Vision, index: int, detections: Sequence[ShapeDetection]) -> bool:
    """Whether two things as wished stand in one of a relation's places."""
    first, names, second = vision.relations[index]
    shapes = [d for d in detections if d.score >= MIN_SCORE]
    return any(
        name in relations_between(a.box, b.box)
        for a in shapes
        for b in shapes
        if a is not b
        and _fits(vision.wishes[first], looks(a), True)
        and _fits(vision.wishes[second], looks(b), True)
        for name in names
    )


def _fits(wish: Wish, thing: Thing, colored: bool) -> bool:
    if wish.kind not in (None, thing.kind):
        return False
    return not colored or (wish.color in (None, thing.color) and wish.size in (None, thing.size))
