"""What a picture of the miniature world holds: shapes on a small, lightly coloured canvas.

A scene is exact: integer centres, named kinds, colours and sizes. `place` finds room for shapes
under relations, so that every relation holds by GenEval's own rule with a margin to spare.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

CANVAS_PX = 48
"""Side of the square canvas in pixels."""

Kind = Literal[
    "circle", "square", "triangle", "star", "cross", "ring",
    "heart", "diamond", "crescent", "hexagon", "arrow", "drop",
]  # fmt: skip
Color = Literal[
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"
]
Size = Literal["small", "large"]
RelationName = Literal["left of", "right of", "above", "below"]

KINDS: tuple[Kind, ...] = get_args(Kind)
COLORS: tuple[Color, ...] = get_args(Color)
SIZES: tuple[Size, ...] = get_args(Size)
RELATIONS: tuple[RelationName, ...] = get_args(RelationName)

DIAMETER_PX: dict[Size, int] = {"small": 13, "large": 21}
"""Side of a shape's box in pixels; odd, so that an integer centre is exact."""

PALETTE: dict[Color, tuple[int, int, int]] = {
    "red": (220, 25, 30),
    "orange": (255, 140, 10),
    "yellow": (250, 230, 40),
    "green": (30, 160, 50),
    "blue": (30, 80, 230),
    "purple": (130, 40, 190),
    "pink": (255, 130, 190),
    "brown": (125, 70, 20),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
"""GenEval's ten colours as 8-bit RGB."""

_FIRST_SEAT_PX: dict[Size, int] = {"small": 8, "large": 12}
_SEAT_STEP_PX = 8

BACKGROUND_RANGE = (160, 184)
"""Channels of a background, 8 bit: mid grey, far from white and black alike."""

MIN_GAP_PX = 2
"""Free pixels between the boxes of two shapes."""
_TRIES = 30
"""Seats that are tried for an item before a layout is given up."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One object. `x`, `y` are its centre in pixels from the top left corner."""

    kind: Kind
    color: Color
    size: Size
    x: int
    y: int

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("kind", self.kind, KINDS), ("color", self.color, COLORS), ("size", self.size, SIZES),
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"shape {name} {value!r}; expected one of {', '.join(allowed)}")
        left, top, right, bottom = self.box
        if left < 0 or top < 0 or right > CANVAS_PX or bottom > CANVAS_PX:
            raise ValueError(
                f"{self.size} {self.kind} at ({self.x}, {self.y}) leaves the "
                f"{CANVAS_PX}x{CANVAS_PX} canvas"
            )

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels, right and bottom exclusive."""
        half = DIAMETER_PX[self.size] // 2
        return self.x - half, self.y - half, self.x + half + 1, self.y + half + 1


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Shapes in drawing order over an 8-bit RGB background."""

    shapes: tuple[Shape, ...]
    background: tuple[int, int, int] = (172, 172, 172)


@dataclass(frozen=True, kw_only=True)
class Item:
    """A shape that has no place yet; a size of None leaves it to the dice."""

    kind: Kind
    color: Color
    size: Size | None = None


def seats(size: Size) -> tuple[int, ...]:
    """Where centres of placed shapes lie on either axis, in pixels.

    A shape always lies in the same way over the model's 8-pixel tokens. With free centres each
    silhouette had 64 forms to learn, and a miniature trained for an hour learned none of them;
    exact rendering, detection and relations do not need seats and accept any centre.
    """
    first = _FIRST_SEAT_PX[size]
    return tuple(range(first, CANVAS_PX - first + 1, _SEAT_STEP_PX))


def sample_background(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a background colour: a grey with a slight tint."""
    low, high = BACKGROUND_RANGE
    r, g, b = (int(v) for v in rng.integers(low, high + 1, 3))
    return r, g, b


def boxes_apart(a: Shape, b: Shape) -> bool:
    """Whether the boxes of two shapes lie `MIN_GAP_PX` or more apart on one axis."""
    reach = (DIAMETER_PX[a.size] + DIAMETER_PX[b.size]) // 2 + MIN_GAP_PX
    return abs(a.x - b.x) >= reach or abs(a.y - b.y) >= reach


def holds(relation: RelationName, a: Shape, b: Shape, margin: float = 0.0) -> bool:
    """Whether `a relation b` holds by GenEval's rule on the shapes' boxes.

    The offset of the centres is shrunk by a tenth of the summed sizes per axis; its share of
    the unshrunk distance must pass 0.5 (Ghosh et al., arXiv:2310.11513, `relative_position`).

    Args:
        relation: Which relation.
        a: The shape that is placed.
        b: The shape it is placed against.
        margin: Added to the threshold of 0.5, in [0, 0.5).
    """
    dx, dy = a.x - b.x, a.y - b.y
    shrink = 0.1 * (DIAMETER_PX[a.size] + DIAMETER_PX[b.size])
    distance = math.hypot(dx, dy)
    if distance == 0:
        return False
    x = math.copysign(max(abs(dx) - shrink, 0.0), dx) / distance
    y = math.copysign(max(abs(dy) - shrink, 0.0), dy) / distance
    share = {"left of": -x, "right of": x, "above": -y, "below": y}
    return share[relation] > 0.5 + margin


def scatter(count: int, rng: np.random.Generator) -> Scene | None:
    """Draw so many shapes of any class and colour, none touching another; None without room."""
    items = [
        Item(kind=KINDS[rng.integers(len(KINDS))], color=COLORS[rng.integers(len(COLORS))])
        for _ in range(count)
    ]
    shapes = place(items, rng)
    if shapes is None:
        return None
    return Scene(shapes=shapes, background=sample_background(rng))


def place(
    items: Sequence[Item],
    rng: np.random.Generator,
    *,
    relations: Sequence[tuple[int, RelationName, int]] = (),
    fixed: Sequence[Shape] = (),
    first: Callable[[Shape], bool] = lambda shape: True,
    attempts: int = 400,
) -> tuple[Shape, ...] | None:
    """Find centres for `items`, clear of each other and of `fixed`, so that relations hold.

    Args:
        items: Shapes to place. A size of None is drawn, small being tried when large won't fit.
        rng: Source of every choice.
        relations: `(a, relation, b)` with indices into `fixed + items`; related pairs also
            avoid the diagonal, so that one relation holds and not two.
        fixed: Shapes that stay where they are.
        first: What else is asked of the first item; of the same shape always the same answer.
        attempts: How many whole layouts to try.

    Returns:
        The placed items in order, or None when no layout was found.
    """
    # Where there is no room, the same few seats are tried thousands of times.
    refused: dict[tuple[Size | Shape, ...], set[tuple[int, int]]] = defaultdict(set)
    for attempt in range(attempts):
        placed = list(fixed)
        for item in items:
            size = item.size or ("large" if rng.random() < 0.6 and attempt < 200 else "small")
            free = seats(size)
            known = refused[size, *placed[len(fixed) :]]
            state = rng.bit_generator.state
            # All tries at once: one by one, drawing them took longer than all else.
            drawn = rng.integers(len(free), size=(_TRIES, 2)).tolist()
            for tries, (column, row) in enumerate(drawn, 1):
                if (column, row) in known:
                    continue
                shape = Shape(
                    kind=item.kind, color=item.color, size=size, x=free[column], y=free[row]
                )
                known.add((column, row))
                if not all(boxes_apart(shape, other) for other in placed):
                    continue
                if len(placed) == len(fixed) and not first(shape):
                    continue
                placed.append(shape)
                if all(
                    holds(relation, placed[a], placed[b], margin=0.15)
                    for a, relation, b in relations
                    if max(a, b) == len(placed) - 1
                ):
                    known.remove((column, row))
                    # As if the tries after it had never been drawn.
                    rng.bit_generator.state = state
                    rng.integers(len(free), size=(tries, 2))
                    break
                placed.pop()
            else:
                break
        if len(placed) == len(fixed) + len(items):
            return tuple(placed[len(fixed) :])
    return None
