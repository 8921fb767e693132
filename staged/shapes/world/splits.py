"""What training never shows: combinations kept for tests of composition, and facts for knowledge.

The rules are Latin patterns, so that every kind, colour, relation and number occurs in training.
"""

from __future__ import annotations

from staged.shapes.world.facts import FACTS, Fact
from staged.shapes.world.scene import COLORS, KINDS, RELATIONS, Color, Kind, RelationName
from staged.shapes.world.spec import INVERSE, Spec


def held_out_pair(color: Color, kind: Kind) -> bool:
    """Whether training never shows a shape of this kind in this colour (14 of 120 pairs)."""
    return (5 * COLORS.index(color) + KINDS.index(kind)) % 9 == 0


def held_out_relation(relation: RelationName, kind: Kind) -> bool:
    """Whether training never shows a shape of this kind standing in this relation (6 of 48)."""
    return (3 * RELATIONS.index(relation) + KINDS.index(kind)) % 8 == 0


def held_out_number(number: int, kind: Kind) -> bool:
    """Whether training never asks for so many of a kind (4 of the 36 with two to four)."""
    return number > 1 and (number + KINDS.index(kind)) % 9 == 2


def held_out_fact(fact: Fact) -> bool:
    """Whether no training prompt rests on a fact (4 of 30, three colours and one number)."""
    return FACTS.index(fact) % 8 == 3


def is_held_out(spec: Spec, fact: Fact | None = None) -> bool:
    """Whether a specification has anything that training never shows.

    A relation counts from both its ends: a ring right of a star is a star left of a ring.
    """
    return (
        any(t.color is not None and held_out_pair(t.color, t.kind) for t in spec.things)
        or any(held_out_number(t.number, t.kind) for t in spec.things)
        or any(
            held_out_relation(relation, spec.things[a].kind)
            or held_out_relation(INVERSE[relation], spec.things[b].kind)
            for a, relation, b in spec.relations
        )
        or (fact is not None and held_out_fact(fact))
    )
