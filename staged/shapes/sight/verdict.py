"""Whether a picture shows what was asked for, judged from its pixels alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from staged.shapes.language.critiques import write_sketch_critique
from staged.shapes.language.faults import (
    Extra,
    Fault,
    Missing,
    WrongKind,
    WrongLook,
    WrongNumber,
    WrongPlace,
)
from staged.shapes.sight.detect import ShapeDetection
from staged.shapes.world.scene import RELATIONS, RelationName
from staged.shapes.world.spec import Spec, Thing

MIN_SCORE = 0.6
"""A region that fits no silhouette better than this is a blob, not a shape that was asked for."""

MAX_DETECTIONS = 16
"""Best-scored detections that are looked at, as in GenEval."""


@dataclass(frozen=True, kw_only=True)
class SceneCheck:
    """What the detector says about a picture.

    Attributes:
        faults: What contradicts the specification.
        surplus: What is there beyond it; GenEval does not mind.
        share: Of the things and relations that are asked for, those that are there, in [0, 1]; 1
            where it is correct. A relation of something that is not there does not hold.
        num_asked: How many things and relations are asked for.
    """

    faults: tuple[Fault, ...]
    surplus: tuple[Fault, ...]
    share: float
    num_asked: int

    @property
    def correct(self) -> bool:
        """Everything asked for is there, in number, colour and place."""
        return not self.faults

    @property
    def exact(self) -> bool:
        """Correct, and nothing else is there."""
        return not self.faults and not self.surplus

    @property
    def likeness(self) -> float:
        """`share`, each thing too much counting as if it were asked for and missing."""
        return self.share * self.num_asked / (self.num_asked + len(self.surplus))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every fault in words, surplus last."""
        return tuple(write_sketch_critique((fault,)) for fault in (*self.faults, *self.surplus))


def relations_between(a: Sequence[float], b: Sequence[float]) -> tuple[RelationName, ...]:
    """Which relations box `a` has to box `b` by GenEval's rule; two can hold.

    The offset of the centres is shrunk by a tenth of the summed sizes per axis; its share of the
    unshrunk distance must pass 0.5 (arXiv:2310.11513, `relative_position`).

    Args:
        a: Left, top, right, bottom in pixels.
        b: The same.
    """
    center_a, center_b = np.add(a[:2], a[2:]) / 2, np.add(b[:2], b[2:]) / 2
    sizes = np.abs(np.subtract(a[2:], a[:2])) + np.abs(np.subtract(b[2:], b[:2]))
    offset = center_a - center_b
    revised = np.maximum(np.abs(offset) - 0.1 * sizes, 0) * np.sign(offset)
    if np.all(np.abs(revised) < 1e-3):
        return ()
    x, y = revised / np.linalg.norm(offset)
    share = {"left of": -x, "right of": x, "above": -y, "below": y}
    return tuple(relation for relation in RELATIONS if share[relation] > 0.5)


def satisfied(spec: Spec, detections: Sequence[ShapeDetection]) -> SceneCheck:
    """Judge detections against a specification.

    Several alike must be there in exactly their number, a single thing at least once; relations
    must hold for one choice of detections, each playing one thing. (GenEval looks only at the
    best-scored of a class, which cannot tell apart two stars of different colours.)

    Args:
        spec: What was asked for.
        detections: What the detector found.
    """
    found = sorted(detections, key=lambda d: -d.score)[:MAX_DETECTIONS]
    shapes = [d for d in found if d.score >= MIN_SCORE]
    players = _cast(spec, shapes)
    free = [d for d in shapes if not any(d is p for p in players.values())]
    faults: list[Fault] = []
    surplus: list[Fault] = []
    for thing in (t for t in spec.things if t.number > 1):
        alike = [d for d in free if thing.allows(looks(d))]
        free = [d for d in free if not any(d is other for other in alike)]
        if not alike:
            faults.append(Missing(thing=thing))
        elif len(alike) != thing.number:
            faults.append(WrongNumber(thing=thing, seen=len(alike)))
    for index, thing in enumerate(spec.things):
        if thing.number > 1 or index in players:
            continue
        fault, player = _explain(thing, free, shapes)
        faults.append(fault)
        if player is not None:
            players[index] = player
            free = [d for d in free if d is not player]
    unheld = 0
    for a, relation, b in spec.relations:
        if a not in players or b not in players:
            unheld += 1
            continue
        seen = relations_between(players[a].box, players[b].box)
        if relation not in seen:
            thing, against = (_name(spec.things[i], players[i], shapes) for i in (a, b))
            place = seen[0] if seen else None
            faults.append(WrongPlace(thing=thing, against=against, wanted=relation, seen=place))
    blobs = [d for d in found if d.score < MIN_SCORE]
    surplus += [Extra(thing=Thing(kind=d.kind, color=d.color)) for d in (*free, *blobs)]
    asked = len(spec.things) + len(spec.relations)
    return SceneCheck(
        faults=tuple(faults),
        surplus=tuple(surplus),
        share=1 - (len(faults) + unheld) / asked,
        num_asked=asked,
    )


def looks(detection: ShapeDetection) -> Thing:
    """A detection as a thing."""
    return Thing(kind=detection.kind, color=detection.color, size=detection.size)


def _cast(spec: Spec, shapes: Sequence[ShapeDetection]) -> dict[int, ShapeDetection]:
    """Choose a detection for every single thing: as many as can be, then most relations."""
    singles = [index for index, thing in enumerate(spec.things) if thing.number == 1]
    best: dict[int, ShapeDetection] = {}
    best_score = -1
    for players in _casts(spec, singles, shapes):
        held = sum(
            relation in relations_between(players[a].box, players[b].box)
            for a, relation, b in spec.relations
            if a in players and b in players
        )
        score = len(players) * (len(spec.relations) + 1) + held
        if score > best_score:
            best, best_score = players, score
        if held == len(spec.relations) and len(players) == len(singles):
            break
    return best


def _casts(
    spec: Spec, singles: Sequence[int], shapes: Sequence[ShapeDetection]
) -> Iterator[dict[int, ShapeDetection]]:
    """Every way to choose, the best-scored first; a thing goes without only if it must."""
    if not singles:
        yield {}
        return
    index, rest = singles[0], singles[1:]
    fitting = [d for d in shapes if spec.things[index].allows(looks(d))]
    for detection in fitting:
        left = [d for d in shapes if d is not detection]
        for players in _casts(spec, rest, left):
            yield {index: detection, **players}
    # With a rival for every fitting detection, it may be this thing that goes without.
    if len(fitting) < sum(spec.things[i].kind == spec.things[index].kind for i in singles):
        yield from _casts(spec, rest, shapes)


def _explain(
    thing: Thing, free: Sequence[ShapeDetection], shapes: Sequence[ShapeDetection]
) -> tuple[Fault, ShapeDetection | None]:
    """What is there instead of a thing, if anything is."""
    for d in free:
        if d.kind == thing.kind and thing.color not in (None, d.color):
            name = _name(Thing(kind=d.kind), d, shapes)
            return WrongLook(thing=name, seen=d.color, wanted=thing.color), d
    for d in free:
        if d.kind == thing.kind and thing.size not in (None, d.size):
            name = _name(Thing(kind=d.kind), d, shapes)
            return WrongLook(thing=name, seen=d.size, wanted=thing.size), d
    for d in free:
        if thing.color == d.color:
            seen = Thing(kind=d.kind, color=d.color)
            return WrongKind(seen=seen, wanted=Thing(kind=thing.kind, color=thing.color)), d
    return Missing(thing=thing), None


def _name(thing: Thing, detection: ShapeDetection, shapes: Sequence[ShapeDetection]) -> Thing:
    """Call a detection by its kind, and by its colour where the kind alone is not clear."""
    alike = sum(d.kind == detection.kind for d in shapes)
    color = detection.color if alike > 1 or thing.color == detection.color else None
    return Thing(kind=detection.kind, color=color)
