"""Triples as they are imported, from whatever holds them, each read when its turn comes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from staged import images, protocol
from staged.tables import BadRowError
from staged.trajectory import MAX_TEXT_CHARS

MIN_REFLECTION_CHARS = 5
"""Shorter ones say nothing, such as `none`; so the published data set's own reader has it."""


@dataclass(frozen=True, kw_only=True)
class Triple:
    """An image of a prompt, what somebody said about it, and a better one.

    Attributes:
        prompt: What both images are of: a prompt, or a plan's description.
        good: Encoded bytes of the better image.
        bad: Encoded bytes of the other; None where there is none.
        reflection: What is wrong with it, by whoever made the triple; None where nobody said.
        subset: Name of the part of its data set, where it has one.
        place: File and key, for messages and provenance.
        facts: Of whoever made it, for provenance.
    """

    prompt: str
    good: bytes
    bad: bytes | None
    reflection: str | None
    place: str
    subset: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what comes from outside, before money is spent on it.

        Raises:
            BadRowError: the prompt is no text for a sequence, or an image does not decode.
        """
        try:
            protocol.check_text(self.prompt)
        except ValueError as error:
            raise BadRowError("bad prompt", self.place, str(error)) from None
        for name, data in (("good", self.good), ("bad", self.bad)):
            if data is not None:
                try:
                    images.decode(data)
                except ValueError as error:
                    detail = f"the {name} one: {error}"
                    raise BadRowError("bad image", self.place, detail) from None


class TripleSource(Protocol):
    """Triples in a fixed order."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def prompt(self, number: int) -> str:
        """Read the prompt of one, without its images.

        Raises:
            BadRowError: it cannot be read.
        """
        ...

    def triple(self, number: int) -> Triple:
        """Read one.

        Raises:
            BadRowError: it cannot be read.
        """
        ...


class Triples:
    """Triples of several sources, one source after another."""

    def __init__(self, sources: Sequence[tuple[TripleSource, int | None]]) -> None:
        """Take sources, each with the most triples to take of it."""
        self._parts = [
            (source, len(source) if most is None else min(most, len(source)))
            for source, most in sources
        ]

    def __len__(self) -> int:
        """Return how many there are in all."""
        return sum(number for _, number in self._parts)

    def prompt(self, number: int) -> str:
        """Read the prompt of one."""
        source, inside = self._find(number)
        return source.prompt(inside)

    def triple(self, number: int) -> Triple:
        """Read one."""
        source, inside = self._find(number)
        return source.triple(inside)

    def _find(self, number: int) -> tuple[TripleSource, int]:
        for source, count in self._parts:
            if number < count:
                return source, number
            number -= count
        raise IndexError(f"triple {number} beyond the last one")


def reflection_of(text: str | None) -> str | None:
    """Return what was said of the worse image, if it is long enough to say anything."""
    text = (text or "").strip()
    return text[:MAX_TEXT_CHARS] if len(text) >= MIN_REFLECTION_CHARS else None
