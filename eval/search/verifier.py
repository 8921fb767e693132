"""What a verifier is: something that rates pictures of a prompt, the better the higher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from staged.roles import Pixels

NOT_SELF_TESTED = ", not self-tested"
"""What the name of a detector ends with that nobody tested; see `staged eval detect`."""


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What a picture got.

    Attributes:
        value: Finite; None where it could not be rated.
        reason: Why not.
    """

    value: float | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Rated:
    """A picture to be rated.

    Attributes:
        prompt: What it is to show.
        pixels: (h, w, 3) uint8 RGB.
    """

    prompt: str
    pixels: Pixels


class Verifier(Protocol):
    """Rates pictures."""

    @property
    def name(self) -> str:
        """Models and weights, as the result of a judge of the same kind says them."""
        ...

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        """Rate each; a rating depends on nothing but its picture."""
        ...


def is_judge(verifier: str, judge: str) -> bool:
    """Whether who chose the pictures is who scores them, by their names.

    The scores are then what the search looked for: an upper bound of what it is worth.
    """
    return bool(verifier) and verifier.removesuffix(NOT_SELF_TESTED) == judge.removesuffix(
        NOT_SELF_TESTED
    )


UPPER_BOUND = "chosen by the judge itself: an upper bound"
"""What such a result says."""
