"""Looking at a picture with a scene graph in mind: which shape is which object, what holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import permutations

import numpy as np

from staged import images
from staged.scene_graph import Relation, SceneGraph
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
    # A seventh of the time that it takes to start drawing; this alone needs it.
    from scipy.optimize import linear_sum_assignment

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


def same(a: Shape, b: Shape) -> bool:
    """Whether a shape of one picture is that of another, left where and as it was."""
    near = abs(a.x - b.x) <= MAX_DRIFT_PX and abs(a.y - b.y) <= MAX_DRIFT_PX
    return near and (a.kind, a.color) == (b.kind, b.color)


def tinted(before: Scene, after: Scene) -> bool:
    """Whether the background has another colour than before."""
    tints = zip(before.background, after.background, strict=True)
    return max(abs(a - b) for a, b in tints) > _MAX_TINT


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
