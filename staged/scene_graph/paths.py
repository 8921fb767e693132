"""Ways to build a scene step by step: by adding only, or with detours that end in the same scene.

Additive steps alone teach a model to add. A varied path lets a step draw something different that
a later step changes, swaps or removes (arXiv 2604.04746).
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal, get_args

from staged.scene_graph.edits import (
    AddObject,
    ChangeAttribute,
    GraphEdit,
    RemoveObject,
    ReplaceObject,
    SwapObjects,
    apply,
    exchanged,
)
from staged.scene_graph.graph import Attribute, SceneGraph, SceneObject

Variation = Literal["change", "swap", "exchange", "remove"]
"""How a detour ends: an attribute is changed, an object is swapped for another class, two objects
exchange places, or an extra object is removed."""

VARIATIONS: Final[tuple[Variation, ...]] = get_args(Variation)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a detour may draw instead.

    Attributes:
        classes: Class names of swapped and extra objects.
        attributes: Attribute kind -> values. Only these kinds are changed, and an extra object
            gets a value of each.
        instead: Object -> class names that suit its place; `classes` for others.
        values: (object, attribute kind) -> values that suit it; those of `attributes` for others.
    """

    classes: Sequence[str] = ()
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    instead: Mapping[str, Sequence[str]] = field(default_factory=dict)
    values: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)

    def classes_for(self, object_id: str) -> Sequence[str]:
        """Class names that may take the place of an object's."""
        return self.instead.get(object_id, self.classes)

    def values_for(self, object_id: str, kind: str) -> Sequence[str]:
        """Values that may take the place of an object's attribute."""
        return self.values.get((object_id, kind), self.attributes.get(kind, ()))


@dataclass(frozen=True, kw_only=True)
class _Detour:
    """From increment `start` on the graph shows `edit`; after increment `end` it is undone."""

    edit: GraphEdit
    start: int
    end: int


def increments(
    graph: SceneGraph,
    *,
    seed: int,
    max_steps: int,
    late_attributes: float = 0.0,
    grouped: float = 0.0,
) -> tuple[SceneGraph, ...]:
    """Split a graph into growing dependency-closed parts; the last is the graph itself.

    Landmarks enter first ("a cup on a table": the table), and then along relations where they can,
    so that a step can say where things go, in the words of the prompt. An object comes with its
    attributes, a relation with the later of its ends. Cycles of relations lose nothing. Steps bring
    as much as one another, to one unit, unless `grouped`: one that brought most of a scene would be
    the picture drawn at once that steps are to spare.

    Args:
        graph: The wanted scene.
        seed: Decides order and grouping.
        max_steps: Most steps; there are fewer only where there is less to add, or `grouped`.
        late_attributes: Probability that an attribute comes later than its object.
        grouped: Probability that what could come next comes with the step before it.

    Raises:
        ValueError: max_steps below 1, or a probability outside [0, 1].
    """
    if max_steps < 1:
        raise ValueError(f"max_steps is {max_steps}; a scene needs at least one step")
    for name, value in (("late_attributes", late_attributes), ("grouped", grouped)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, not a probability")
    rng = random.Random(seed)
    units: list[SceneObject | Attribute] = [*_along_relations(graph, rng)]
    for attribute in graph.attributes:
        if rng.random() < late_attributes:
            after = units.index(graph.object(attribute.object)) + 1
            units.insert(rng.randint(after, len(units)), attribute)
    if not units:
        return ()
    ends = _ends(len(units), max_steps, grouped, rng)
    return tuple(
        graph.subgraph(
            (unit.id for unit in units[:end] if isinstance(unit, SceneObject)),
            without=(unit for unit in units[end:] if isinstance(unit, Attribute)),
        )
        for end in ends
    )


def varied_path(
    graph: SceneGraph,
    *,
    seed: int,
    max_steps: int,
    vocabulary: Vocabulary,
    num_variations: int = 1,
    variations: Sequence[Variation] | Mapping[Variation, float] = VARIATIONS,
    max_objects: int = 16,
    grouped: float = 0.0,
) -> tuple[SceneGraph, ...]:
    """Build a graph in steps of which some draw something different and later ones repair it.

    Every repair is a step of its own, so `delta` between neighbours names it. Detours touch
    different objects. Fewer are made where the graph, the vocabulary or the bounds leave no room;
    without any the path equals some `increments`.

    Args:
        graph: The wanted scene; the path ends in exactly this graph.
        seed: Decides everything.
        max_steps: Most steps, repairs included.
        vocabulary: What may be drawn instead.
        num_variations: How many detours to try to make.
        variations: Which kinds to draw from, all alike or by weight.
        max_objects: Most objects at any time.
        grouped: As for `increments`.

    Raises:
        ValueError: max_steps or num_variations out of range, or an unknown variation.
    """
    if max_steps < 1 or num_variations < 0:
        raise ValueError(
            f"max_steps is {max_steps} and num_variations {num_variations}; "
            "expected at least 1 and 0"
        )
    for name in variations:
        if name not in VARIATIONS:
            raise ValueError(f"variation {name!r} is none of {', '.join(VARIATIONS)}")
    rng = random.Random(seed)
    wanted = min(num_variations, max_steps - 1) if variations else 0
    base = increments(
        graph, seed=rng.getrandbits(32), max_steps=max_steps - wanted, grouped=grouped
    )
    detours: list[_Detour] = []
    if base:
        for _ in range(wanted):
            for kind in _in_turn(variations, rng):
                found = _FINDERS[kind](base, vocabulary, detours, max_objects)
                if found:
                    detours.append(_drawn(rng, found))
                    break
    return _walk(base, detours)


def _in_turn(
    variations: Sequence[Variation] | Mapping[Variation, float], rng: random.Random
) -> list[Variation]:
    """The kinds in the order in which they are tried: heavier ones tend to be earlier."""
    if not isinstance(variations, Mapping):
        return rng.sample(variations, len(variations))
    # The first of these has each kind with its share (Efraimidis and Spirakis).
    keys = {kind: rng.random() ** (1 / weight) for kind, weight in variations.items() if weight}
    return sorted(keys, key=lambda kind: keys[kind], reverse=True)


def _walk(base: Sequence[SceneGraph], detours: Sequence[_Detour]) -> tuple[SceneGraph, ...]:
    path = []
    active: list[_Detour] = []
    for index, part in enumerate(base):
        active += [d for d in detours if d.start == index]
        path.append(_shown(part, active))
        for detour in [d for d in active if d.end == index]:
            active.remove(detour)
            path.append(_shown(part, active))
    return tuple(path)


def _shown(part: SceneGraph, active: Sequence[_Detour]) -> SceneGraph:
    for detour in active:
        part = apply(part, detour.edit)
    return part


def _drawn(rng: random.Random, found: Sequence[tuple[int, int, Sequence[GraphEdit]]]) -> _Detour:
    """Draw one of (start, last possible end, edits to choose from)."""
    start, last, edits = rng.choice(found)
    return _Detour(edit=rng.choice(edits), start=start, end=rng.randint(start, last))


_Found = list[tuple[int, int, Sequence[GraphEdit]]]


def _find_changes(
    base: Sequence[SceneGraph], words: Vocabulary, detours: Sequence[_Detour], max_objects: int
) -> _Found:
    used = _touched(detours)
    found: _Found = []
    for a in base[-1].attributes:
        edits = [
            ChangeAttribute(object_id=a.object, kind=a.kind, before=a.value, after=value)
            for value in words.values_for(a.object, a.kind)
            if value != a.value
        ]
        if edits and a.object not in used:
            start = next(i for i, part in enumerate(base) if a in part.attributes)
            found.append((start, len(base) - 1, edits))
    return found


def _find_swaps(
    base: Sequence[SceneGraph], words: Vocabulary, detours: Sequence[_Detour], max_objects: int
) -> _Found:
    used = _touched(detours)
    found: _Found = []
    for item in base[-1].objects:
        edits = [
            ReplaceObject(object_id=item.id, before=item.class_name, after=name)
            for name in _unused(words.classes_for(item.id), base, detours)
        ]
        if edits and item.id not in used:
            found.append((_start(base, item.id), len(base) - 1, edits))
    return found


def _find_exchanges(
    base: Sequence[SceneGraph], words: Vocabulary, detours: Sequence[_Detour], max_objects: int
) -> _Found:
    used = _touched(detours)
    # Two exchanges that share a relation would turn it together, and neither be a step of its own.
    for detour in detours:
        if isinstance(detour.edit, SwapObjects):
            used |= base[-1].neighbours(detour.edit.first) | base[-1].neighbours(detour.edit.second)
    pairs = {(r.source, r.target) for r in base[-1].relations if not {r.source, r.target} & used}
    found: _Found = []
    for first, second in sorted(pairs):
        start = _start(base, first, second)
        there = base[start - 1] if start else SceneGraph()
        shown = exchanged(base[start].relations, first, second)
        # What is drawn stays where it is, among itself: the detour may neither move nor relate it.
        drawn = {r for r in shown if r.source in there and r.target in there}
        if drawn == set(there.relations) and shown != frozenset(base[start].relations):
            found.append((start, len(base) - 1, [SwapObjects(first=first, second=second)]))
    return found


def _find_removals(
    base: Sequence[SceneGraph], words: Vocabulary, detours: Sequence[_Detour], max_objects: int
) -> _Found:
    extras = sum(isinstance(d.edit, AddObject) for d in detours)
    room = [i for i, part in enumerate(base) if len(part.objects) + extras < max_objects]
    classes = _unused(words.classes, base, detours)
    if not room or not classes:
        return []
    name = f"x{extras + 1}"
    while name in base[-1]:
        name += "x"
    # One combination per class and turn of the values: every value can be drawn.
    turns = max([len(values) for values in words.attributes.values()], default=1)
    edits = [
        AddObject(
            object=SceneObject(id=name, class_name=class_name),
            attributes=tuple(
                Attribute(object=name, kind=kind, value=values[(turn + i) % len(values)])
                for kind, values in sorted(words.attributes.items())
                if values
            ),
        )
        for i, class_name in enumerate(classes)
        for turn in range(turns)
    ]
    return [(start, room[-1], edits) for start in room]


_FINDERS: Final[
    dict[Variation, Callable[[Sequence[SceneGraph], Vocabulary, Sequence[_Detour], int], _Found]]
] = {
    "change": _find_changes,
    "swap": _find_swaps,
    "exchange": _find_exchanges,
    "remove": _find_removals,
}


def entering(graph: SceneGraph, there: Collection[str]) -> tuple[str, ...]:
    """Objects that can best come next, in the graph's order; none where all are there.

    First those that stand against nothing that is missing; of these the ones that touch what is
    there, then those that touch anything, for what stands alone finds room at last. A landmark that
    comes first spares the planner the inverse of what the prompt says: of "a cup on a table", "add
    a cup on the table" and not "add a table below the cup".

    Args:
        graph: The wanted scene.
        there: Objects of it that are drawn.
    """
    missing = [item.id for item in graph.objects if item.id not in there]
    placeable = [
        name
        for name in missing
        if all(r.target in there for r in graph.relations_of(name) if r.source == name)
    ] or missing  # in a cycle of relations something must begin
    touching = [name for name in placeable if graph.neighbours(name) & set(there)]
    related = [name for name in placeable if graph.neighbours(name)]
    return tuple(touching or related or placeable)


def _along_relations(graph: SceneGraph, rng: random.Random) -> list[SceneObject]:
    order: list[SceneObject] = []
    while len(order) < len(graph.objects):
        order.append(graph.object(rng.choice(entering(graph, [item.id for item in order]))))
    return order


def _ends(num_units: int, max_steps: int, grouped: float, rng: random.Random) -> list[int]:
    """How many units are there after each step."""
    if grouped:
        cuts = [cut for cut in range(1, num_units) if rng.random() >= grouped]
        return [*sorted(rng.sample(cuts, min(max_steps - 1, len(cuts)))), num_units]
    num_steps = min(max_steps, num_units)
    each, over = divmod(num_units, num_steps)
    sizes = [each + 1] * over + [each] * (num_steps - over)
    rng.shuffle(sizes)
    return list(accumulate(sizes))


def _start(base: Sequence[SceneGraph], *object_ids: str) -> int:
    """Return the first increment that holds all of some objects."""
    return next(i for i, part in enumerate(base) if all(name in part for name in object_ids))


def _touched(detours: Sequence[_Detour]) -> set[str]:
    ids: set[str] = set()
    for detour in detours:
        match detour.edit:
            case ChangeAttribute(object_id=name) | ReplaceObject(object_id=name):
                ids.add(name)
            case SwapObjects(first=first, second=second):
                ids |= {first, second}
            case AddObject() | RemoveObject():
                pass
    return ids


def _unused(
    names: Sequence[str], base: Sequence[SceneGraph], detours: Sequence[_Detour]
) -> list[str]:
    """Classes that appear nowhere else, so that what is swapped or removed has a clear name."""
    taken = {item.class_name for item in base[-1].objects}
    for detour in detours:
        if isinstance(detour.edit, AddObject):
            taken.add(detour.edit.object.class_name)
        if isinstance(detour.edit, ReplaceObject):
            taken.add(detour.edit.after)
    return [name for name in names if name not in taken]
