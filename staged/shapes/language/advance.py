"""From one description to the next: what is the same in both, and what a right step would add."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from staged.scene_graph import (
    Attribute,
    Delta,
    Relation,
    SceneGraph,
    SceneObject,
    delta,
    entering,
)
from staged.shapes.language.faults import Contradiction, Misplaced, PlanFault, plan_faults
from staged.shapes.world.spec import Spec

_Looks = frozenset[tuple[str, str]]


def between(before: Spec, after: Spec) -> Delta:
    """The step from one scene to another: things are the same that look most alike.

    Args:
        before: Nothing, or what is drawn.
        after: What is to be drawn.
    """
    old, new = before.to_graph(), after.to_graph()
    return delta(_renamed(old, _matched(old, new, _LIKENESSES)), new)


def corrected(said: Spec, faults: Sequence[PlanFault], asked: Spec) -> Spec | None:
    """A planned scene without its faults; None where they leave no scene that the prompt allows.

    Args:
        said: What the plan describes.
        faults: Of it, by `plan_faults`.
        asked: What the prompt asks for.
    """
    things, relations = list(said.things), list(said.relations)
    gone: set[int] = set()
    for fault in faults:
        match fault:
            case Misplaced(thing=thing, against=against, said=relation, asked=wanted):
                relations = [
                    (a, wanted, b)
                    if (said.things[a], r, said.things[b]) == (thing, relation, against)
                    else (a, r, b)
                    for a, r, b in relations
                ]
            case Contradiction(said=thing, asked=instead):
                index = said.things.index(thing)
                if instead is None:
                    gone.add(index)
                else:
                    things[index] = instead
    kept = [index for index in range(len(things)) if index not in gone]
    try:
        spec = Spec(
            things=tuple(things[index] for index in kept),
            relations=tuple(
                (kept.index(a), relation, kept.index(b))
                for a, relation, b in relations
                if a in kept and b in kept and things[a].number == things[b].number == 1
            ),
        ).normal()
    except ValueError:
        return None
    return None if plan_faults(spec, asked)[0] else spec


def advanced(before: Spec, asked: Spec) -> Delta | None:
    """The step that a right plan takes next: it adds what is asked for and not there yet.

    Args:
        before: What is drawn, which contradicts nothing that is asked for.
        asked: What the prompt asks for.

    Returns:
        The step; None where nothing is missing, or what is there cannot be found in the prompt.
    """
    goal, old = asked.to_graph(), before.to_graph()
    names = _matched(old, goal, (_allowed,))
    if len(names) < len(old.objects):
        return None
    there = set(names.values())
    missing = [item.id for item in goal.objects if item.id not in there]
    if not missing:
        return None
    first = entering(goal, there)[0]
    alike = [first]
    if not goal.relations_of(first):
        alike = [
            name
            for name in missing
            if _look(goal, name) == _look(goal, first) and not goal.relations_of(name)
        ]
    here = _renamed(old, names)
    added = goal.subgraph(alike)
    present = there | set(alike)
    relations = {r for r in goal.relations if {r.source, r.target} <= present}
    # Of what is there only what was said so far stays said: nobody is moved.
    kept = {r for r in relations if {r.source, r.target} & set(alike)} | set(here.relations)
    after = SceneGraph(
        (*here.objects, *added.objects),
        (*here.attributes, *added.attributes),
        kept,
    )
    return delta(here, after)


def _matched(
    old: SceneGraph, new: SceneGraph, likenesses: Sequence[Callable[[_Looks, _Looks], bool]]
) -> dict[str, str]:
    """Objects of one graph to those of another, each taken once, the greatest likeness first."""
    names: dict[str, str] = {}
    for alike in likenesses:
        for item in old.objects:
            if item.id in names:
                continue
            free = [o.id for o in new.objects if o.id not in names.values()]
            fitting = [o for o in free if alike(_look(old, item.id), _look(new, o))]
            if fitting:
                # Of several the one in the same relations.
                names[item.id] = max(fitting, key=lambda o: _shared(old, new, item.id, o))
    return names


def _shared(old: SceneGraph, new: SceneGraph, old_id: str, new_id: str) -> int:
    said = {(r.source == old_id, r.name) for r in old.relations_of(old_id)}
    return len(said & {(r.source == new_id, r.name) for r in new.relations_of(new_id)})


def _look(graph: SceneGraph, name: str) -> _Looks:
    attributes = {(a.kind, a.value) for a in graph.attributes_of(name)}
    return frozenset(attributes | {("class", graph.object(name).class_name)})


def _allowed(old: _Looks, new: _Looks) -> bool:
    """Whether what is there would do for what is asked for."""
    return new <= old


def _same_class(old: _Looks, new: _Looks) -> bool:
    return dict(old)["class"] == dict(new)["class"]


def _same_color(old: _Looks, new: _Looks) -> bool:
    return "color" in dict(old) and dict(old).get("color") == dict(new).get("color")


_LIKENESSES = (
    lambda old, new: old == new,
    lambda old, new: old <= new or new <= old,
    _same_class,
    _same_color,
)


def _renamed(graph: SceneGraph, names: dict[str, str]) -> SceneGraph:
    """The graph under other ids; what gets none is called so that it meets no other."""
    called = {item.id: names.get(item.id, f"was-{item.id}") for item in graph.objects}
    return SceneGraph(
        (SceneObject(id=called[o.id], class_name=o.class_name) for o in graph.objects),
        (Attribute(object=called[a.object], kind=a.kind, value=a.value) for a in graph.attributes),
        (
            Relation(source=called[r.source], name=r.name, target=called[r.target])
            for r in graph.relations
        ),
    )
