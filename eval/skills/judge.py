"""What became of a probe, judged from pixels and verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eval.skills.probes import Probe
from eval.skills.wanted import wanted
from staged.roles import RoleError
from staged.shapes.language.instructions import Swap
from staged.shapes.sight.detect import ShapeDetection
from staged.shapes.sight.drift import fates
from staged.shapes.sight.pictures import seen
from staged.shapes.sight.verdict import looks, satisfied
from staged.shapes.world.spec import Thing
from staged.trajectory import ImageRef, Inspection, Sketch, Step


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The outcome of a probe.

    Attributes:
        right: A picture that shows what was to be done and nothing else; a verdict that is true.
            A step that failed is none.
        done: The same of a picture, whatever became of things that should stay where they are.
        kept: Of each of those things whether it stayed.
    """

    right: bool
    done: bool = False
    kept: tuple[bool, ...] = ()


def judge(probe: Probe, step: Step | RoleError) -> Judged:
    """Judge what the model answered."""
    match step:
        case Inspection(verdict=verdict):
            return Judged(right=(verdict == "revise") == probe.wrong)
        case Sketch(image=image):
            before = probe.trajectory.images[-1:]
            done = satisfied(wanted(probe.scene, probe.edits), seen(image)).exact and all(
                exchanged(edit, before[0], image) for edit in probe.edits if isinstance(edit, Swap)
            )
            stayed = fates(before[0], image, probe.edits) if before else ()
            kept = tuple(one.kept for one in stayed)
            return Judged(right=done and all(kept), done=done, kept=kept)
        case _:
            return Judged(right=False)


def exchanged(edit: Swap, before: ImageRef, after: ImageRef) -> bool:
    """Whether each of two things is nearer to where the other was than to where it was itself."""
    old = [_seen_one(before, ref.thing) for ref in (edit.first, edit.second)]
    new = [_seen_one(after, ref.thing) for ref in (edit.first, edit.second)]
    return all(
        a is not None and b is not None and c is not None and _distance(c, b) < _distance(c, a)
        for a, b, c in ((old[0], old[1], new[0]), (old[1], old[0], new[1]))
    )


def _seen_one(image: ImageRef, thing: Thing) -> ShapeDetection | None:
    fitting = [found for found in seen(image) if thing.allows(looks(found))]
    return max(fitting, key=lambda found: found.score, default=None)


def _distance(a: ShapeDetection, b: ShapeDetection) -> float:
    return math.dist((a.x, a.y), (b.x, b.y))
