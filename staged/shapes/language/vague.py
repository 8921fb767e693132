"""Ideas that leave open what a prompt must say, drawn by a generator, kind by kind.

    open_kind       something small and red          something the colour of coal
    open_pair       something red and something blue
    several         three green things
    beside          something red next to a star
    placed          something yellow above a ring
    among           a star, and something pink and a heart

They are to the miniature world what ideas are to a text-to-image model: a person knows at once
which pictures would do, and the model was never taught these words.

Riddles are ideas whose pictures the shipped base can draw, if only they are asked for in its words:

    named_riddle    a star the colour of coal
    riddle_pair     something red and something the colour of a lemon
    riddles         three things the colour of grass
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from staged.shapes.language.phrases import NUMBERS, a
from staged.shapes.world.facts import FACTS, ColorFact
from staged.shapes.world.scene import COLORS, KINDS, RELATIONS, SIZES, Color
from staged.shapes.world.spec import Thing

IdeaKind = Literal["open_kind", "open_pair", "several", "beside", "placed", "among"]
RiddleKind = Literal["named_riddle", "riddle_pair", "riddles"]
IDEA_KINDS: tuple[IdeaKind, ...] = get_args(IdeaKind)
RIDDLE_KINDS: tuple[RiddleKind, ...] = get_args(RiddleKind)
_MAX_IDLE = 500
_SUBJECTS = tuple(fact.subject for fact in FACTS if isinstance(fact, ColorFact))
_NAMES = {
    color: [fact.subject for fact in FACTS if isinstance(fact, ColorFact) and fact.color == color]
    for color in COLORS
}


def sample_ideas(kind: IdeaKind | RiddleKind, number: int, rng: np.random.Generator) -> list[str]:
    """Draw different ideas of a kind.

    Args:
        kind: Which.
        number: At least 1; fewer come where the kind has no more.
        rng: Source of every choice.
    """
    found: dict[str, None] = {}
    idle = 0
    while len(found) < number and idle < _MAX_IDLE:
        idea = _draw(kind, rng)
        idle = idle + 1 if idea in found else 0
        found.setdefault(idea)
    return list(found)


def _draw(kind: IdeaKind | RiddleKind, rng: np.random.Generator) -> str:
    first, second = (COLORS[i] for i in rng.choice(len(COLORS), 2, replace=False))
    thing, other = (a(Thing(kind=KINDS[i])) for i in rng.choice(len(KINDS), 2, replace=False))
    match kind:
        case "open_kind" if rng.random() < 0.5:
            return f"something the colour of {_SUBJECTS[rng.integers(len(_SUBJECTS))]}"
        case "open_kind":
            return f"something {SIZES[rng.integers(len(SIZES))]} {first}"
        case "open_pair":
            return f"something {first} and something {second}"
        case "several":
            return f"{NUMBERS[rng.integers(1, 3)]} {first} things"
        case "beside":
            return f"something {first} next to {thing}"
        case "placed":
            return f"something {first} {RELATIONS[rng.integers(len(RELATIONS))]} {thing}"
        case "among":
            return f"{thing}, and something {first} and {other}"
        case "named_riddle":
            return f"{thing} the colour of {_SUBJECTS[rng.integers(len(_SUBJECTS))]}"
        case "riddle_pair":
            return f"something {_hint(first, rng)} and something {_hint(second, rng)}"
        case "riddles":
            number, noun = NUMBERS[rng.integers(1, 3)], ("things", "shapes")[rng.integers(2)]
            hint = _hint(first, rng)
            return f"{number} {hint} {noun}" if hint == first else f"{number} {noun} {hint}"


def _hint(color: Color, rng: np.random.Generator) -> str:
    """A colour by its name, or by what has it."""
    hints = [color, *(f"the colour of {name}" for name in _NAMES[color])]
    return hints[rng.integers(len(hints))]
