"""Inspections in words: of a plan against the prompt, of a sketch against the plan.

    the plan fits the prompt
    the plan fits the prompt; the blue star is still to come
    the plan says a green circle but the prompt asks for a red circle
    the plan says a blue heart but the prompt asks for nothing else
    the plan says the star right of the ring but the prompt asks for left of

    the image fits the plan
    the heart is missing
    there are four hearts but should be three
    the circle is green but should be red
    the star should be a ring
    the star is right of the ring but should be left of it
    the star is not left of the ring
    the blue heart should not be there

Several faults are joined by "; ".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from staged.shapes.language.phrases import (
    NOUN,
    NUMBERS,
    RELATION,
    RELATION_OF,
    GrammarError,
    a,
    exactly,
    match,
    read_noun,
    some,
    the,
)
from staged.shapes.world.scene import COLORS, SIZES, Color, Size
from staged.shapes.world.spec import Thing

_LOOKS: dict[str, Color | Size] = {value: value for value in (*COLORS, *SIZES)}
_LOOK = "|".join(_LOOKS)
_PLAN_FITS = "the plan fits the prompt"
_SKETCH_FITS = "the image fits the plan"


@dataclass(frozen=True, kw_only=True)
class PlanCritique:
    """What is wrong with a plan; if nothing is, what is still to come."""

    faults: tuple[PlanFault, ...] = ()
    pending: tuple[Thing, ...] = ()

    def __post_init__(self) -> None:
        if self.faults and self.pending:
            raise ValueError("a plan with faults is revised first; expected faults or pending")


def write_plan_critique(critique: PlanCritique) -> str:
    """Say what is wrong with a plan, or that nothing is."""
    if critique.faults:
        return "; ".join(_write_plan_fault(fault) for fault in critique.faults)
    if not critique.pending:
        return _PLAN_FITS
    things = " and ".join(the(thing) for thing in critique.pending)
    verb = "is" if len(critique.pending) == 1 and critique.pending[0].number == 1 else "are"
    return f"{_PLAN_FITS}; {things} {verb} still to come"


def read_plan_critique(text: str) -> PlanCritique:
    """Read what `write_plan_critique` writes.

    Raises:
        GrammarError: The text is anything else.
    """
    if text == _PLAN_FITS:
        critique = PlanCritique()
    elif found := re.fullmatch(rf"{_PLAN_FITS}; (.+) (?:is|are) still to come", text):
        pending = tuple(read_noun(noun, the) for noun in found[1].split(" and "))
        critique = PlanCritique(pending=pending)
    else:
        critique = PlanCritique(faults=tuple(_read_plan_fault(part) for part in text.split("; ")))
    return exactly(critique, write_plan_critique, text, "a critique of a plan")


def write_sketch_critique(faults: Sequence[Fault]) -> str:
    """Say what is wrong with an image, or that nothing is."""
    return "; ".join(_write_fault(fault) for fault in faults) or _SKETCH_FITS


def read_sketch_critique(text: str) -> tuple[Fault, ...]:
    """Read what `write_sketch_critique` writes.

    Raises:
        GrammarError: The text is anything else.
    """
    faults = () if text == _SKETCH_FITS else tuple(_read_fault(part) for part in text.split("; "))
    return exactly(faults, write_sketch_critique, text, "a critique of an image")


def _write_plan_fault(fault: PlanFault) -> str:
    match fault:
        case Contradiction(said=said, asked=asked):
            wanted = "nothing else" if asked is None else a(asked)
            return f"the plan says {a(said)} but the prompt asks for {wanted}"
        case Misplaced(thing=thing, against=against, said=said_place, asked=asked_place):
            return (
                f"the plan says {the(thing)} {said_place} {the(against)} "
                f"but the prompt asks for {asked_place}"
            )


def _read_plan_fault(text: str) -> PlanFault:
    found = match(r"the plan says (.+) but the prompt asks for (.+)", text, "a fault of a plan")
    said, asked = found[1], found[2]
    if asked in RELATION_OF:
        place = match(rf"({NOUN}) ({RELATION}) ({NOUN})", said, "where the plan puts something")
        return Misplaced(
            thing=read_noun(place[1], the), against=read_noun(place[3], the),
            said=RELATION_OF[place[2]], asked=RELATION_OF[asked],
        )  # fmt: skip
    return Contradiction(
        said=read_noun(said, a), asked=None if asked == "nothing else" else read_noun(asked, a)
    )


def _write_fault(fault: Fault) -> str:
    match fault:
        case Missing(thing=thing):
            return f"{the(thing)} {'is' if thing.number == 1 else 'are'} missing"
        case WrongNumber(thing=thing, seen=seen):
            there = f"there {'is' if seen == 1 else 'are'} {some(replace(thing, number=seen))}"
            return f"{there} but should be {NUMBERS[thing.number - 1]}"
        case WrongLook(thing=thing, seen=look, wanted=wanted):
            return f"{the(thing)} is {look} but should be {wanted}"
        case WrongKind(seen=other, wanted=thing):
            return f"{the(other)} should be {a(thing)}"
        case WrongPlace(thing=thing, against=against, wanted=relation, seen=None):
            return f"{the(thing)} is not {relation} {the(against)}"
        case WrongPlace(thing=thing, against=against, wanted=relation, seen=place):
            return f"{the(thing)} is {place} {the(against)} but should be {relation} it"
        case Extra(thing=thing):
            return f"{the(thing)} should not be there"


def _read_fault(text: str) -> Fault:
    if found := re.fullmatch(rf"({NOUN}) (?:is|are) missing", text):
        return Missing(thing=read_noun(found[1], the))
    if found := re.fullmatch(rf"there (?:is|are) ({NOUN}) but should be (\w+)", text):
        seen = read_noun(found[1], some)
        if found[2] not in NUMBERS:
            raise GrammarError(text, "a number of shapes that should be there")
        wanted = replace(seen, number=NUMBERS.index(found[2]) + 1)
        return WrongNumber(thing=wanted, seen=seen.number)
    if found := re.fullmatch(rf"({NOUN}) is ({_LOOK}) but should be ({_LOOK})", text):
        seen_look, look = _LOOKS[found[2]], _LOOKS[found[3]]
        return WrongLook(thing=read_noun(found[1], the), seen=seen_look, wanted=look)
    if found := re.fullmatch(rf"({NOUN}) should not be there", text):
        return Extra(thing=read_noun(found[1], the))
    if found := re.fullmatch(rf"({NOUN}) should be ({NOUN})", text):
        return WrongKind(seen=read_noun(found[1], the), wanted=read_noun(found[2], a))
    placed = rf"({NOUN}) is (not )?({RELATION}) ({NOUN})(?: but should be ({RELATION}) it)?"
    if (found := re.fullmatch(placed, text)) and bool(found[2]) != bool(found[5]):
        return WrongPlace(
            thing=read_noun(found[1], the), against=read_noun(found[4], the),
            wanted=RELATION_OF[found[5] or found[3]],
            seen=RELATION_OF[found[3]] if found[5] else None,
        )  # fmt: skip
    raise GrammarError(text, "a fault of an image")
