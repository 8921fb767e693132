"""Which things are drawn side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def units(things: Sequence[T], size: int) -> list[tuple[T, ...]]:
    """Cut into runs of `size`, the last one shorter: what is drawn side by side.

    They are cut before anything is left out or shared, because the last digits of what pipelines
    of others draw depend on how many are drawn along with it; our own model's do not.

    Raises:
        ValueError: the size is below 1.
    """
    if size < 1:
        raise ValueError(f"batch is {size}; give at least 1")
    return [tuple(things[first : first + size]) for first in range(0, len(things), size)]
