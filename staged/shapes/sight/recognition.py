"""Looking at a picture with a scene graph in mind: which shape is which object, what holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import permutations

import numpy as np
from scipy.optimize import linear_sum_assignment

from staged import images
from staged.scene_graph import Delta, Relation, SceneGraph
from staged.shapes.sight.detect import scene_from
from staged.shapes.world.scene import RELATIONS, Scene, Shape, holds

MAX_DRIFT_PX = 2
"""How far a shape may move between two pictures and still count as left where it was."""

_MAX_TINT = 12
_COSTS = {"class": 4.0, "color": 2.0, "size": 1.0}

Found = Mapping[str, Shape | None]
"""Object id -> the shape that it is in the picture, None where it is not to be seen."""


@lru_cache(maxsize=256)
def see(png: bytes) -> Scene:
    """Read the scene of an encoded picture; pictures are looked at several times.

    Raises:
        ValueError: it is no picture of the miniature world's size.
    """
    return scene_from(images.decode(png, max_pixels=2**16))


def attribute(shape: Shape, kind: str) -> str | None:
    """Return an attribute of a shape by the graph's name for it."""
    values: dict[str, str] = {"color": shape.color, "size": shape.size}
    return values.get(kind)


def recognise(graph: SceneGraph, shapes: Sequence[Shape]) -> Found:
    """Match objects to shapes so that as much as possible is as the graph says.

    Class counts more than colour, colour more than size; objects that are alike are told apart
    by their relations. A shape of another class is taken only where its colour fits: what shares
    neither is another thing.
    """
    wanted = [
        (o.id, o.class_name, {a.kind: a.value for a in graph.attributes_of(o.id)})
        for o in graph.objects
    ]
    cost = np.full((len(wanted), len(shapes) + len(wanted)), 5.0)
    for row, (_, class_name, attributes) in enumerate(wanted):
        for column, shape in enumerate(shapes):
            wrong = 0.0 if shape.kind == class_name else _COSTS["class"]
            wrong += sum(
                _COSTS.get(kind, 0.0)
                for kind, value in attributes.items()
                if attribute(shape, kind) != value
            )
            cost[row, column] = wrong
    rows, columns = linear_sum_assignment(cost)
    found: dict[str, Shape | None] = {
        wanted[row][0]: shapes[column] if column < len(shapes) else None
        for row, column in zip(rows, columns, strict=True)
    }
    return _told_apart(graph, found)


def relation_holds(relation: Relation, found: Found) -> bool:
    """Whether a relation is to be seen; other relations than the four places never are."""
    a, b = found[relation.source], found[relation.target]
    name = next((name for name in RELATIONS if name == relation.name), None)
    return a is not None and b is not None and name is not None and holds(name, a, b)


def answer(question_id: str, graph: SceneGraph, found: Found) -> bool:
    """Answer a question of `scene_graph.questions` about the picture by its id; see `absent` too.

    Raises:
        ValueError: the id is of no question that the graph could raise.
    """
    head, _, kind = question_id.partition(".")
    if head in graph and (kind or head == question_id):
        shape = found[head]
        if shape is None:
            return False
        if not kind:
            return shape.kind == graph.object(head).class_name
        value = next((a.value for a in graph.attributes_of(head) if a.kind == kind), None)
        return shape.kind == graph.object(head).class_name and attribute(shape, kind) == value
    for relation in graph.relations:
        if question_id == f"{relation.source} {relation.name} {relation.target}":
            return relation_holds(relation, found)
    raise ValueError(f"question {question_id!r:.80} is about nothing in the scene graph")


def absent(object_id: str, step: Delta, shapes: Sequence[Shape]) -> bool:
    """Whether of the class that an object had before no more is left than the graph says.

    Raises:
        ValueError: there was no such object before.
    """
    class_name = step.before.object(object_id).class_name
    return sum(s.kind == class_name for s in shapes) == len(step.after.of_class(class_name))


def rest_unchanged(step: Delta, before: Scene, after: Scene) -> bool:
    """Whether everything that a step does not mention stayed, and nothing else came."""
    if len(after.shapes) != len(step.after.objects):
        return False
    if not before.shapes and not step.before.objects:
        return True  # a first picture has its own background
    stayed, left = [], list(after.shapes)
    for shape in before.shapes:
        same = next((other for other in left if _same(shape, other)), None)
        if same is not None:
            left.remove(same)
            stayed.append(shape)
    untouched = step.before.subgraph(_untouched(step))
    found = recognise(untouched, stayed)
    tint = max(abs(a - b) for a, b in zip(before.background, after.background, strict=True))
    return tint <= _MAX_TINT and all(
        shape is not None and shape.kind == untouched.object(name).class_name
        for name, shape in found.items()
    )


def _untouched(step: Delta) -> list[str]:
    """Objects that are on both sides with the same class, attributes and relations."""
    both = [o.id for o in step.before.objects if o.id in step.after]
    kept = []
    for item in both:
        same_class = step.before.object(item) == step.after.object(item)
        same_attributes = step.before.attributes_of(item) == step.after.attributes_of(item)
        # A relation to something that comes or goes moves nobody.
        old, new = (
            {r for r in graph.relations_of(item) if {r.source, r.target} <= set(both)}
            for graph in (step.before, step.after)
        )
        if same_class and same_attributes and old == new:
            kept.append(item)
    return kept


def _same(a: Shape, b: Shape) -> bool:
    near = abs(a.x - b.x) <= MAX_DRIFT_PX and abs(a.y - b.y) <= MAX_DRIFT_PX
    return near and (a.kind, a.color) == (b.kind, b.color)


def _told_apart(graph: SceneGraph, found: Found) -> Found:
    """Among objects that are alike, choose who is who by the relations that then hold."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for item in graph.objects:
        attributes = tuple((a.kind, a.value) for a in graph.attributes_of(item.id))
        alike.setdefault((item.class_name, attributes), []).append(item.id)
    best = dict(found)
    for ids in alike.values():
        # Four at most: a picture of the miniature world holds no more of a kind.
        if 1 < len(ids) <= 4 and any(graph.relations_of(item) for item in ids):
            shapes = [best[item] for item in ids]
            best = max(
                ({**best, **dict(zip(ids, order, strict=True))} for order in permutations(shapes)),
                key=lambda tried: sum(relation_holds(r, tried) for r in graph.relations),
            )
    return best
