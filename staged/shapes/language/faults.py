"""What is wrong with a plan or a picture, as data; `critiques` has the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from staged.shapes.language.instructions import Add, Change, Edit, Move, Ref, Remove, Replace
from staged.shapes.world.scene import Color, RelationName, Size
from staged.shapes.world.spec import INVERSE, Spec, Thing


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Something that was asked for is not in the picture."""

    thing: Thing


@dataclass(frozen=True, kw_only=True)
class WrongNumber:
    """There are `seen` (not 0) where `thing.number` were asked for."""

    thing: Thing
    seen: int


@dataclass(frozen=True, kw_only=True)
class WrongLook:
    """Something has another colour or size."""

    thing: Thing
    seen: Color | Size
    wanted: Color | Size


@dataclass(frozen=True, kw_only=True)
class WrongKind:
    """Something else stands where something should."""

    seen: Thing
    wanted: Thing


@dataclass(frozen=True, kw_only=True)
class WrongPlace:
    """A relation does not hold, but `seen` does; None when none does."""

    thing: Thing
    against: Thing
    wanted: RelationName
    seen: RelationName | None = None


@dataclass(frozen=True, kw_only=True)
class Extra:
    """Something nobody asked for."""

    thing: Thing


Fault = Missing | WrongNumber | WrongLook | WrongKind | WrongPlace | Extra
"""A fault of a picture."""


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """The plan says one thing, the prompt asks for another; None when for nothing of the sort."""

    said: Thing
    asked: Thing | None


@dataclass(frozen=True, kw_only=True)
class Misplaced:
    """The plan puts something elsewhere than the prompt."""

    thing: Thing
    against: Thing
    said: RelationName
    asked: RelationName


PlanFault = Contradiction | Misplaced
"""A fault of a plan's description."""


def correct(fault: Fault) -> Edit:
    """The edit that puts a fault of a picture right."""
    match fault:
        case Missing(thing=thing):
            return Add(thing=thing)
        case WrongNumber(thing=thing, seen=seen) if seen < thing.number:
            return Add(thing=replace(thing, number=thing.number - seen))
        case WrongNumber(thing=thing, seen=seen):
            surplus = replace(thing, number=seen - thing.number)
            return Remove(target=Ref(thing=surplus, any_of=True))
        case WrongLook(thing=thing, wanted=wanted):
            return Change(target=Ref(thing=thing), value=wanted)
        case WrongKind(seen=seen, wanted=wanted):
            return Replace(target=Ref(thing=seen), thing=wanted)
        case WrongPlace(thing=thing, against=against, wanted=wanted):
            return Move(target=Ref(thing=thing), to=(wanted, Ref(thing=against)))
        case Extra(thing=thing):
            return Remove(target=Ref(thing=thing))


def plan_faults(said: Spec, asked: Spec) -> tuple[tuple[PlanFault, ...], tuple[Thing, ...]]:
    """Compare the scene that a plan describes with the one that the prompt asks for.

    What the plan leaves out is not an error, only to come; what contradicts the prompt is one.
    A plan may choose what the prompt leaves open.

    Args:
        said: The plan's description.
        asked: The prompt.

    Returns:
        Contradictions, and the things still to come.
    """
    wanted = _both_ways(asked)
    left = [thing.number for thing in asked.things]
    partner: dict[int, int] = {}
    for i, thing in enumerate(said.things):
        fits = [j for j, t in enumerate(asked.things) if t.allows(thing) and left[j]]
        if not fits:
            continue
        # Of several that fit, take the one that gains most agreement with relations said so far.
        j = max(fits, key=lambda j: _agreement(said, wanted, partner | {i: j}))
        if thing.number <= left[j]:
            partner[i] = j
            left[j] -= thing.number
    faults: list[PlanFault] = []
    for i, thing in enumerate(said.things):
        if i in partner:
            continue
        rivals = [j for j, t in enumerate(asked.things) if left[j] == t.number and _alike(t, thing)]
        if rivals:
            partner[i] = max(rivals, key=lambda j: asked.things[j].kind == thing.kind)
            left[partner[i]] = 0
        faults.append(Contradiction(said=thing, asked=asked.things[partner[i]] if rivals else None))
    for a, relation, b in said.relations:
        asked_for = wanted.get((partner.get(a, -1), partner.get(b, -1)), relation)
        if asked_for != relation:
            thing, against = said.things[a], said.things[b]
            faults.append(Misplaced(thing=thing, against=against, said=relation, asked=asked_for))
    pending = tuple(
        replace(thing, number=number)
        for thing, number in zip(asked.things, left, strict=True)
        if number
    )
    return tuple(faults), pending


def instruction_faults(edits: Sequence[Edit], said: Spec) -> tuple[PlanFault, ...]:
    """Compare what an instruction draws or moves with the scene that its own plan describes.

    What is removed, changed or exchanged on the way is not held against it.

    Args:
        edits: The instruction.
        said: The description.
    """
    found: list[PlanFault] = []
    for edit in edits:
        match edit:
            case Add(thing=thing, relations=relations):
                pass
            case Move(target=Ref(thing=thing), to=(relation, ref)):
                relations = ((relation, ref),)
            case _:
                continue
        against = tuple(ref.thing for _, ref in relations)
        single = all(one.number == 1 for one in (thing, *against))
        told = Spec(
            things=(thing, *against),
            relations=tuple((0, relation, i + 1) for i, (relation, _) in enumerate(relations))
            if single
            else (),
        )
        found += plan_faults(told, said)[0]
    return tuple(found)


def _both_ways(spec: Spec) -> dict[tuple[int, int], RelationName]:
    """Relations by their ends, told from either."""
    told = {(a, b): relation for a, relation, b in spec.relations}
    return {(b, a): INVERSE[relation] for (a, b), relation in told.items()} | told


def _agreement(
    said: Spec, wanted: dict[tuple[int, int], RelationName], partner: dict[int, int]
) -> int:
    """How many relations that are said are also asked for, less those that are contradicted."""
    score = 0
    for a, relation, b in said.relations:
        asked_for = wanted.get((partner.get(a, -1), partner.get(b, -1)))
        score += (asked_for == relation) - (asked_for not in (None, relation))
    return score


def _alike(asked: Thing, said: Thing) -> bool:
    """Whether one was perhaps said for the other: same kind, or the same colour by name."""
    return asked.kind == said.kind or (asked.color is not None and asked.color == said.color)
