"""From scene graphs to the language: what a step does, and what the picture then holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from staged import scene_graph as graphs
from staged.scene_graph import Delta, SceneGraph
from staged.shapes.language.instructions import (
    SPOTS,
    Add,
    Change,
    Edit,
    Move,
    Ref,
    Remove,
    Replace,
    Spot,
    Swap,
)
from staged.shapes.language.phrases import RELATION_OF
from staged.shapes.language.prompts import describe
from staged.shapes.world.scene import COLORS, KINDS, SIZES, Color, Kind, RelationName, Size
from staged.shapes.world.spec import INVERSE, Spec, thing_in

_VALUES: dict[str, Color | Size] = {value: value for value in (*COLORS, *SIZES)}
_SIDES: dict[RelationName, tuple[int, int]] = {
    "left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1),
}  # fmt: skip
_KINDS: dict[str, Kind] = {kind: kind for kind in KINDS}


def describe_graph(graph: SceneGraph) -> str:
    """Say what a graph holds.

    Raises:
        ValueError: It is not of the miniature world, or cannot be said clearly.
    """
    return describe(Spec.from_graph(graph))


def edits_of(step: Delta, later: Sequence[SceneGraph] = ()) -> tuple[Edit, ...]:
    """Put a step's edits into the language's; alike things that are added become one edit.

    Args:
        step: What is done.
        later: What the picture is to become, in order and with the same names. On an empty canvas
            what others will stand against is put where they find room: at the bottom, if something
            is to be above it.

    Raises:
        ValueError: The step takes an attribute away (a shape always has a colour and a size), or
            is not of the miniature world.
    """
    edits: list[Edit] = []
    graph = step.before
    for edit in step:
        after = graphs.apply(graph, edit)
        for said in _say(edit, graph, after, later):
            last = edits[-1] if edits else None
            if isinstance(said, Add) and isinstance(last, Add) and _mergeable(last, said):
                number = last.thing.number + said.thing.number
                edits[-1] = replace(last, thing=replace(last.thing, number=number))
            else:
                edits.append(said)
        graph = after
    return tuple(edits)


def _say(
    edit: graphs.GraphEdit, before: SceneGraph, after: SceneGraph, later: Sequence[SceneGraph]
) -> list[Edit]:
    match edit:
        case graphs.AddObject():
            name = edit.object.id
            relations: list[tuple[RelationName, Ref]] = []
            for r in edit.relations:
                if r.source == name:
                    relations.append((_relation(r.name), _ref(before, r.target)))
                else:
                    relations.append((INVERSE[_relation(r.name)], _ref(before, r.source)))
            spot = None if before.objects else _spot(name, after, later)
            return [Add(thing=thing_in(after, name), relations=tuple(relations), spot=spot)]
        case graphs.ChangeAttribute(after=value):
            if value is None or value not in _VALUES:
                raise ValueError(f"{edit}: expected one of {', '.join(_VALUES)} afterwards")
            return [Change(target=_ref(before, edit.object_id), value=_VALUES[value])]
        case graphs.Relate():
            return [
                Move(
                    target=_ref(before, r.source),
                    to=(_relation(r.name), _ref(before, r.target)),
                )
                for r in edit.after
            ]
        case graphs.ReplaceObject():
            if edit.after not in _KINDS:
                raise ValueError(f"{edit}: expected one of {', '.join(_KINDS)}")
            thing = replace(thing_in(before, edit.object_id), kind=_KINDS[edit.after])
            return [Replace(target=_ref(before, edit.object_id), thing=thing)]
        case graphs.SwapObjects():
            return [Swap(first=_ref(before, edit.first), second=_ref(before, edit.second))]
        case graphs.RemoveObject():
            return [Remove(target=_ref(before, edit.object.id))]


def _spot(name: str, there: SceneGraph, later: Sequence[SceneGraph]) -> Spot | None:
    """Where something leaves room for what is still to stand against it; None: anywhere."""
    coming: dict[frozenset[str], graphs.Relation] = {}
    for relation in (r for graph in later for r in graph.relations_of(name)):
        ends = frozenset((relation.source, relation.target))
        if not all(end in there for end in ends):
            # What comes first counts: a detour may end the other way round.
            coming.setdefault(ends, relation)
    x = y = 0
    for relation in coming.values():
        said = _relation(relation.name)
        right, down = _SIDES[said if relation.target == name else INVERSE[said]]
        x, y = x - right, y - down
    return SPOTS[3 * (_sign(y) + 1) + _sign(x) + 1] if coming else None


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _ref(graph: SceneGraph, object_id: str) -> Ref:
    """Refer to an object by how it looks; it is one of several where others look the same."""
    thing = thing_in(graph, object_id)
    alike = sum(thing_in(graph, other.id) == thing for other in graph.of_class(thing.kind))
    return Ref(thing=thing, any_of=alike > 1)


def _relation(name: str) -> RelationName:
    if name not in RELATION_OF:
        raise ValueError(f"relation {name!r:.80}; expected one of {', '.join(RELATION_OF)}")
    return RELATION_OF[name]


def _mergeable(a: Add, b: Add) -> bool:
    plain = not (a.relations or b.relations or a.spot or b.spot)
    return plain and a.thing == replace(b.thing, number=a.thing.number)
