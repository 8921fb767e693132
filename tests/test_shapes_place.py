"""Places for shapes: the quick search finds what a plain one finds, and leaves the same dice."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from staged.shapes.world.scene import (
    KINDS,
    Item,
    RelationName,
    Shape,
    boxes_apart,
    holds,
    place,
    seats,
)

RELATIONS: tuple[RelationName, ...] = ("left of", "right of", "above", "below")


def plainly(
    items: Sequence[Item],
    rng: np.random.Generator,
    relations: Sequence[tuple[int, RelationName, int]],
    fixed: Sequence[Shape],
    first: Callable[[Shape], bool],
    attempts: int,
) -> tuple[Shape, ...] | None:
    """Draw a seat, look whether it will do, and draw the next."""

    def seated(item: Item, placed: Sequence[Shape], attempt: int) -> Shape | None:
        size = item.size or ("large" if rng.random() < 0.6 and attempt < 200 else "small")
        for _ in range(30):
            x, y = (seats(size)[i] for i in rng.integers(len(seats(size)), size=2))
            shape = Shape(kind=item.kind, color=item.color, size=size, x=x, y=y)
            all_of_them = [*placed, shape]
            if (
                all(boxes_apart(shape, other) for other in placed)
                and (len(placed) > len(fixed) or first(shape))
                and all(
                    holds(relation, all_of_them[a], all_of_them[b], margin=0.15)
                    for a, relation, b in relations
                    if max(a, b) == len(placed)
                )
            ):
                return shape
        return None

    for attempt in range(attempts):
        placed = list(fixed)
        for item in items:
            shape = seated(item, placed, attempt)
            if shape is None:
                break
            placed.append(shape)
        else:
            return tuple(placed[len(fixed) :])
    return None


@pytest.mark.parametrize("seed", range(30))
def test_a_layout_is_the_one_that_trying_seat_after_seat_finds(seed: int) -> None:
    dice = np.random.default_rng(seed)
    fixed = place([Item(kind="star", color="red")] * int(dice.integers(3)), dice) or ()
    sizes = (None, "small", "large")
    items = [
        Item(kind=KINDS[dice.integers(len(KINDS))], color="blue", size=sizes[dice.integers(3)])
        for _ in range(dice.integers(1, 5))
    ]
    several = len(fixed) + len(items) > 1
    pairs = [dice.choice(len(fixed) + len(items), 2, replace=False) for _ in range(several)]
    relations = [(int(a), RELATIONS[dice.integers(4)], int(b)) for a, b in pairs]
    column = dice.choice(seats("small"))
    quick, plain = np.random.default_rng(seed), np.random.default_rng(seed)
    found = place(
        items, quick, relations=relations, fixed=fixed, first=lambda s: s.x != column, attempts=9
    )
    assert found == plainly(items, plain, relations, fixed, lambda s: s.x != column, 9)
    assert quick.bit_generator.state == plain.bit_generator.state
