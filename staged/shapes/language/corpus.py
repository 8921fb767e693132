"""Sentences that hold every word of the language in every position it can take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from staged.shapes.language.critiques import (
    PlanCritique,
    write_plan_critique,
    write_sketch_critique,
)
from staged.shapes.language.faults import (
    Contradiction,
    Extra,
    Missing,
)
from staged.shapes.language.instructions import (
    SPOTS,
    Add,
    Move,
    Ref,
    Remove,
    write_edits,
)
from staged.shapes.language.prompts import (
    PromptMeaning,
    describe,
    write_prompt,
)
from staged.shapes.language.sentences import (
    sample_any_spec,
    sample_edit,
    sample_fault,
    sample_plan_critique,
)
from staged.shapes.world.facts import FACTS
from staged.shapes.world.scene import COLORS, KINDS, RELATIONS, SIZES
from staged.shapes.world.spec import MAX_NUMBER, Spec, Thing


def corpus(seed: int = 0, num_random: int = 2000) -> Iterator[str]:
    """Sentences that hold every word of the language in every position it can take.

    First whatever can be listed (each kind, colour, size, number, relation, spot and fact in
    each form), then random sentences of all forms.

    Args:
        seed: Decides the random ones.
        num_random: How many random ones of each form.
    """
    for thing in _every_thing():
        yield from _about(thing)
    for fact in FACTS:
        for kind in KINDS:
            yield write_prompt(PromptMeaning.of_fact(fact, kind))
    rng = np.random.default_rng(seed)
    for _ in range(num_random):
        spec = sample_any_spec(rng)
        yield write_prompt(spec)
        yield describe(spec)
        yield write_edits([sample_edit(rng)])
        yield write_edits([sample_edit(rng)], "refinement")
        yield write_sketch_critique([sample_fault(rng) for _ in range(rng.integers(3))])
        yield write_plan_critique(sample_plan_critique(rng))


def _every_thing() -> Iterator[Thing]:
    for kind in KINDS:
        yield from (Thing(kind=kind, number=number) for number in range(1, MAX_NUMBER + 1))
        yield from (Thing(kind=kind, color=color) for color in COLORS)
        yield from (Thing(kind=kind, size=size, color="red") for size in SIZES)


def _about(thing: Thing) -> Iterator[str]:
    """Every form of sentence about one thing, with every relation and spot."""
    ref, ring = Ref(thing=thing), Thing(kind="ring", color="blue")
    yield write_prompt(Spec(things=(thing,)))
    yield write_edits([Add(thing=thing)])
    yield write_edits([Remove(target=ref)])
    yield write_edits([Remove(target=replace(ref, any_of=True))])
    yield from (write_edits([Add(thing=thing, spot=spot)]) for spot in SPOTS)
    yield from (write_edits([Move(target=ref, to=spot)]) for spot in SPOTS)
    for relation in RELATIONS:
        yield write_edits([Move(target=ref, to=(relation, Ref(thing=ring)))])
        if thing.number == 1:
            yield write_prompt(Spec(things=(thing, ring), relations=((0, relation, 1),)))
    yield write_sketch_critique([Missing(thing=thing)])
    yield write_sketch_critique([Extra(thing=thing)])
    yield write_plan_critique(PlanCritique(pending=(thing,)))
    yield write_plan_critique(PlanCritique(faults=(Contradiction(said=thing, asked=None),)))
