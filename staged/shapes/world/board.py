"""Seats on a board of three by three: whether relations can all hold, and a layout that keeps them.

Small shapes fit on every square at once, so whatever has seats can be drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from staged.shapes.world.scene import CANVAS_PX, RelationName

SIDE = 3
SQUARE_PX = CANVAS_PX // SIDE

Relations = tuple[tuple[int, RelationName, int], ...]


def seat(num: int, relations: Relations, order: Sequence[int]) -> list[int] | None:
    """Find a square for each of `num` shapes so that every relation holds along a row or column.

    Args:
        num: Shapes, at most 9.
        relations: `(a, relation, b)` by index.
        order: The squares 0 to 8 (row by row) in the order to try them.

    Returns:
        A square each, or None when there is no way.
    """
    return _seat_rest(num, relations, order, [])


@lru_cache(maxsize=4096)
def feasible(num: int, relations: Relations) -> bool:
    """Whether there is any way to seat `num` shapes."""
    return seat(num, relations, range(SIDE * SIDE)) is not None


def center(square: int) -> tuple[int, int]:
    """The middle of a square in pixels."""
    row, column = divmod(square, SIDE)
    return column * SQUARE_PX + SQUARE_PX // 2, row * SQUARE_PX + SQUARE_PX // 2


def shuffled(rng: np.random.Generator) -> list[int]:
    """The squares in random order."""
    return [int(square) for square in rng.permutation(SIDE * SIDE)]


def _seat_rest(
    num: int, relations: Relations, order: Sequence[int], seated: list[int]
) -> list[int] | None:
    if len(seated) == num:
        return seated
    for square in order:
        if square in seated:
            continue
        tried = [*seated, square]
        here = (r for r in relations if max(r[0], r[2]) == len(seated))
        if all(_stands(relation, tried[a], tried[b]) for a, relation, b in here):
            found = _seat_rest(num, relations, order, tried)
            if found is not None:
                return found
    return None


def _stands(relation: RelationName, a: int, b: int) -> bool:
    (row_a, column_a), (row_b, column_b) = divmod(a, SIDE), divmod(b, SIDE)
    match relation:
        case "left of":
            return row_a == row_b and column_a < column_b
        case "right of":
            return row_a == row_b and column_a > column_b
        case "above":
            return column_a == column_b and row_a < row_b
        case "below":
            return column_a == column_b and row_a > row_b
