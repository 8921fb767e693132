"""Prompts and descriptions: a specification as a sentence, and back.

    a photo of a star                                       single_object
    a photo of a star and a ring                            two_object
    a photo of three hearts                                 counting
    a photo of a blue drop                                  colors
    a photo of a star left of a ring                        position
    a photo of a red star and a blue ring                   color_attr
    a photo of a red star left of a blue ring               position_attr
    a photo of a red star left of a blue ring, and a green heart below the red star
                                                            composition
    a photo of a circle the colour of a ripe banana         knowledge
    a photo of as many stars as a tricycle has wheels       knowledge

The first six are GenEval's (arXiv:2310.11513). A description is the same without its first words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

from staged.shapes.language.phrases import (
    NOUN,
    RELATION,
    RELATION_OF,
    GrammarError,
    a,
    exactly,
    match,
    read_noun,
    read_words,
    the,
    words_of,
)
from staged.shapes.world.facts import FACTS, ColorFact, Fact, NumberFact
from staged.shapes.world.scene import Kind, RelationName
from staged.shapes.world.spec import Spec, Thing

LEAD = "a photo of "
"""How every prompt begins."""

_EMPTY = "an empty picture"
_CLAUSE = rf"({NOUN})(?: ({RELATION}) ({NOUN}))?"
_COLORED = {f.subject: f for f in FACTS if isinstance(f, ColorFact)}
_COUNTED = {(f.subject, f.part): f for f in FACTS if isinstance(f, NumberFact)}


@dataclass(frozen=True, kw_only=True)
class PromptMeaning:
    """What a prompt means: a specification, and the fact that stands for a part of it."""

    spec: Spec
    fact: Fact | None = None

    def __post_init__(self) -> None:
        match self.fact, self.spec.things:
            case None, _:
                return
            case ColorFact(color=color), (thing,) if thing == Thing(kind=thing.kind, color=color):
                return
            case NumberFact(number=number), (thing,) if thing.number == number:
                return
        raise ValueError(f"{self.fact} says nothing about {self.spec}; expected its one thing")

    @classmethod
    def of_fact(cls, fact: Fact, kind: Kind) -> Self:
        """Mean things of a class that are as a fact says."""
        if isinstance(fact, ColorFact):
            return cls(spec=Spec(things=(Thing(kind=kind, color=fact.color),)), fact=fact)
        return cls(spec=Spec(things=(Thing(kind=kind, number=fact.number),)), fact=fact)


def describe(spec: Spec) -> str:
    """Say what a picture holds: "a red circle above a blue star".

    Things are introduced as relations come to them, then the rest in order.

    Raises:
        ValueError: A relation would have to refer to one of several that are described alike.
    """
    said: set[int] = set()
    counts: dict[Thing, int] = {}

    def mention(index: int) -> str:
        thing = spec.things[index]
        if index not in said:
            said.add(index)
            counts[thing] = counts.get(thing, 0) + 1
            return a(thing)
        if counts[thing] > 1:
            raise ValueError(f"{the(thing)!r} could be several things of {spec}")
        return the(thing)

    clauses = [f"{mention(i)} {relation} {mention(j)}" for i, relation, j in spec.relations]
    clauses += [mention(index) for index in range(len(spec.things)) if index not in said]
    if not clauses:
        return _EMPTY
    if len(clauses) == 1:
        return clauses[0]
    joint = ", and " if spec.relations else " and "
    return ", ".join(clauses[:-1]) + joint + clauses[-1]


def read_description(text: str) -> Spec:
    """Read what `describe` writes; the specification comes back in its normal order.

    Raises:
        GrammarError: The text is anything else.
    """
    if text == _EMPTY:
        return Spec()
    things: list[Thing] = []
    relations: list[tuple[int, RelationName, int]] = []

    def mentioned(phrase: str) -> int:
        thing = read_noun(phrase, a, the)
        if phrase.startswith("the "):
            if thing not in things:
                raise GrammarError(text, f"a description: {phrase!r} comes out of nowhere")
            return things.index(thing)
        things.append(thing)
        return len(things) - 1

    for clause in re.split(r", and |, | and ", text):
        found = match(_CLAUSE, clause, "a shape, or a shape, a relation and a shape")
        index = mentioned(found[1])
        if found[2] is not None:
            relations.append((index, RELATION_OF[found[2]], mentioned(found[3])))
    try:
        spec = Spec(things=tuple(things), relations=tuple(relations))
        return exactly(spec, describe, text, "a description")
    except GrammarError:
        raise
    except ValueError as error:
        raise GrammarError(text, f"a description: {error}") from None


def write_prompt(request: PromptMeaning | Spec) -> str:
    """Ask for a picture.

    Raises:
        ValueError: As `describe`.
    """
    if isinstance(request, Spec):
        return LEAD + describe(request)
    match request.fact:
        case ColorFact(subject=subject):
            plain = replace(request.spec.things[0], color=None)
            return f"{LEAD}{a(plain)} the colour of {subject}"
        case NumberFact(subject=subject, part=part):
            words = words_of(request.spec.things[0])
            return f"{LEAD}as many {words} as {subject} has {part}"
        case None:
            return LEAD + describe(request.spec)


def read_prompt(text: str) -> PromptMeaning:
    """Read what `write_prompt` writes.

    Raises:
        GrammarError: The text is anything else, or rests on a fact that is not in `FACTS`.
    """
    if not text.startswith(LEAD):
        raise GrammarError(text, f"a prompt: it begins with {LEAD!r}")
    rest = text.removeprefix(LEAD)
    if found := re.fullmatch(r"(.+) the colour of (.+)", rest):
        fact = _COLORED.get(found[2])
        if fact is None:
            raise GrammarError(text, "a prompt: nobody knows that colour")
        thing = replace(read_noun(found[1], a), color=fact.color)
        request = PromptMeaning(spec=Spec(things=(thing,)), fact=fact)
    elif found := re.fullmatch(r"as many (.+) as (.+) has (\w+)", rest):
        count = _COUNTED.get((found[2], found[3]))
        if count is None:
            raise GrammarError(text, "a prompt: nobody knows that number")
        thing = read_words(found[1].split(" "), count.number)
        request = PromptMeaning(spec=Spec(things=(thing,)), fact=count)
    else:
        request = PromptMeaning(spec=read_description(rest))
    return exactly(request, write_prompt, text, "a prompt")
