"""Random sentences of every form, meaningful or not: what a reader must be able to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from staged.shapes.language.critiques import PlanCritique
from staged.shapes.language.faults import (
    Contradiction,
    Extra,
    Fault,
    Misplaced,
    Missing,
    PlanFault,
    WrongKind,
    WrongLook,
    WrongNumber,
    WrongPlace,
)
from staged.shapes.language.instructions import (
    SPOTS,
    Add,
    Change,
    Edit,
    Move,
    Ref,
    Remove,
    Replace,
    Swap,
)
from staged.shapes.world.scene import COLORS, KINDS, RELATIONS, SIZES, RelationName
from staged.shapes.world.spec import MAX_NUMBER, Spec, Thing

T = TypeVar("T")


def sample_any_spec(rng: np.random.Generator) -> Spec:
    """Draw any specification that can be described, drawable or not, in normal order."""
    things: list[Thing] = []
    while len(things) < rng.integers(1, 5):
        thing = sample_thing(rng)
        if all(thing != replace(other, number=thing.number) for other in things):
            things.append(thing)
    single = [index for index, thing in enumerate(things) if thing.number == 1]
    relations: list[tuple[int, RelationName, int]] = []
    for index in single[1:]:
        if rng.random() < 0.6:
            relations.append((index, _one(RELATIONS, rng), single[0]))
    return Spec(things=tuple(things), relations=tuple(relations)).normal()


def sample_thing(rng: np.random.Generator, *, number: int | None = None) -> Thing:
    """Draw a thing with or without colour and size; `number` is drawn too unless given."""
    drawn = int(rng.integers(2, 5)) if rng.random() < 0.2 else 1
    return Thing(
        kind=_one(KINDS, rng),
        color=_one(COLORS, rng) if rng.random() < 0.7 else None,
        size=_one(SIZES, rng) if rng.random() < 0.3 else None,
        number=drawn if number is None else number,
    )


def sample_edit(rng: np.random.Generator) -> Edit:
    """Draw any edit."""
    target, other = Ref(thing=sample_thing(rng)), Ref(thing=sample_thing(rng, number=1))
    if rng.random() < 0.2:
        target = replace(target, any_of=True)
    where = (_one(RELATIONS, rng), other)
    match int(rng.integers(8)):
        case 0:
            return Add(thing=target.thing)
        case 1:
            return Add(thing=target.thing, spot=_one(SPOTS, rng))
        case 2:
            return Add(thing=target.thing, relations=(where,))
        case 3:
            value = _one(COLORS, rng) if rng.random() < 0.7 else _one(SIZES, rng)
            return Change(target=target, value=value)
        case 4:
            return Replace(target=target, thing=sample_thing(rng, number=1))
        case 5:
            return Remove(target=target)
        case 6:
            return Move(target=target, to=where if rng.random() < 0.7 else _one(SPOTS, rng))
        case _:
            return Swap(first=target, second=other)


def sample_fault(rng: np.random.Generator) -> Fault:
    """Draw any fault of a picture."""
    thing, other = sample_thing(rng), sample_thing(rng, number=1)
    match int(rng.integers(6)):
        case 0:
            return Missing(thing=thing)
        case 1:
            return WrongNumber(thing=thing, seen=int(rng.integers(1, MAX_NUMBER + 1)))
        case 2:
            seen, wanted = rng.permutation(len(COLORS))[:2]
            return WrongLook(thing=other, seen=COLORS[seen], wanted=COLORS[wanted])
        case 3:
            return WrongKind(seen=other, wanted=sample_thing(rng, number=1))
        case 4:
            place = _one(RELATIONS, rng) if rng.random() < 0.7 else None
            against = sample_thing(rng, number=1)
            wanted_place = _one(RELATIONS, rng)
            return WrongPlace(thing=other, against=against, wanted=wanted_place, seen=place)
        case _:
            return Extra(thing=other)


def sample_plan_critique(rng: np.random.Generator) -> PlanCritique:
    """Draw any critique of a plan."""
    if rng.random() < 0.5:
        return PlanCritique(pending=tuple(sample_thing(rng) for _ in range(rng.integers(3))))
    thing, other = sample_thing(rng), sample_thing(rng, number=1)
    fault: PlanFault = Contradiction(said=thing, asked=other if rng.random() < 0.7 else None)
    if rng.random() < 0.4:
        said, asked = rng.permutation(len(RELATIONS))[:2]
        single = replace(thing, number=1)
        fault = Misplaced(thing=single, against=other, said=RELATIONS[said], asked=RELATIONS[asked])
    return PlanCritique(faults=(fault,))


def _one(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]
