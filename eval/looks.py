"""Looking at an image: what comes of it, or why it has no score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, TypeVar

from staged import images
from staged.model.finite import NotFiniteError
from staged.roles import Pixels

T = TypeVar("T")


class Unscored(TypedDict, total=False):
    """Why an image has no score, as lines of scores and answers have it; empty where it has one.

    Attributes:
        reason: In few words, to count by.
        detail: Of this image.
    """

    reason: str
    detail: str


def look(path: Path, at: Callable[[Pixels], T]) -> tuple[T | None, Unscored]:
    """Look at an image.

    Args:
        path: Of the image.
        at: What is made of its pixels.

    Returns:
        What was made of it, and why nothing was: it is no image, or numbers were not finite.
    """
    try:
        pixels = images.decode_file(path)
    except ValueError as error:
        return None, Unscored(reason="broken image", detail=str(error)[:500])
    try:
        return at(pixels), Unscored()
    except NotFiniteError as error:
        return None, Unscored(reason=error.reason, detail=str(error))
