"""Why a drawing does not pass."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Objection:
    """Why a drawing does not pass.

    Attributes:
        reason: Short and countable.
        detail: What was seen or measured.
    """

    reason: str
    detail: str
