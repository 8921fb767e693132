"""The scene graph: objects, their attributes, and relations between them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import networkx as nx

from staged import strict_json

MAX_OBJECTS: Final = 64
MAX_ATTRIBUTES: Final = 256
MAX_RELATIONS: Final = 256
MAX_LABEL_CHARS: Final = 200
MAX_JSON_BYTES: Final = 4 * 2**20

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One thing.

    Attributes:
        id: Stable name of the node, such as `o1`; what it is may change, its id does not.
        class_name: What it is, singular: `circle`, `traffic light`.
    """

    id: str
    class_name: str

    def __post_init__(self) -> None:
        """Check the id and the class."""
        _check_id(self.id, "object id")
        _check_label(self.class_name, f"class of object {self.id}")


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One property of an object; an object has at most one of each kind.

    Attributes:
        object: Id of the object.
        kind: `color`, `size`, `material`, …
        value: `red`.
    """

    object: str
    kind: str
    value: str

    def __post_init__(self) -> None:
        """Check the labels."""
        _check_id(self.object, "object of an attribute")
        _check_label(self.kind, f"attribute kind of object {self.object}")
        _check_label(self.value, f"attribute value of object {self.object}")


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A directed relation; two objects may have several.

    Attributes:
        source: Id of the object it is said of.
        name: Reads after "is": `left of`, `on`, `holding`.
        target: Id of the other object.
    """

    source: str
    name: str
    target: str

    def __post_init__(self) -> None:
        """Check the label and that the ends differ."""
        _check_id(self.source, "source of a relation")
        _check_id(self.target, "target of a relation")
        _check_label(self.name, f"relation of {self.source} to {self.target}")
        if self.source == self.target:
            raise ValueError(f"relation {self.name!r}: object {self.source!r} relates to itself")


_ROWS: Final[Mapping[str, tuple[type[Any], Mapping[str, str], int]]] = {
    "objects": (SceneObject, {"id": "id", "class": "class_name"}, MAX_OBJECTS),
    "attributes": (
        Attribute,
        {"object": "object", "kind": "kind", "value": "value"},
        MAX_ATTRIBUTES,
    ),
    "relations": (
        Relation,
        {"source": "source", "relation": "name", "target": "target"},
        MAX_RELATIONS,
    ),
}
"""The lists of a graph's JSON: what a row becomes, by which keys, and how many there may be."""


class SceneGraph:
    """Objects, attributes and relations, immutable, as a `networkx.MultiDiGraph`.

    Nodes are objects (`type="object"`, `class_name`, `number`) under their id and attributes
    (`type="attribute"`, `kind`, `value`) under `<object>.<kind>`; edges are `has` (object to
    attribute) and relations (keyed by name). Duplicates are numbered: `number` counts the objects
    of a class from 1 in the order of their ids.

    Parts are kept in a natural order of ids (o2 before o10), so equal graphs have equal JSON
    whatever order they were built in. A graph is closed by construction: an attribute needs its
    object, a relation both ends. Relations may form cycles.
    """

    def __init__(
        self,
        objects: Iterable[SceneObject] = (),
        attributes: Iterable[Attribute] = (),
        relations: Iterable[Relation] = (),
    ) -> None:
        """Build and check.

        Raises:
            ValueError: duplicate ids, attributes or relations, an end that is missing, or more
                parts than the bounds allow.
        """
        self.objects = tuple(sorted(objects, key=lambda o: _natural(o.id)))
        self.attributes = tuple(
            sorted(attributes, key=lambda a: (_natural(a.object), a.kind, a.value))
        )
        self.relations = tuple(
            sorted(relations, key=lambda r: (_natural(r.source), _natural(r.target), r.name))
        )
        for name, (_, _, limit) in _ROWS.items():
            parts = getattr(self, name)
            if len(parts) > limit:
                raise ValueError(f"scene graph: {len(parts)} {name} exceed the limit of {limit}")
        graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        counts: Counter[str] = Counter()
        for item in self.objects:
            if item.id in graph:
                raise ValueError(f"scene graph: object id {item.id!r} is used twice")
            name = item.class_name
            counts[name] += 1
            graph.add_node(item.id, type="object", class_name=name, number=counts[name])
        ids = frozenset(graph)
        for attribute in self.attributes:
            if attribute.object not in ids:
                raise ValueError(
                    f"scene graph: attribute {attribute.kind!r} needs object "
                    f"{attribute.object!r}, which is missing"
                )
            node = f"{attribute.object}.{attribute.kind}"
            if node in graph:
                raise ValueError(
                    f"scene graph: object {attribute.object!r} has two attributes of kind "
                    f"{attribute.kind!r}; join their values or use another kind"
                )
            graph.add_node(node, type="attribute", kind=attribute.kind, value=attribute.value)
            graph.add_edge(attribute.object, node, key="has")
        for relation in self.relations:
            for end in (relation.source, relation.target):
                if end not in ids:
                    raise ValueError(
                        f"scene graph: relation {relation.name!r} needs object {end!r}, "
                        "which is missing"
                    )
            if graph.has_edge(relation.source, relation.target, key=relation.name):
                raise ValueError(
                    f"scene graph: {relation.source} is {relation.name!r} {relation.target} twice"
                )
            graph.add_edge(relation.source, relation.target, key=relation.name)
        self.graph = nx.freeze(graph)
        self._by_id = {item.id: item for item in self.objects}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SceneGraph):
            return NotImplemented
        return self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return f"SceneGraph({self.to_json()})"

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._by_id

    def object(self, object_id: str) -> SceneObject:
        """Return an object by id; ValueError if there is none."""
        if object_id not in self._by_id:
            raise ValueError(f"scene graph: no object {object_id!r:.40}")
        return self._by_id[object_id]

    def number(self, object_id: str) -> int:
        """Return the place, from 1, of an object among those of its class."""
        self.object(object_id)
        number: int = self.graph.nodes[object_id]["number"]
        return number

    def of_class(self, class_name: str) -> tuple[SceneObject, ...]:
        """Return the objects of a class."""
        return tuple(item for item in self.objects if item.class_name == class_name)

    def attributes_of(self, object_id: str) -> tuple[Attribute, ...]:
        """Return the attributes of an object."""
        return tuple(a for a in self.attributes if a.object == object_id)

    def relations_of(self, object_id: str) -> tuple[Relation, ...]:
        """Return the relations that an object is an end of."""
        return tuple(r for r in self.relations if object_id in (r.source, r.target))

    def neighbours(self, object_id: str) -> frozenset[str]:
        """Return the other objects that an object stands in a relation to, either way."""
        ends = {end for r in self.relations_of(object_id) for end in (r.source, r.target)}
        return frozenset(ends - {object_id})

    def subgraph(
        self, object_ids: Iterable[str], *, without: Iterable[Attribute] = ()
    ) -> "SceneGraph":
        """Return the dependency-closed part of some objects.

        It holds the objects, their attributes and every relation that has both ends among them.

        Args:
            object_ids: The objects to keep.
            without: Attributes to leave out.
        """
        kept, left_out = set(object_ids), set(without)
        return SceneGraph(
            (self.object(object_id) for object_id in kept),
            (a for a in self.attributes if a.object in kept and a not in left_out),
            (r for r in self.relations if r.source in kept and r.target in kept),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, in canonical order."""
        return {
            name: [
                {key: getattr(part, field) for key, field in keys.items()}
                for part in getattr(self, name)
            ]
            for name, (_, keys, _) in _ROWS.items()
        }

    @classmethod
    def from_dict(cls, data: Any) -> "SceneGraph":
        """Read what `to_dict` wrote; attributes and relations may be absent.

        Raises:
            ValueError: an unknown key, a wrong type, an end that is missing, with its place.
        """
        strict_json.record(
            data, "scene_graph", {"objects": list}, {"attributes": list, "relations": list}
        )
        parts: dict[str, list[Any]] = {}
        for name, (kind, keys, limit) in _ROWS.items():
            rows = data.get(name) or []
            if len(rows) > limit:
                raise ValueError(f"scene_graph.{name}: {len(rows)} exceed the limit of {limit}")
            parts[name] = []
            for i, row in enumerate(rows):
                strict_json.record(row, f"scene_graph.{name}[{i}]", dict.fromkeys(keys, str))
                parts[name].append(kind(**{keys[key]: value for key, value in row.items()}))
        return cls(**parts)

    def to_json(self) -> str:
        """Serialise canonically: equal graphs give equal text."""
        return strict_json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str | bytes) -> "SceneGraph":
        """Parse strictly; see `from_dict`."""
        return cls.from_dict(strict_json.loads(text, place="scene_graph", max_bytes=MAX_JSON_BYTES))

    def _parts(self) -> tuple[tuple[SceneObject | Attribute | Relation, ...], ...]:
        return self.objects, self.attributes, self.relations


def _check_id(value: Any, place: str) -> None:
    if type(value) is not str or not _ID.fullmatch(value):
        raise ValueError(f"{place}: {value!r:.80} is not 1-32 letters, digits, _ or -")


def _check_label(value: Any, place: str) -> None:
    strict_json.unicode_text(value, place)
    if not value or value != value.strip():
        raise ValueError(f"{place}: {value!r:.80} is empty or has spaces around it")
    if len(value) > MAX_LABEL_CHARS:
        raise ValueError(f"{place}: {len(value)} characters exceed {MAX_LABEL_CHARS}")


def _natural(text: str) -> tuple[tuple[int, str], ...]:
    """Order digits inside text by value: o2 before o10. Equal keys only for equal text."""
    runs = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple((int(run) if run[0] in "0123456789" else -1, run) for run in runs)
