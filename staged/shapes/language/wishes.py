"""Ideas as people tell them, which leave open what a prompt must say.

    something red next to a star
    two blue things
    a star with something green above it
    a heart the colour of a ripe banana and something white
    a star the colour of <IMG>                 of the one shape in that picture
    like <IMG>                                 what it shows, where it shows it
    like <IMG> but all blue
    like <IMG> with a red heart
    a photo of as many stars as a tricycle has wheels, or any other prompt

A wish is a thing whose kind may be open, and "next to" is left or right of. So an idea allows many
pictures, and each of its `candidates` is one of them said so that the image model can read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from staged.shapes.language.phrases import (
    NUMBERS,
    RELATION,
    RELATION_OF,
    GrammarError,
    a,
    read_words,
)
from staged.shapes.language.prompts import read_prompt
from staged.shapes.world.facts import FACTS, ColorFact
from staged.shapes.world.scene import COLORS, KINDS, SIZES, Color, Kind, RelationName, Size
from staged.shapes.world.spec import INVERSE, Spec, Thing

MARK = "<img>"
"""What stands for an image in the text of an idea, in lower case."""
MAX_WISHES = 4
_MAX_CANDIDATES = 20_000
_LEAD = re.compile(
    r"(?:(?:draw|show)(?: me)? )?(?:(?:an? |the )?(?:photo|picture|image)s? (?:of|with) )?"
)
_NEXT = r"(?:next to|beside)"
_COLOR_OF = {fact.subject: fact.color for fact in FACTS if isinstance(fact, ColorFact)}
_COLOR: dict[str, Color] = {color: color for color in COLORS}
_SIZE: dict[str, Size] = {size: size for size in SIZES}
_WITH = re.compile(rf"(.+?) with (.+?) ({RELATION}|{_NEXT}) it")
_RELATED = re.compile(rf"(.+?) ({RELATION}|{_NEXT}) (.+)")
_LIKE = re.compile(
    rf"(?:just )?like {MARK}(?:,? but(?: with)? (?:all )?(?:of it )?(\w+)|,? with (.+))?"
)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A thing that is wanted; what is None is left open."""

    kind: Kind | None = None
    color: Color | None = None
    size: Size | None = None

    def of(self, kind: Kind) -> Thing:
        """The thing that it is once its kind is chosen."""
        return Thing(kind=self.kind or kind, color=self.color, size=self.size)

    def __str__(self) -> str:
        """As a phrase."""
        words = " ".join(word for word in (self.size, self.color) if word)
        if self.kind is None:
            return f"something {words}".strip()
        return a(self.of(self.kind))


@dataclass(frozen=True, kw_only=True)
class Vision:
    """What an idea wants: single things, and relations `(a, relations, b)` of which one must hold.

    Attributes:
        wishes: Two that are alike are two things.
        relations: Between wishes by index; several names are alternatives.
    """

    wishes: tuple[Wish, ...]
    relations: tuple[tuple[int, tuple[RelationName, ...], int], ...] = ()

    @property
    def named(self) -> frozenset[Kind]:
        """Kinds that the idea names."""
        return frozenset(wish.kind for wish in self.wishes if wish.kind is not None)

    def candidates(self, kinds: Sequence[Kind] = KINDS) -> Iterator[Spec]:
        """Yield everything definite that the idea allows, at most some thousands.

        Args:
            kinds: What an open kind may be, where the idea does not name it for another thing.
        """
        # Beside a star, "something" is no star: whoever means two of a kind says so.
        others = [kind for kind in kinds if kind not in self.named]
        open_kinds = [[wish.kind] if wish.kind else others for wish in self.wishes]
        every = product(product(*open_kinds), product(*(names for _, names, _ in self.relations)))
        for chosen, told in islice(every, _MAX_CANDIDATES):
            things = (wish.of(kind) for wish, kind in zip(self.wishes, chosen, strict=True))
            relations = (
                (first, name, second)
                for (first, _, second), name in zip(self.relations, told, strict=True)
            )
            yield Spec(things=tuple(things), relations=tuple(relations)).counted()


def read_vision(text: str, seen: Sequence[Spec] = ()) -> Vision:
    """Read an idea.

    Args:
        text: In any case; each image is `MARK`.
        seen: What the images show, in order.

    Raises:
        GrammarError: It wants something that the miniature world does not have.
    """
    plain = " ".join(text.lower().split()).rstrip(".!? ")
    if not seen and (asked := _read_whole(plain)) is not None:
        return asked
    # A comma after an image stands apart from it in an idea that is told in parts.
    plain = plain.replace(" ,", ",")
    plain = plain[_LEAD.match(plain).end() :]  # type: ignore[union-attr]
    images = list(seen)
    if plain.count(MARK) != len(images):
        raise GrammarError(text, f"an idea; {len(images)} images, {plain.count(MARK)} of them said")
    vision = _read_like(plain, images, text) or _read_clauses(plain, images, text)
    if not 1 <= len(vision.wishes) <= MAX_WISHES:
        raise GrammarError(text, f"an idea of 1 to {MAX_WISHES} things")
    return vision


def _read_whole(plain: str) -> Vision | None:
    """Read a prompt of the image model, which may say more of one thing than an idea does."""
    try:
        return _vision_of(read_prompt(plain).spec)
    except GrammarError:
        return None


def _read_like(plain: str, images: list[Spec], text: str) -> Vision | None:
    found = _LIKE.fullmatch(plain)
    if found is None:
        return None
    shown = _vision_of(images.pop(0))
    if found[1] is not None:
        color = _COLOR.get(found[1])
        if color is None:
            raise GrammarError(text, f"an idea: {found[1]!r} is no colour")
        return replace(shown, wishes=tuple(replace(wish, color=color) for wish in shown.wishes))
    if found[2] is not None:
        more = _read_clauses(found[2], images, text)
        return _together(shown, more)
    return shown


def _read_clauses(plain: str, images: list[Spec], text: str) -> Vision:
    vision = Vision(wishes=())
    for clause in re.split(r", and |, | and ", plain):
        vision = _together(vision, _read_clause(clause, images, text))
    return vision


def _read_clause(clause: str, images: list[Spec], text: str) -> Vision:
    if found := _WITH.fullmatch(clause):
        # The second comes first: it stands in the relation.
        second = _read_phrase(found[1], images, text)
        first = _read_phrase(found[2], images, text)
        return _related(first, found[3], second, text)
    if found := _RELATED.fullmatch(clause):
        first = _read_phrase(found[1], images, text)
        return _related(first, found[2], _read_phrase(found[3], images, text), text)
    return Vision(wishes=_read_phrase(clause, images, text))


def _related(first: tuple[Wish, ...], name: str, second: tuple[Wish, ...], text: str) -> Vision:
    if len(first) > 1 or len(second) > 1:
        raise GrammarError(text, "an idea: relations are between single things")
    names: tuple[RelationName, ...] = ("left of", "right of")
    if name in RELATION_OF:
        names = (RELATION_OF[name],)
    return Vision(wishes=(*first, *second), relations=((0, names, 1),))


def _read_phrase(phrase: str, images: list[Spec], text: str) -> tuple[Wish, ...]:
    """Read "something red", "a small star", "two blue things", "a heart the colour of coal"."""
    phrase, _, subject = phrase.partition(" the colour of ")
    phrase, _, american = phrase.partition(" the color of ")
    color: Color | None = None
    if subject := subject or american:
        color = _color_like(subject, images, text)
    first, *rest = phrase.split(" ")
    number = NUMBERS.index(first) + 1 if first in NUMBERS else 1
    if first == "something":
        wish = _open_wish(rest, text)
    elif rest and rest[-1] in ("thing", "things", "shape", "shapes"):
        wish = _open_wish(rest[:-1], text)
    elif first in ("a", "an", "the", *NUMBERS):
        thing = read_words(rest, number)
        wish = Wish(kind=thing.kind, color=thing.color, size=thing.size)
    else:
        raise GrammarError(text, f"an idea: {phrase!r:.60} is nothing that can be drawn here")
    if color is not None and wish.color is not None:
        raise GrammarError(text, f"an idea: two colours for {phrase!r:.60}")
    return (replace(wish, color=color or wish.color),) * number


def _open_wish(words: Sequence[str], text: str) -> Wish:
    color, size = None, None
    for word in words:
        if word in _COLOR and color is None:
            color = _COLOR[word]
        elif word in _SIZE and size is None:
            size = _SIZE[word]
        else:
            raise GrammarError(text, f"an idea: {word!r:.60} is no colour and no size")
    return Wish(color=color, size=size)


def _color_like(subject: str, images: list[Spec], text: str) -> Color:
    if subject == MARK:
        shown = images.pop(0)
        colors = {thing.color for thing in shown.things if thing.color is not None}
        if len(colors) != 1:
            raise GrammarError(text, f"an idea: the image has {len(colors)} colours; show one")
        return colors.pop()
    if subject not in _COLOR_OF:
        raise GrammarError(text, "an idea: nobody knows that colour")
    return _COLOR_OF[subject]


def _vision_of(spec: Spec) -> Vision:
    """What a picture shows, as wishes."""
    first: list[int] = []
    wishes: list[Wish] = []
    for thing in spec.things:
        first.append(len(wishes))
        wishes += [Wish(kind=thing.kind, color=thing.color, size=thing.size)] * thing.number
    relations = tuple((first[a], (name,), first[b]) for a, name, b in spec.relations)
    return Vision(wishes=tuple(wishes), relations=relations)


def _together(one: Vision, other: Vision) -> Vision:
    """Both at once, each with things of its own."""
    offset = len(one.wishes)
    moved = tuple((a + offset, names, b + offset) for a, names, b in other.relations)
    return Vision(wishes=(*one.wishes, *other.wishes), relations=(*one.relations, *moved))


def turned(spec: Spec) -> Spec:
    """The same told from the other end of each relation, and other things in the other order."""
    relations = tuple((b, INVERSE[name], a) for a, name, b in spec.relations)
    order = list(reversed(range(len(spec.things)))) if not relations else None
    if order is not None:
        return Spec(things=tuple(spec.things[i] for i in order))
    return Spec(things=spec.things, relations=relations).normal()
