"""Edits of a picture in words: what a plan does next, and how a refinement puts it right.

    add a large red circle at the top left
    add a blue star below the red circle
    change the red circle to green          (in a refinement: make the red circle green)
    replace the star with a ring
    remove the blue heart
    remove one heart                        (of several)
    move the red star to the left of the blue ring
    swap the red star and the blue ring

Several edits are joined by " and ".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from staged.shapes.language.phrases import (
    NOUN,
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
from staged.shapes.world.scene import COLORS, SIZES, Color, RelationName, Size
from staged.shapes.world.spec import Thing

Spot = Literal[
    "top left", "top", "top right", "left", "center", "right",
    "bottom left", "bottom", "bottom right",
]  # fmt: skip
SPOTS: tuple[Spot, ...] = get_args(Spot)
"""Ninths of the canvas, row by row."""

Voice = Literal["plan", "refinement"]
"""A plan says "change … to …", a refinement "make …"."""


@dataclass(frozen=True, kw_only=True)
class Ref:
    """Something in the picture: the one that looks so, or `any_of` those that do."""

    thing: Thing
    any_of: bool = False

    def __str__(self) -> str:
        return some(self.thing) if self.any_of else the(self.thing)


@dataclass(frozen=True, kw_only=True)
class Add:
    """Draw something new, at a spot or in relations to what is there."""

    thing: Thing
    relations: tuple[tuple[RelationName, Ref], ...] = ()
    spot: Spot | None = None

    def __post_init__(self) -> None:
        if self.relations and self.spot:
            raise ValueError(f"add {a(self.thing)}: expected a spot or relations, not both")


@dataclass(frozen=True, kw_only=True)
class Change:
    """Give something another colour or size."""

    target: Ref
    value: Color | Size


@dataclass(frozen=True, kw_only=True)
class Replace:
    """Put something else in the place of something."""

    target: Ref
    thing: Thing


@dataclass(frozen=True, kw_only=True)
class Remove:
    """Take something away."""

    target: Ref


@dataclass(frozen=True, kw_only=True)
class Move:
    """Put something elsewhere: against something that stays, or at a spot."""

    target: Ref
    to: tuple[RelationName, Ref] | Spot


@dataclass(frozen=True, kw_only=True)
class Swap:
    """Let two things exchange their places."""

    first: Ref
    second: Ref


Edit = Add | Change | Replace | Remove | Move | Swap

_SPOT = "|".join(sorted(SPOTS, key=len, reverse=True))
_ADD = re.compile(rf"add ({NOUN})(?: at the ({_SPOT})|((?: {RELATION} {NOUN}(?: and)?)*))")
_WHERE = re.compile(rf"({RELATION}) ({NOUN})")
_VALUES: dict[str, Color | Size] = {value: value for value in (*COLORS, *SIZES)}
_SPOTS: dict[str, Spot] = {spot: spot for spot in SPOTS}
_NEXT_EDIT = re.compile(r" and (?=(?:add|change|make|replace|remove|move|swap) )")


def write_edits(edits: Sequence[Edit], voice: Voice = "plan") -> str:
    """Say what to do.

    Args:
        edits: At least one.
        voice: In what step it is said.

    Raises:
        ValueError: There is nothing to say.
    """
    if not edits:
        raise ValueError("no edits; expected at least one to write down")
    return " and ".join(_write(edit, voice) for edit in edits)


def read_edits(text: str, voice: Voice = "plan") -> tuple[Edit, ...]:
    """Read what `write_edits` writes in the same voice.

    Raises:
        GrammarError: The text is anything else.
    """
    edits = tuple(_read(part) for part in _NEXT_EDIT.split(text))
    return exactly(edits, partial(write_edits, voice=voice), text, f"the instruction of a {voice}")


def _write(edit: Edit, voice: Voice) -> str:
    match edit:
        case Add(thing=thing, spot=None):
            where = " and ".join(f"{relation} {ref}" for relation, ref in edit.relations)
            return f"add {a(thing)} {where}".rstrip()
        case Add(thing=thing, spot=spot):
            return f"add {a(thing)} at the {spot}"
        case Change(target=target, value=value) if voice == "plan":
            return f"change {target} to {value}"
        case Change(target=target, value=value):
            return f"make {target} {value}"
        case Replace(target=target, thing=thing):
            return f"replace {target} with {a(thing)}"
        case Remove(target=target):
            return f"remove {target}"
        case Move(target=target, to=(relation, against)):
            # "left of" needs a noun to be moved to; "above" is a place by itself.
            way = f"to the {relation}" if relation.endswith(" of") else relation
            return f"move {target} {way} {against}"
        case Move(target=target, to=spot):
            return f"move {target} to the {spot}"
        case Swap(first=first, second=second):
            return f"swap {first} and {second}"


def _read(text: str) -> Edit:
    verb = text.split(" ", 1)[0]
    if verb == "add":
        found = match(_ADD.pattern, text, "something to add, and where")
        where = _WHERE.findall(found[3] or "")
        return Add(
            thing=read_noun(found[1], a),
            relations=tuple((RELATION_OF[relation], _ref(noun)) for relation, noun in where),
            spot=_SPOTS[found[2]] if found[2] else None,
        )
    if verb in ("change", "make"):
        pattern = rf"(?:change ({NOUN}) to|make ({NOUN})) ({'|'.join(_VALUES)})"
        found = match(pattern, text, "something to change, and to what")
        return Change(target=_ref(found[1] or found[2]), value=_VALUES[found[3]])
    if verb == "replace":
        found = match(rf"replace ({NOUN}) with ({NOUN})", text, "something to replace, with what")
        return Replace(target=_ref(found[1]), thing=read_noun(found[2], a))
    if verb == "remove":
        return Remove(target=_ref(match(rf"remove ({NOUN})", text, "something to remove")[1]))
    if verb == "move":
        pattern = rf"move ({NOUN}) (?:(?:to the )?({RELATION}) ({NOUN})|to the ({_SPOT}))"
        found = match(pattern, text, "something to move, and where to")
        target = _ref(found[1])
        if found[4]:
            return Move(target=target, to=_SPOTS[found[4]])
        return Move(target=target, to=(RELATION_OF[found[2]], _ref(found[3])))
    if verb == "swap":
        found = match(rf"swap ({NOUN}) and ({NOUN})", text, "two things to swap")
        return Swap(first=_ref(found[1]), second=_ref(found[2]))
    raise GrammarError(text, "an instruction")


def _ref(text: str) -> Ref:
    return Ref(thing=read_noun(text, the, some), any_of=not text.startswith("the "))
