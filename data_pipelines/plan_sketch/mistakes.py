"""Deliberate mistakes: what a step could have drawn instead, to be found and corrected."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

from staged.scene_graph import (
    AddObject,
    Attribute,
    ChangeAttribute,
    Delta,
    Relate,
    ReplaceObject,
    SceneGraph,
    SceneObject,
    Vocabulary,
    apply,
)

MistakeKind = Literal["class", "attribute", "relation", "elsewhere", "extra", "lost", "undone"]
"""A wrong class, a wrong attribute, the opposite relation, a relation that is turned by a right
angle, one object too many, an earlier object gone, nothing done."""

MISTAKES: tuple[MistakeKind, ...] = tuple(k for k in get_args(MistakeKind) if k != "elsewhere")
"""Those that contradict what was asked in any picture. What stands below something may stand right
of it as well: `elsewhere` is for worlds whose judge draws the line."""
IN_PLANS: tuple[MistakeKind, ...] = ("class", "attribute", "relation", "extra")
"""Mistakes that contradict a prompt. A plan that leaves something out may still plan it later."""

OPPOSITES = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "on": "under",
    "under": "on",
    "in front of": "behind",
    "behind": "in front of",
    "inside": "outside",
    "outside": "inside",
}

_ELSEWHERE = {
    "left of": ("above", "below"),
    "right of": ("above", "below"),
    "above": ("left of", "right of"),
    "below": ("left of", "right of"),
}


def mistaken(
    step: Delta,
    rng: random.Random,
    *,
    vocabulary: Vocabulary,
    kinds: Sequence[MistakeKind],
    max_objects: int,
    counts: Callable[[SceneGraph], bool],
) -> tuple[MistakeKind, SceneGraph] | None:
    """Draw a mistake that this step could make.

    Args:
        step: What is to be done.
        rng: Source of every choice; kinds are equally likely where they are possible.
        vocabulary: Classes and attribute values to be wrong with.
        kinds: Which kinds are wanted.
        max_objects: Most objects of the mistaken scene.
        counts: Whether a scene is really a mistake, and not another way of being right.

    Returns:
        The kind and the scene after the mistake, or None where none is possible.
    """
    for kind in rng.sample(kinds, len(kinds)):
        wrong = [
            graph
            for graph in _FINDERS[kind](step, vocabulary)
            if len(graph.objects) <= max_objects and counts(graph)
        ]
        if wrong:
            return kind, rng.choice(wrong)
    return None


def _touched(step: Delta) -> list[str]:
    """Objects that the step adds or changes, without those that only relate to them."""
    ids = []
    for edit in step:
        match edit:
            case AddObject():
                ids.append(edit.object.id)
            case ReplaceObject() | ChangeAttribute():
                ids.append(edit.object_id)
            case _:
                pass
    return ids


def _classes(step: Delta, words: Vocabulary) -> Iterator[SceneGraph]:
    taken = {o.class_name for graph in (step.before, step.after) for o in graph.objects}
    for edit in step:
        if isinstance(edit, AddObject | ReplaceObject):
            item = edit.object.id if isinstance(edit, AddObject) else edit.object_id
            before = step.after.object(item).class_name
            for name in words.classes_for(item):
                if name not in taken:
                    yield apply(
                        step.after, ReplaceObject(object_id=item, before=before, after=name)
                    )


def _attributes(step: Delta, words: Vocabulary) -> Iterator[SceneGraph]:
    for item in _touched(step):
        for a in step.after.attributes_of(item):
            for value in words.values_for(item, a.kind):
                if value != a.value:
                    yield apply(
                        step.after,
                        ChangeAttribute(object_id=item, kind=a.kind, before=a.value, after=value),
                    )


def _relations(step: Delta, words: Vocabulary) -> Iterator[SceneGraph]:
    return _turned(step, lambda name: (OPPOSITES[name],) if name in OPPOSITES else ())


def _elsewhere(step: Delta, words: Vocabulary) -> Iterator[SceneGraph]:
    # Whoever left room for what was to come left none on the opposite side.
    return _turned(step, lambda name: _ELSEWHERE.get(name, ()))


def _turned(step: Delta, others: Callable[[str], tuple[str, ...]]) -> Iterator[SceneGraph]:
    """The step with one of its new relations replaced by another."""
    for relation in step.after.relations:
        if relation in step.before.relations:
            continue
        for name in others(relation.name):
            turned = replace(relation, name=name)
            yield apply(step.after, Relate(before=(relation,), after=(turned,)))


def _extras(step: Delta, words: Vocabulary) -> Iterator[SceneGraph]:
    """One more of what the step adds: miscounting."""
    for edit in step:
        if isinstance(edit, AddObject):
            item = SceneObject(id="extra", class_name=edit.object.class_name)
            same = (Attribute(object="extra", kind=a.kind, value=a.value) for a in edit.attributes)
            yield apply(step.after, AddObject(object=item, attributes=tuple(same)))


def _losses(step: Delta, words: Vocabulary) -> Iterator[SceneGraph]:
    for item in step.before.objects:
        if item.id in step.after and item.id not in _touched(step):
            yield step.after.subgraph(o.id for o in step.after.objects if o.id != item.id)


def _undone(step: Delta, words: Vocabulary) -> Iterator[SceneGraph]:
    if step.before.objects:
        yield step.before


_FINDERS = {
    "class": _classes,
    "attribute": _attributes,
    "relation": _relations,
    "elsewhere": _elsewhere,
    "extra": _extras,
    "lost": _losses,
    "undone": _undone,
}
