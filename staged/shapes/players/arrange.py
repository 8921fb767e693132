"""Edits carried out on scenes: where new things go, and what gives way to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from staged.scene_graph import SceneGraph
from staged.shapes.language import instructions as say
from staged.shapes.language.phrases import words_of
from staged.shapes.sight.recognition import recognise
from staged.shapes.world.board import center, seat, shuffled
from staged.shapes.world.scene import (
    CANVAS_PX,
    COLORS,
    RELATIONS,
    SIZES,
    Color,
    Item,
    Kind,
    RelationName,
    Scene,
    Shape,
    Size,
    boxes_apart,
    place,
    seats,
)
from staged.shapes.world.spec import Thing, thing_in
from staged.shapes.world.splits import held_out_pair

_LARGE = (0.9, 0.7, 0.5, 0.2)
"""Share of large shapes among scenes of one, two, three and more."""

_LAYOUTS = 6

Placed = tuple[RelationName, int]
"""A relation to the shape with that index."""


class NoWayError(ValueError):
    """An edit cannot be carried out.

    Attributes:
        reason: Short and countable.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the reason."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Arranger:
    """Carries out edits one by one.

    Attributes:
        rng: Source of every choice that an edit leaves open.
        goal: The scene that the picture is on its way to, to leave room for what comes; None
            where nobody said.
    """

    rng: np.random.Generator
    goal: SceneGraph | None = None

    def apply(self, scene: Scene, edit: say.Edit) -> Scene:
        """Return the scene after one edit; what the edit does not name stays where it is.

        Raises:
            NoWayError: what it names is not there, or there is no room.
        """
        match edit:
            case say.Add():
                shapes = self._add(list(scene.shapes), edit)
            case say.Change():
                shapes = self._change(list(scene.shapes), edit)
            case say.Replace():
                shapes = self._replace(list(scene.shapes), edit)
            case say.Remove():
                gone = self._find(scene.shapes, edit.target)
                shapes = [s for i, s in enumerate(scene.shapes) if i not in gone]
            case say.Move():
                shapes = self._move(list(scene.shapes), edit)
            case say.Swap():
                shapes = self._swap(list(scene.shapes), edit)
        return replace(scene, shapes=tuple(shapes))

    def _find(self, shapes: Sequence[Shape], ref: say.Ref) -> list[int]:
        """Indices of what a phrase refers to."""
        fitting = [
            i
            for i, s in enumerate(shapes)
            if ref.thing.allows(Thing(kind=s.kind, color=s.color, size=s.size))
        ]
        if len(fitting) < ref.thing.number:
            raise NoWayError("nothing to edit", f"the picture has no {ref}")
        if len(fitting) == ref.thing.number:
            return fitting
        return sorted(int(i) for i in self.rng.choice(fitting, ref.thing.number, replace=False))

    def _add(self, shapes: list[Shape], edit: say.Add) -> list[Shape]:
        color = edit.thing.color or self._color(edit.thing.kind, shapes)
        look = replace(edit.thing, color=color, number=1)
        where = [(relation, self._find(shapes, ref)[0]) for relation, ref in edit.relations]
        for _ in range(edit.thing.number):
            shapes.append(self._placed(shapes, look, where, edit.spot))
        return shapes

    def _move(self, shapes: list[Shape], edit: say.Move) -> list[Shape]:
        (index,) = self._find(shapes, edit.target)[:1]
        shape = shapes[index]
        look = Thing(kind=shape.kind, color=shape.color, size=shape.size)
        others = shapes[:index] + shapes[index + 1 :]
        if isinstance(edit.to, str):
            placed = self._placed(others, look, [], edit.to)
            return [*others[:index], placed, *others[index:]]
        relation, ref = edit.to
        against = self._find(others, ref)[0]
        try:
            placed = self._placed(others, look, [(relation, against)], None)
        except NoWayError:
            # At the edge of the canvas the two can still exchange their places.
            return self._exchanged(shapes, index, against + (against >= index))
        return [*others[:index], placed, *others[index:]]

    def _change(self, shapes: list[Shape], edit: say.Change) -> list[Shape]:
        for index in self._find(shapes, edit.target):
            old = shapes[index]
            color = next((c for c in COLORS if c == edit.value), old.color)
            size = next((s for s in SIZES if s == edit.value), old.size)
            shapes[index] = self._near(shapes, index, old.kind, color, size)
        return shapes

    def _replace(self, shapes: list[Shape], edit: say.Replace) -> list[Shape]:
        for index in self._find(shapes, edit.target):
            old, new = shapes[index], edit.thing
            color = new.color or old.color
            if new.color is None and held_out_pair(color, new.kind):
                # Nobody asked for this colour, and training may not show it on this kind.
                color = self._color(new.kind, shapes)
            shapes[index] = self._near(shapes, index, new.kind, color, new.size or old.size)
        return shapes

    def _swap(self, shapes: list[Shape], edit: say.Swap) -> list[Shape]:
        first, second = self._find(shapes, edit.first)[0], self._find(shapes, edit.second)[0]
        if first == second:
            raise NoWayError("nothing to edit", "both names are of the same shape")
        return self._exchanged(shapes, first, second)

    def _exchanged(self, shapes: list[Shape], first: int, second: int) -> list[Shape]:
        """Let each take the other's place and size, so that there is always room."""
        a, b = shapes[first], shapes[second]
        shapes[first] = replace(a, x=b.x, y=b.y, size=b.size)
        shapes[second] = replace(b, x=a.x, y=a.y, size=a.size)
        return shapes

    def _near(
        self, shapes: Sequence[Shape], index: int, kind: Kind, color: Color, size: Size
    ) -> Shape:
        """Put another shape in the place of one, or on the nearest seat where it fits."""
        old = shapes[index]
        others = [s for i, s in enumerate(shapes) if i != index]
        free = [(old.x, old.y)] if size == old.size else list(product(seats(size), repeat=2))
        for x, y in sorted(free, key=lambda at: (at[0] - old.x) ** 2 + (at[1] - old.y) ** 2):
            shape = Shape(kind=kind, color=color, size=size, x=x, y=y)
            if all(boxes_apart(shape, other) for other in others):
                return shape
        raise NoWayError("no room", f"{size} {kind} {_beside(len(others))}")

    def _placed(
        self,
        shapes: Sequence[Shape],
        look: Thing,
        where: Sequence[Placed],
        spot: say.Spot | None,
    ) -> Shape:
        """Find a place for a new shape that also leaves room for what is still to come."""
        later, hoped = self._expected(shapes, look, where)
        told = [(len(shapes), relation, other) for relation, other in where]
        expected = len(shapes) + 1 + len(later)
        for things, relations in (((look, *later), [*told, *hoped]), ((look,), told)):
            for layout in range(_LAYOUTS):
                modest = layout >= _LAYOUTS // 2
                items = [self._item(thing, expected, modest) for thing in things]
                found = place(
                    items,
                    self.rng,
                    relations=relations,
                    fixed=shapes,
                    first=lambda shape: spot is None or _spot(shape) == spot,
                    attempts=40 if modest else 8,
                )
                if found:
                    return found[0]
            if not shapes and spot is None:
                seated = self._seated(things, relations)
                if seated:
                    return seated
        raise NoWayError("no room", f"{words_of(look)} {_beside(len(shapes))}")

    def _seated(
        self, things: Sequence[Thing], relations: Sequence[tuple[int, RelationName, int]]
    ) -> Shape | None:
        """Give the first of several things its seat on the board, where all have one."""
        seats = seat(len(things), tuple(relations), shuffled(self.rng))
        if seats is None:
            return None
        x, y = center(seats[0])
        look = things[0]
        return Shape(kind=look.kind, color=look.color or "black", size="small", x=x, y=y)

    def _item(self, thing: Thing, expected: int, modest: bool) -> Item:
        large = self.rng.random() < _LARGE[min(expected, len(_LARGE)) - 1]
        size: Size = thing.size or ("large" if large and not modest else "small")
        color = thing.color or "black"  # of things to come, whose colour takes no room
        return Item(kind=thing.kind, color=color, size=size)

    def _expected(
        self, shapes: Sequence[Shape], look: Thing, where: Sequence[Placed]
    ) -> tuple[list[Thing], list[tuple[int, RelationName, int]]]:
        """What the goal has beyond the shapes and the new one, and where everything belongs."""
        if self.goal is None:
            return [], []
        middle = CANVAS_PX // 2
        color = look.color or "black"
        new = Shape(kind=look.kind, color=color, size="small", x=middle, y=middle)
        known = [*shapes, new]
        found = recognise(self.goal, known)
        index = {item: known.index(s) for item, s in found.items() if s is not None}
        later: list[Thing] = []
        for item, shape in found.items():
            if shape is None:
                index[item] = len(known) + len(later)
                later.append(thing_in(self.goal, item))
        told = {frozenset((len(shapes), other)) for _, other in where}
        hoped = []
        for r in self.goal.relations:
            name = next((name for name in RELATIONS if name == r.name), None)
            a, b = index[r.source], index[r.target]
            # What stays where it is cannot be helped, and the edit's own word comes first.
            if name and max(a, b) >= len(shapes) and frozenset((a, b)) not in told:
                hoped.append((a, name, b))
        return later, hoped

    def _color(self, kind: Kind, shapes: Sequence[Shape]) -> Color:
        """Choose a colour: that of its like, or else one that nothing has and training may show."""
        same = [s.color for s in shapes if s.kind == kind]
        if same:
            return same[-1]
        usable = [color for color in COLORS if not held_out_pair(color, kind)]
        fresh = [color for color in usable if all(s.color != color for s in shapes)] or usable
        return fresh[int(self.rng.integers(len(fresh)))]


def _beside(count: int) -> str:
    return f"beside {count} other{'' if count == 1 else 's'}"


def _spot(shape: Shape) -> say.Spot:
    """The ninth of the canvas that a shape's centre lies in."""
    column, row = (min(v * 3 // CANVAS_PX, 2) for v in (shape.x, shape.y))
    return say.SPOTS[row * 3 + column]
