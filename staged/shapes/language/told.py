"""Facts told in words alone, as a language model reads of them before it ever draws.

    the colour of milk          white
    how many legs has a dog     four
    describe a pumpkin          a pumpkin is orange

No sentence names a shape, so none is a prompt, a plan or a part of one: a model that draws "a
square the colour of milk" in white after it was told this has carried knowledge from language
into a picture, which is what WISE asks of larger ones (arXiv 2503.07265).
"""

from __future__ import annotations

import numpy as np

from staged.shapes.language.phrases import NUMBERS
from staged.shapes.world.facts import FACTS, ColorFact


def draw_told(rng: np.random.Generator) -> tuple[str, str]:
    """Draw a fact, those that prompts of the train split never rest on among them.

    Args:
        rng: Chooses the fact and how it is told.

    Returns:
        What is asked, and the answer.
    """
    fact = FACTS[int(rng.integers(len(FACTS)))]
    ways: tuple[tuple[str, str], ...]
    if isinstance(fact, ColorFact):
        ways = (
            (f"the colour of {fact.subject}", fact.color),
            (f"what colour is {fact.subject}", fact.color),
            (f"describe {fact.subject}", f"{fact.subject} is {fact.color}"),
        )
    else:
        number = NUMBERS[fact.number - 1]
        ways = (
            (f"as many as {fact.subject} has {fact.part}", number),
            (f"how many {fact.part} has {fact.subject}", number),
            (f"describe {fact.subject}", f"{fact.subject} has {number} {fact.part}"),
        )
    return ways[int(rng.integers(len(ways)))]
