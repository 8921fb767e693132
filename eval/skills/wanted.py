"""What a picture shall show after edits: what a scene holds, and the relations that were said."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from staged.shapes.language.instructions import Add, Edit, Move, Ref
from staged.shapes.world.scene import RelationName, Scene
from staged.shapes.world.spec import Spec, Thing


def wanted(scene: Scene, edits: tuple[Edit, ...]) -> Spec:
    """The things of a scene, and only those relations that edits name."""
    return _with_relations(_things(scene), edits)


def _things(scene: Scene) -> Spec:
    counts = Counter((shape.kind, shape.color) for shape in scene.shapes)
    return Spec(
        things=tuple(
            Thing(kind=kind, color=color, number=number) for (kind, color), number in counts.items()
        )
    )


def _with_relations(spec: Spec, edits: tuple[Edit, ...]) -> Spec:
    """Add the relations in which edits put single things."""
    said: list[tuple[Thing, RelationName, Ref]] = []
    for edit in edits:
        match edit:
            case Add(thing=thing, relations=relations):
                said += [(thing, relation, ref) for relation, ref in relations]
            case Move(target=target, to=(relation, ref)):
                said.append((target.thing, relation, ref))
    found = [
        (_single(spec, thing), relation, _single(spec, ref.thing)) for thing, relation, ref in said
    ]
    known = tuple((a, r, b) for a, r, b in found if a is not None and b is not None)
    return replace(spec, relations=known)


def _single(spec: Spec, thing: Thing) -> int | None:
    fitting = [i for i, t in enumerate(spec.things) if t.number == 1 and thing.allows(t)]
    return fitting[0] if len(fitting) == 1 else None
