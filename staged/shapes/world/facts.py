"""What everybody knows: facts that stand in a prompt for a colour or a number."""

from __future__ import annotations

from dataclasses import dataclass

from staged.shapes.world.scene import Color


@dataclass(frozen=True, kw_only=True)
class ColorFact:
    """Something that has one colour: "a circle the colour of a ripe banana"."""

    subject: str
    color: Color


@dataclass(frozen=True, kw_only=True)
class NumberFact:
    """Something that has so many of something: "as many stars as a tricycle has wheels"."""

    subject: str
    part: str
    number: int


Fact = ColorFact | NumberFact

_COLORS: dict[Color, tuple[str, ...]] = {
    "red": ("a ripe tomato", "a strawberry"),
    "orange": ("a carrot", "a pumpkin"),
    "yellow": ("a ripe banana", "a lemon"),
    "green": ("grass", "a frog"),
    "blue": ("a clear sky", "the sea"),
    "purple": ("lavender", "an eggplant"),
    "pink": ("a flamingo", "a piglet"),
    "brown": ("chocolate", "coffee"),
    "black": ("coal", "a raven"),
    "white": ("snow", "milk"),
}

_NUMBERS: tuple[tuple[str, str, int], ...] = (
    ("a bicycle", "wheels", 2),
    ("a bird", "wings", 2),
    ("a face", "eyes", 2),
    ("a tricycle", "wheels", 3),
    ("a triangle", "sides", 3),
    ("a clover", "leaves", 3),
    ("a car", "wheels", 4),
    ("a dog", "legs", 4),
    ("a year", "seasons", 4),
    ("a square", "corners", 4),
)

FACTS: tuple[Fact, ...] = (
    *(ColorFact(subject=s, color=color) for color, some in _COLORS.items() for s in some),
    *(NumberFact(subject=s, part=part, number=number) for s, part, number in _NUMBERS),
)
"""Thirty facts, colours first."""
