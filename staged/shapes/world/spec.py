"""What a picture shall hold, as far as somebody has said it: things, and where they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from staged.scene_graph import Attribute, Relation, SceneGraph, SceneObject
from staged.shapes.world.scene import (
    COLORS,
    KINDS,
    RELATIONS,
    SIZES,
    Color,
    Kind,
    RelationName,
    Scene,
    Size,
    holds,
)

T = TypeVar("T")

MAX_NUMBER = 9
"""The language counts no further."""

INVERSE: dict[RelationName, RelationName] = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
}  # fmt: skip
"""The same fact told from the other end."""

_KINDS: dict[str, Kind] = {kind: kind for kind in KINDS}
_COLORS: dict[str, Color] = {color: color for color in COLORS}
_SIZES: dict[str, Size] = {size: size for size in SIZES}
_RELATIONS: dict[str, RelationName] = {relation: relation for relation in RELATIONS}


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A shape, or several alike; a colour or size of None is left open."""

    kind: Kind
    color: Color | None = None
    size: Size | None = None
    number: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= MAX_NUMBER:
            raise ValueError(f"{self.number} of {self.kind}; expected 1 to {MAX_NUMBER}")

    def allows(self, other: Thing) -> bool:
        """Whether something that looks like `other` would do, numbers aside."""
        return (
            self.kind == other.kind
            and self.color in (None, other.color)
            and self.size in (None, other.size)
        )


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Things, and relations `(a, relation, b)` between single ones by their index."""

    things: tuple[Thing, ...] = ()
    relations: tuple[tuple[int, RelationName, int], ...] = ()

    def __post_init__(self) -> None:
        for a, relation, b in self.relations:
            if a == b or not (0 <= a < len(self.things) and 0 <= b < len(self.things)):
                raise ValueError(
                    f"relation {relation!r} between things {a} and {b}; expected two different "
                    f"indexes below {len(self.things)}"
                )
            if self.things[a].number != 1 or self.things[b].number != 1:
                raise ValueError(f"relation {relation!r} needs single things, not several alike")

    @property
    def num_shapes(self) -> int:
        """Shapes in all."""
        return sum(thing.number for thing in self.things)

    def normal(self) -> Spec:
        """The same with things in the order in which a sentence comes to them."""
        order: list[int] = []
        for a, _, b in self.relations:
            order += [index for index in (a, b) if index not in order]
        order += [index for index in range(len(self.things)) if index not in order]
        return Spec(
            things=tuple(self.things[index] for index in order),
            relations=tuple((order.index(a), r, order.index(b)) for a, r, b in self.relations),
        )

    def counted(self) -> Spec:
        """The same with single things alike that stand in no relation as one thing of many."""
        related = {end for a, _, b in self.relations for end in (a, b)}
        things: list[Thing] = []
        place: dict[int, int] = {}
        groups: dict[Thing, int] = {}
        for index, thing in enumerate(self.things):
            if index not in related and thing in groups:
                at = groups[thing]
                things[at] = replace(things[at], number=things[at].number + 1)
                continue
            if index not in related:
                groups[thing] = len(things)
            place[index] = len(things)
            things.append(thing)
        relations = tuple((place[a], name, place[b]) for a, name, b in self.relations)
        return Spec(things=tuple(things), relations=relations)

    def to_graph(self) -> SceneGraph:
        """Name every single shape: o1, o2, … in order."""
        objects: list[SceneObject] = []
        attributes: list[Attribute] = []
        first: list[str] = []
        for thing in self.things:
            first.append(f"o{len(objects) + 1}")
            for _ in range(thing.number):
                name = f"o{len(objects) + 1}"
                objects.append(SceneObject(id=name, class_name=thing.kind))
                for kind, value in (("color", thing.color), ("size", thing.size)):
                    if value is not None:
                        attributes.append(Attribute(object=name, kind=kind, value=value))
        relations = (
            Relation(source=first[a], name=relation, target=first[b])
            for a, relation, b in self.relations
        )
        return SceneGraph(objects, attributes, relations)

    @classmethod
    def from_graph(cls, graph: SceneGraph) -> Spec:
        """Read a graph; shapes alike that stand in no relation become one thing of many.

        Raises:
            ValueError: A class, attribute or relation that the miniature world does not have.
        """
        index = {item.id: place for place, item in enumerate(graph.objects)}
        things = tuple(thing_in(graph, item.id) for item in graph.objects)
        relations = tuple(
            (index[r.source], _known(_RELATIONS, r.name, "relation"), index[r.target])
            for r in graph.relations
        )
        return cls(things=things, relations=relations).counted()

    @classmethod
    def from_scene(cls, scene: Scene) -> Spec:
        """Say what a scene holds, each single shape related to the one before it where it can be.

        Sizes are left open.
        """
        looks = [Thing(kind=s.kind, color=s.color) for s in scene.shapes]
        counts = Counter(looks)
        things = tuple(replace(look, number=number) for look, number in counts.items())
        single = [s for s, look in zip(scene.shapes, looks, strict=True) if counts[look] == 1]
        names = [look for look in looks if counts[look] == 1]
        relations: list[tuple[int, RelationName, int]] = []
        for i in range(1, len(single)):
            for relation in RELATIONS:
                if holds(relation, single[i - 1], single[i], margin=0.15):
                    a, b = things.index(names[i - 1]), things.index(names[i])
                    relations.append((a, relation, b))
                    break
        return cls(things=things, relations=tuple(relations)).normal()


def thing_in(graph: SceneGraph, object_id: str) -> Thing:
    """One object of a graph as a thing.

    Raises:
        ValueError: Its class or an attribute is not of the miniature world.
    """
    values = {a.kind: a.value for a in graph.attributes_of(object_id)}
    for kind in values.keys() - {"color", "size"}:
        raise ValueError(f"object {object_id}: attribute {kind!r}; expected color or size")
    return Thing(
        kind=_known(_KINDS, graph.object(object_id).class_name, "class"),
        color=_known(_COLORS, values["color"], "color") if "color" in values else None,
        size=_known(_SIZES, values["size"], "size") if "size" in values else None,
    )


def _known(table: Mapping[str, T], value: str, what: str) -> T:
    if value not in table:
        raise ValueError(f"{what} {value!r:.80}; expected one of {', '.join(table)}")
    return table[value]
