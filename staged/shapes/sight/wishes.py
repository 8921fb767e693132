"""Whether a picture shows an idea that leaves much open, judged from its pixels alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from staged.ideas.exploration import Draft, Exploration
from staged.ideas.idea import Idea
from staged.shapes.language.wishes import MARK, Vision, Wish, read_vision
from staged.shapes.sight.detect import ShapeDetection, detect, scene_from
from staged.shapes.sight.judged import DETECTOR
from staged.shapes.sight.verdict import MIN_SCORE, SceneCheck, looks, relations_between, satisfied
from staged.shapes.world.scene import CANVAS_PX, KINDS, Kind
from staged.shapes.world.spec import Spec, Thing


@dataclass(frozen=True, kw_only=True)
class Fulfilment:
    """What the detector says of an idea and a picture.

    Attributes:
        check: By the candidate of the idea that fits best.
        spec: That candidate.
        stand_in: Kind that stands in it for one that is open, and that nothing in the picture is.
    """

    check: SceneCheck
    spec: Spec
    stand_in: Kind

    @property
    def correct(self) -> bool:
        """Whether everything that is wanted is there."""
        return self.check.correct

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every fault in words, what is there too much last."""
        open_kind = rf"\b{self.stand_in}\b"
        return tuple(re.sub(open_kind, "thing", reason) for reason in self.check.reasons)

    @property
    def faults(self) -> tuple[int, int]:
        """How many faults there are, and how many things too many: the fewer, the better."""
        return len(self.check.faults), len(self.check.surplus)


def fulfilled(vision: Vision, detections: Sequence[ShapeDetection]) -> Fulfilment:
    """Judge detections against everything definite that an idea allows.

    Args:
        vision: What is wanted.
        detections: What the detector found.
    """
    seen = dict.fromkeys(d.kind for d in detections if d.score >= MIN_SCORE)
    # It tells what is missing where nothing in the picture could be meant.
    stand_in = next((k for k in KINDS if k not in seen and k not in vision.named), KINDS[0])
    best: Fulfilment | None = None
    for spec in vision.candidates((*seen, stand_in)):
        found = Fulfilment(check=satisfied(spec, detections), spec=spec, stand_in=stand_in)
        if best is None or found.faults < best.faults:
            best = found
        if best.faults == (0, 0):
            break
    assert best is not None, "an idea wants something"
    return best


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


def vision_of(idea: Idea) -> Vision:
    """Read an idea, its images by looking.

    Raises:
        ValueError: It is not of the miniature world.
    """
    text = " ".join(part if isinstance(part, str) else MARK for part in idea.parts)
    return read_vision(text, [Spec.from_scene(scene_from(ref.array())) for ref in idea.images])


def judged_exploration(exploration: Exploration) -> Exploration:
    """Note whether its pictures show the idea: a person's own, the first round's, the chosen one.

    Args:
        exploration: Its images loaded.

    Returns:
        The exploration with `{"correct", "exact", "reasons"}` of each in its provenance. As it was
        where nothing can be said: the idea, or a picture, is not of the miniature world.
    """
    try:
        vision = vision_of(exploration.idea)
    except ValueError:
        return exploration
    said = {
        line: found
        for line in ("manual", "first", "refined")
        if (found := _judged(vision, getattr(exploration, line))) is not None
    }
    if not said:
        return exploration
    return replace(exploration, provenance={**exploration.provenance, DETECTOR: said})


def _judged(vision: Vision, draft: Draft | None) -> dict[str, Any] | None:
    pixels = draft.image.array() if draft is not None and draft.image is not None else None
    if pixels is None or pixels.shape != (CANVAS_PX, CANVAS_PX, 3):
        return None
    found = fulfilled(vision, detect(pixels))
    return {"correct": found.correct, "exact": found.check.exact, "reasons": list(found.reasons)}


def _fits(wish: Wish, thing: Thing, colored: bool) -> bool:
    if wish.kind not in (None, thing.kind):
        return False
    return not colored or (wish.color in (None, thing.color) and wish.size in (None, thing.size))
