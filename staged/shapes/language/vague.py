"""Ideas that leave open what a prompt must say, drawn by a generator, kind by kind.

    open_kind       something small and red          something the colour of coal
    open_pair       something red and something blue
    several         three green things
    beside          something red next to a star
    placed          something yellow above a ring
    among           a star, and something pink and a heart

They are to the miniature world what ideas are to a text-to-image model: a person knows at once
which pictures would do, and the model was never taught these words.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from staged.shapes.language.phrases import NUMBERS, a
from staged.shapes.world.facts import FACTS, ColorFact
from staged.shapes.world.scene import COLORS, KINDS, RELATIONS, SIZES
from staged.shapes.world.spec import Thing

IdeaKind = Literal["open_kind", "open_pair", "several", "beside", "placed", "among"]
IDEA_KINDS: tuple[IdeaKind, ...] = get_args(IdeaKind)
_MAX_IDLE = 500
_SUBJECTS = tuple(fact.subject for fact in FACTS if isinstance(fact, ColorFact))


def sample_ideas(kind: IdeaKind, number: int, rng: np.random.Generator) -> list[str]:
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


def _draw(kind: IdeaKind, rng: np.random.Generator) -> str:
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
