"""Edits between two graphs: what a step does, in the words of add, change, swap and remove."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal

from staged.scene_graph.graph import Attribute, Relation, SceneGraph, SceneObject

Operation = Literal["add", "change", "swap", "remove"]


@dataclass(frozen=True, kw_only=True)
class AddObject:
    """A new object with its attributes and its relations to objects already there."""

    operation: ClassVar[Operation] = "add"
    object: SceneObject
    attributes: tuple[Attribute, ...] = ()
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChangeAttribute:
    """An attribute of an object takes another value; None stands for none."""

    operation: ClassVar[Operation] = "change"
    object_id: str
    kind: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class Relate:
    """Relations between objects that stay are given up and taken on: something moves."""

    operation: ClassVar[Operation] = "change"
    before: tuple[Relation, ...] = ()
    after: tuple[Relation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReplaceObject:
    """An object becomes something else, in its place."""

    operation: ClassVar[Operation] = "swap"
    object_id: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class SwapObjects:
    """Two objects exchange places: each takes on the other's relations."""

    operation: ClassVar[Operation] = "swap"
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class RemoveObject:
    """An object goes, with its attributes and relations."""

    operation: ClassVar[Operation] = "remove"
    object: SceneObject
    attributes: tuple[Attribute, ...] = ()


GraphEdit = AddObject | ChangeAttribute | Relate | ReplaceObject | SwapObjects | RemoveObject


@dataclass(frozen=True, kw_only=True)
class Delta:
    """Two graphs and the edits that lead from one to the other, in order."""

    before: SceneGraph
    after: SceneGraph
    edits: tuple[GraphEdit, ...]

    def __iter__(self) -> Iterator[GraphEdit]:
        return iter(self.edits)

    def __len__(self) -> int:
        return len(self.edits)

    @property
    def untouched(self) -> tuple[str, ...]:
        """Objects on both sides with the same class, attributes and relations to one another.

        A relation to something that comes or goes moves nobody.
        """
        both = [o.id for o in self.before.objects if o.id in self.after]
        kept = []
        for item in both:
            same_class = self.before.object(item) == self.after.object(item)
            same_attributes = self.before.attributes_of(item) == self.after.attributes_of(item)
            old, new = (
                {r for r in graph.relations_of(item) if {r.source, r.target} <= set(both)}
                for graph in (self.before, self.after)
            )
            if same_class and same_attributes and old == new:
                kept.append(item)
        return tuple(kept)


def delta(before: SceneGraph, after: SceneGraph) -> Delta:
    """Find the edits from `before` to `after`; objects are the same if their ids are.

    Applying the edits one by one to `before` passes through legal graphs and ends in `after`.
    """
    edits: list[GraphEdit] = [
        RemoveObject(object=item, attributes=before.attributes_of(item.id))
        for item in before.objects
        if item.id not in after
    ]
    staying = [item for item in before.objects if item.id in after]
    edits += _relation_edits(
        before.subgraph(item.id for item in staying),
        after.subgraph(item.id for item in staying),
    )
    for item in staying:
        class_name = after.object(item.id).class_name
        if class_name != item.class_name:
            edits.append(ReplaceObject(object_id=item.id, before=item.class_name, after=class_name))
    for item in staying:
        old = {a.kind: a.value for a in before.attributes_of(item.id)}
        new = {a.kind: a.value for a in after.attributes_of(item.id)}
        edits += [
            ChangeAttribute(object_id=item.id, kind=kind, before=old.get(kind), after=new.get(kind))
            for kind in sorted(old.keys() | new.keys())
            if old.get(kind) != new.get(kind)
        ]
    present = {item.id for item in staying}
    for item in after.objects:
        if item.id not in before:
            present.add(item.id)
            attributes, relations = after.attributes_of(item.id), after.relations_of(item.id)
            there = tuple(r for r in relations if {r.source, r.target} <= present)
            edits.append(AddObject(object=item, attributes=attributes, relations=there))
    return Delta(before=before, after=after, edits=tuple(edits))


def apply(graph: SceneGraph, edit: GraphEdit) -> SceneGraph:
    """Return the graph after one edit.

    Raises:
        ValueError: the edit does not fit the graph (an object is missing or already there, a
            value is not what the edit says it was).
    """
    objects, attributes, relations = graph.objects, graph.attributes, graph.relations
    match edit:
        case AddObject():
            return SceneGraph(
                (*objects, edit.object),
                (*attributes, *edit.attributes),
                (*relations, *edit.relations),
            )
        case RemoveObject():
            _expect(graph.object(edit.object.id), edit.object, edit)
            return graph.subgraph(o.id for o in objects if o.id != edit.object.id)
        case ReplaceObject():
            old = graph.object(edit.object_id)
            _expect(old.class_name, edit.before, edit)
            new = SceneObject(id=old.id, class_name=edit.after)
            return SceneGraph(
                (new if o.id == old.id else o for o in objects), attributes, relations
            )
        case ChangeAttribute():
            graph.object(edit.object_id)
            found = {a.kind: a.value for a in graph.attributes_of(edit.object_id)}
            _expect(found.get(edit.kind), edit.before, edit)
            kept = [a for a in attributes if (a.object, a.kind) != (edit.object_id, edit.kind)]
            if edit.after is not None:
                kept.append(Attribute(object=edit.object_id, kind=edit.kind, value=edit.after))
            return SceneGraph(objects, kept, relations)
        case Relate():
            _expect(set(edit.before) <= set(relations), True, edit)
            rest = (r for r in relations if r not in edit.before)
            return SceneGraph(objects, attributes, (*rest, *edit.after))
        case SwapObjects():
            graph.object(edit.first), graph.object(edit.second)
            return SceneGraph(objects, attributes, exchanged(relations, edit.first, edit.second))


def exchanged(relations: Iterable[Relation], first: str, second: str) -> frozenset[Relation]:
    """Let two objects take each other's place in all relations."""
    other = {first: second, second: first}
    return frozenset(
        Relation(
            source=other.get(r.source, r.source),
            name=r.name,
            target=other.get(r.target, r.target),
        )
        for r in relations
    )


def _relation_edits(before: SceneGraph, after: SceneGraph) -> list[GraphEdit]:
    old, new = frozenset(before.relations), frozenset(after.relations)
    if old == new:
        return []
    # Places are exchanged only where something is left to hold; losing relations is no exchange.
    touched = {end for r in old ^ new for end in (r.source, r.target)}
    ordered = [item.id for item in before.objects if item.id in touched]
    for first, second in combinations(ordered, 2):
        if exchanged(old, first, second) == new:
            return [SwapObjects(first=first, second=second)]
    lost = tuple(r for r in before.relations if r not in new)
    gained = tuple(r for r in after.relations if r not in old)
    return [Relate(before=lost, after=gained)]


def _expect(found: object, expected: object, edit: GraphEdit) -> None:
    if found != expected:
        raise ValueError(f"{edit} does not fit the graph: found {found!r}, expected {expected!r}")
