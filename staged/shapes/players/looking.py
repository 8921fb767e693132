"""Answers to questions about pictures, by reading them and looking: nothing else is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from staged.shapes.sight.recognition import attribute, same
from staged.shapes.world.scene import COLORS, KINDS, RELATIONS, SIZES, Scene, Shape, holds

_KIND = rf"(?:{'|'.join(KINDS)})"
_LOOK = rf"(?:{'|'.join((*COLORS, *SIZES))})"
_RELATION = rf"(?:{'|'.join(RELATIONS)})"
_NOUN = rf"(?:the|an?) (?:{_LOOK} )*{_KIND}"


@dataclass(frozen=True)
class Onlooker:
    """Looks at a picture, and perhaps at the one before it.

    Attributes:
        after: What the questions are about.
        before: The other picture.
    """

    after: Scene
    before: Scene | None = None
    named: set[str] = field(default_factory=set)
    """Kinds that questions have named."""

    def answer(self, question: str) -> bool:
        """Answer yes or no.

        Raises:
            ValueError: The question is of no form that is asked.
        """
        self.named.update(re.findall(rf"\b{_KIND}\b", question))
        shapes = self.after.shapes
        if found := re.fullmatch(rf"Is there an? ({_KIND})\?", question):
            return bool(_of(shapes, found[1]))
        if found := re.fullmatch(rf"Is there (no|exactly 1) ({_KIND})\?", question):
            return len(_of(shapes, found[2])) == (found[1] != "no")
        if found := re.fullmatch(rf"Are there (at least|exactly) (\d+) of this kind: ({_KIND})\?",
                                 question):  # fmt: skip
            number, seen = int(found[2]), len(_of(shapes, found[3]))
            return seen >= number if found[1] == "at least" else seen == number
        if found := re.fullmatch(rf"Is (?:the|at least one) ({_KIND}) ({_LOOK})\?", question):
            return bool(_of(shapes, found[1], found[2]))
        if found := re.fullmatch(rf"Are at least (\d+) of this kind ({_LOOK}): ({_KIND})\?",
                                 question):  # fmt: skip
            return len(_of(shapes, found[3], found[2])) >= int(found[1])
        if found := re.fullmatch(rf"Is ({_NOUN}) not ({_LOOK})\?", question):
            noun = _noun(shapes, found[1])
            return any(found[2] not in (shape.color, shape.size) for shape in noun)
        if found := re.fullmatch(rf"Is ({_NOUN}) ({_RELATION}) ({_NOUN})\?", question):
            relation = next(name for name in RELATIONS if name == found[2])
            first, second = _noun(shapes, found[1]), _noun(shapes, found[3])
            return any(a is not b and holds(relation, a, b) for a in first for b in second)
        if found := re.fullmatch(
            rf"Is ({_NOUN}) as it was in the other image, and in the same place\?", question
        ):
            return self._stayed(found[1]) >= 1
        if found := re.fullmatch(
            r"Are at least (\d+) of this kind as they were in the other image, and in the same "
            rf"places: ((?:{_LOOK} )*{_KIND})\?",
            question,
        ):
            return self._stayed(f"a {found[2]}") >= int(found[1])
        raise ValueError(f"question {question!r:.100} is of no form that this model knows")

    def extras(self) -> list[str]:
        """Name what is there, was not there before, and no question has named."""
        earlier = self.before.shapes if self.before else ()
        return [
            f"a {shape.color} {shape.kind}"
            for shape in self.after.shapes
            if shape.kind not in self.named and not any(same(shape, other) for other in earlier)
        ]

    def lost(self) -> list[str]:
        """Name what was there before and is not, and no question has named."""
        return [
            f"a {shape.color} {shape.kind}"
            for shape in (self.before.shapes if self.before else ())
            if shape.kind not in self.named
            and not any(same(shape, other) for other in self.after.shapes)
        ]

    def _stayed(self, noun: str) -> int:
        if self.before is None:
            return 0
        left = list(_noun(self.after.shapes, noun))
        number = 0
        for shape in _noun(self.before.shapes, noun):
            match = next((other for other in left if same(shape, other)), None)
            if match is not None:
                left.remove(match)
                number += 1
        return number


def _of(shapes: Sequence[Shape], kind: str, look: str | None = None) -> list[Shape]:
    return [s for s in shapes if s.kind == kind and look in (None, s.color, s.size)]


def _noun(shapes: Sequence[Shape], phrase: str) -> list[Shape]:
    """The shapes that a phrase names: "the small red star"."""
    *looks, kind = phrase.split(" ")[1:]
    found = _of(shapes, kind)
    for look in looks:
        of = "color" if look in COLORS else "size"
        found = [shape for shape in found if attribute(shape, of) == look]
    return found
