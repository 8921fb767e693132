"""Edits to practise on: a scene before, what is said, and the scene after it.

Whatever staging asks for comes up: things are added (to nothing too), recoloured, replaced,
removed, moved and exchanged, named by as much as tells them apart; and now and then nothing is
to change at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from staged.shapes.language.instructions import (
    Add,
    Change,
    Edit,
    Move,
    Ref,
    Remove,
    Replace,
    Swap,
    Voice,
    write_edits,
)
from staged.shapes.players.arrange import Arranger, NoWayError
from staged.shapes.tasks import Split
from staged.shapes.world.scene import (
    COLORS,
    KINDS,
    RELATIONS,
    Color,
    Kind,
    RelationName,
    Scene,
    Shape,
    holds,
)
from staged.shapes.world.spec import Spec, Thing
from staged.shapes.world.splits import held_out_number, held_out_pair, is_held_out

Verb = Literal["add", "recolour", "replace", "remove", "move", "swap", "keep"]
VERBS: tuple[Verb, ...] = get_args(Verb)
"""What a drill may ask for; `keep` asks for the same picture again."""

KEEP = "change nothing"
"""The instruction that asks for the same picture again."""

_TRIES = 12
_MARGIN = 0.15  # of a relation that is said, as in `place`


@dataclass(frozen=True, kw_only=True)
class Drill:
    """One instruction and the two scenes around it.

    Attributes:
        verb: Of its first edit.
        edits: What is asked for; nothing where the picture is to stay as it is.
        instruction: The same in the miniature world's language.
        before: What the picture holds.
        after: What it is to hold.
    """

    verb: Verb
    edits: tuple[Edit, ...]
    instruction: str
    before: Scene
    after: Scene


def draw_drill(
    scene: Scene,
    rng: np.random.Generator,
    verbs: Mapping[str, float],
    *,
    split: Split = "train",
    two_edits: float = 0.15,
) -> Drill | None:
    """Draw a drill around a scene.

    Args:
        scene: What the picture holds before the edit, or, where something is added, after it.
        rng: Source of every choice.
        verbs: Weights of `VERBS`; those not named get none.
        split: Under train nothing that `splits` holds out is drawn or said; under test it may be.
        two_edits: Share of drills that ask for two edits at once.

    Returns:
        The drill, or None where the dice found none that can be said clearly.
    """
    names = [verb for verb in VERBS if verbs.get(verb, 0) > 0]
    weights = np.array([verbs[verb] for verb in names], dtype=np.float64)
    for _ in range(_TRIES):
        verb = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        if verb == "keep":
            return Drill(verb=verb, edits=(), instruction=KEEP, before=scene, after=scene)
        drawn = _draw(verb, scene, rng, split)
        if drawn is None:
            continue
        edits, before, after = [drawn[0]], drawn[1], drawn[2]
        if rng.random() < two_edits:
            others = [name for name in names if name not in ("add", "keep")]
            other = others[int(rng.integers(len(others)))] if others else None
            second = other and _draw(other, after, rng, split)
            if second and _apart(edits[0], second[0]):
                edits.append(second[0])
                after = second[2]
        voice: Voice = "refinement" if rng.random() < 0.3 else "plan"
        text = write_edits(edits, voice=voice)
        return Drill(verb=verb, edits=tuple(edits), instruction=text, before=before, after=after)
    return None


def _draw(
    verb: Verb, scene: Scene, rng: np.random.Generator, split: Split
) -> tuple[Edit, Scene, Scene] | None:
    """One edit with the scenes before and after it, if the dice find one."""
    if not scene.shapes:
        return None
    if verb == "add":
        return _add(scene, rng, split)
    index = int(rng.integers(len(scene.shapes)))
    target = _name(index, scene.shapes, rng)
    edit = _edit(verb, index, target, scene.shapes, rng, split)
    if edit is None:
        return None
    try:
        after = Arranger(rng=rng).apply(scene, edit)
    except NoWayError:
        return None
    if verb == "move" and any(a != b for a, b in _pairs(scene, after, without=index)):
        return None  # no room: the two changed places, which a swap is there to practise
    return edit, scene, after


def _pairs(before: Scene, after: Scene, *, without: int) -> list[tuple[Shape, Shape]]:
    """Shapes before and after an edit that neither adds nor removes, without the edited one."""
    pairs = list(zip(before.shapes, after.shapes, strict=True))
    return pairs[:without] + pairs[without + 1 :]


def _edit(
    verb: Verb,
    index: int,
    target: Ref | None,
    shapes: tuple[Shape, ...],
    rng: np.random.Generator,
    split: Split,
) -> Edit | None:
    shape = shapes[index]
    if verb == "remove":
        return Remove(target=target or Ref(thing=_look(shape), any_of=True))
    if target is None:
        return None
    if verb == "recolour":
        colors = [c for c in COLORS if c != shape.color and _may_be(c, shape.kind, split)]
        return Change(target=target, value=colors[int(rng.integers(len(colors)))])
    if verb == "replace":
        kinds = [k for k in KINDS if k != shape.kind and _may_be(shape.color, k, split)]
        kind = kinds[int(rng.integers(len(kinds)))]
        return Replace(target=target, thing=Thing(kind=kind, color=target.thing.color))
    others = [i for i in range(len(shapes)) if i != index]
    if not others:
        return None
    other = others[int(rng.integers(len(others)))]
    against = _name(other, shapes, rng)
    if against is None:
        return None
    if verb == "swap":
        return Swap(first=target, second=against)
    relation = RELATIONS[int(rng.integers(len(RELATIONS)))]
    if not _may_be_said(shape, relation, shapes[other], split) or holds(
        relation, shape, shapes[other]
    ):
        return None
    return Move(target=target, to=(relation, against))


def _add(scene: Scene, rng: np.random.Generator, split: Split) -> tuple[Edit, Scene, Scene] | None:
    """Something of the scene is what is added: the scene is what comes after."""
    shapes = scene.shapes
    index = int(rng.integers(len(shapes)))
    shape = shapes[index]
    alike = [i for i, s in enumerate(shapes) if (s.kind, s.color) == (shape.kind, shape.color)]
    number = int(rng.integers(1, len(alike) + 1))
    if split == "train" and held_out_number(number, shape.kind):
        return None
    new = {int(i) for i in rng.choice(alike, number, replace=False)}
    rest = tuple(s for i, s in enumerate(shapes) if i not in new)
    before = replace(scene, shapes=rest)
    kept = {s.color for s in rest if s.kind == shape.kind}
    # Without a colour the new one takes that of its like, or any.
    plain = rng.random() < 0.2 and kept <= {shape.color}
    thing = Thing(kind=shape.kind, color=None if plain else shape.color, number=number)
    relations: tuple[tuple[RelationName, Ref], ...] = ()
    if number == 1 and rest and rng.random() < 0.65:
        relations = _relations(shapes[next(iter(new))], rest, rng, split)
    return Add(thing=thing, relations=relations), before, scene


def _relations(
    shape: Shape, rest: tuple[Shape, ...], rng: np.random.Generator, split: Split
) -> tuple[tuple[RelationName, Ref], ...]:
    """One or two relations of a shape that hold and may be said."""
    found: list[tuple[RelationName, Ref]] = []
    for other in rng.permutation(len(rest)).tolist():
        name = _name(other, rest, rng)
        for relation in RELATIONS:
            if name and holds(relation, shape, rest[other], margin=_MARGIN):
                if _may_be_said(shape, relation, rest[other], split):
                    found.append((relation, name))
                break
    return tuple(found[: 1 if rng.random() < 0.8 else 2])


def _name(index: int, shapes: tuple[Shape, ...], rng: np.random.Generator) -> Ref | None:
    """Name one shape by colour and kind, or by its kind where that is enough; None if unclear."""
    shape = shapes[index]
    if sum(_look(s) == _look(shape) for s in shapes) > 1:
        return None
    only = sum(s.kind == shape.kind for s in shapes) == 1
    return Ref(thing=Thing(kind=shape.kind) if only and rng.random() < 0.3 else _look(shape))


def _look(shape: Shape) -> Thing:
    return Thing(kind=shape.kind, color=shape.color)


def _may_be(color: Color, kind: Kind, split: Split) -> bool:
    return split == "test" or not held_out_pair(color, kind)


def _may_be_said(shape: Shape, relation: RelationName, other: Shape, split: Split) -> bool:
    things = (_look(shape), _look(other))
    said = Spec(things=things, relations=((0, relation, 1),))
    return split == "test" or not is_held_out(said)


def _apart(first: Edit, second: Edit) -> bool:
    """Whether two edits name different things, so that their order does not matter."""
    return not _kinds_named(first) & _kinds_named(second)


def _kinds_named(edit: Edit) -> set[str]:
    match edit:
        case Add():
            return {edit.thing.kind, *(ref.thing.kind for _, ref in edit.relations)}
        case Replace():
            return {edit.target.thing.kind, edit.thing.kind}
        case Swap():
            return {edit.first.thing.kind, edit.second.thing.kind}
        case Move(to=(_, ref)):
            return {edit.target.thing.kind, ref.thing.kind}
        case _:
            return {edit.target.thing.kind}
