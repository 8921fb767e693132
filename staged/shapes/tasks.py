"""Eight tasks: GenEval's six in the miniature world, composition, and knowledge; and a practice.

The practice, `position_attr`, lies between position and composition: "a red star left of a blue
ring". It is what people ask first, and no benchmark does.

Every sample is decided by the generator that is passed in. Training samples nothing that
`splits` holds out; a test sample has something held out wherever its task can have (the names of
single shapes alone cannot: `single_object` and `two_object` are the same in both splits).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from staged.shapes.language.phrases import some
from staged.shapes.language.prompts import PromptMeaning, write_prompt
from staged.shapes.world.board import SIDE, Relations, center, feasible, seat, shuffled
from staged.shapes.world.facts import FACTS, Fact
from staged.shapes.world.scene import (
    COLORS,
    KINDS,
    RELATIONS,
    Color,
    Item,
    Kind,
    RelationName,
    Scene,
    Shape,
    place,
    sample_background,
)
from staged.shapes.world.spec import Spec, Thing
from staged.shapes.world.splits import held_out_pair, is_held_out

Task = Literal[
    "single_object", "two_object", "counting", "colors", "position", "color_attr",
    "composition", "knowledge", "position_attr",
]  # fmt: skip
ALL_TASKS: tuple[Task, ...] = get_args(Task)
"""The suite's tasks and the practice."""
TASKS: tuple[Task, ...] = ALL_TASKS[:-1]
"""The suite's tasks."""
Split = Literal["train", "test"]

HELD_OUT_TASKS: tuple[Task, ...] = (
    "counting", "colors", "position", "color_attr", "composition", "knowledge", "position_attr",
)  # fmt: skip
"""Tasks whose test samples all have something that training never shows."""

MAX_COUNT = 4
"""Most shapes of a kind that a prompt asks for."""

_MAX_DRAWS = 10_000


@dataclass(frozen=True, kw_only=True)
class TaskPrompt:
    """A prompt, its task, and what it means."""

    text: str
    task: Task
    request: PromptMeaning

    @property
    def spec(self) -> Spec:
        """What the picture must show."""
        return self.request.spec


def sample_prompt(task: Task, rng: np.random.Generator, split: Split = "train") -> TaskPrompt:
    """Draw a prompt of a task."""
    request = sample_request(task, rng, split)
    return TaskPrompt(text=write_prompt(request), task=task, request=request)


def suite_prompts(
    num_per_task: int, *, seed: int = 0, split: Split = "test", tasks: Sequence[Task] = TASKS
) -> dict[Task, tuple[TaskPrompt, ...]]:
    """List the prompts of `staged eval miniature`, task by task.

    Those of a task are the same whatever other tasks there are, and asking for more of each keeps
    those that were there.

    Args:
        num_per_task: At least 1; fewer come where a task has no more.
        seed: Of every choice.
        split: Whether they hold what training never shows.
        tasks: Which, in order.
    """
    return {task: _suite_prompts(task, num_per_task, seed, split) for task in tasks}


@lru_cache(maxsize=64)  # a study asks for the same in each of its cells
def _suite_prompts(task: Task, num: int, seed: int, split: Split) -> tuple[TaskPrompt, ...]:
    rng = np.random.default_rng((seed, ALL_TASKS.index(task)))
    return sample_prompts(num, rng, split=split, tasks=(task,))


def sample_prompts(
    num_per_task: int,
    rng: np.random.Generator,
    *,
    split: Split = "train",
    tasks: Sequence[Task] = TASKS,
) -> tuple[TaskPrompt, ...]:
    """Draw different prompts, task by task.

    Args:
        num_per_task: At least 1; fewer come where a task has no more (twelve single objects).
        rng: Source of every choice.
        split: Whether to draw from what training shows.
        tasks: Which tasks, in order.

    Raises:
        ValueError: `num_per_task` is not positive.
    """
    if num_per_task < 1:
        raise ValueError(f"num_per_task {num_per_task}; expected 1 or more")
    prompts: dict[str, TaskPrompt] = {}
    for task in tasks:
        seen: dict[str, TaskPrompt] = {}
        idle = 0
        while len(seen) < num_per_task and idle < 500:
            prompt = sample_prompt(task, rng, split)
            idle = idle + 1 if prompt.text in seen else 0
            seen.setdefault(prompt.text, prompt)
        prompts |= {text: prompt for text, prompt in seen.items() if text not in prompts}
    return tuple(prompts.values())


def sample_request(task: Task, rng: np.random.Generator, split: Split = "train") -> PromptMeaning:
    """Draw what a prompt of a task asks for.

    Raises:
        ValueError: There is no such task or split.
    """
    if task not in ALL_TASKS or split not in get_args(Split):
        raise ValueError(
            f"task {task!r}, split {split!r}; expected a task of {', '.join(ALL_TASKS)} "
            "and the split train or test"
        )
    wanted = split == "test" and task in HELD_OUT_TASKS
    for _ in range(_MAX_DRAWS):
        request = _draw(task, rng)
        if is_held_out(request.spec, request.fact) == wanted:
            return request
    raise AssertionError(f"{task} has no {split} sample in {_MAX_DRAWS} draws")


def sample_scene(spec: Spec, rng: np.random.Generator, split: Split = "train") -> Scene:
    """Draw a scene that satisfies a specification, and holds nothing else.

    Colours left open are drawn different from those of all other things, sizes left open so
    that everything finds room.

    Args:
        spec: What to show.
        rng: Source of every choice.
        split: Under train, open colours make no held-out pair.

    Raises:
        ValueError: No layout was found: too many or too large shapes, or relations that
            contradict.
    """
    items: list[Item] = []
    first: list[int] = []
    for thing, color in zip(spec.things, _open_colors(spec, rng, split), strict=True):
        first.append(len(items))
        items += [Item(kind=thing.kind, color=color, size=thing.size)] * thing.number
    relations = tuple((first[a], relation, first[b]) for a, relation, b in spec.relations)
    for attempt in range(8):
        sized = [_sized(item, len(items), attempt, rng) for item in items]
        shapes = place(sized, rng, relations=relations, attempts=3)
        if shapes is not None:
            break
    else:
        shapes = _seated(items, relations, rng)
    if shapes is None:
        wanted = ", ".join(map(some, spec.things))
        raise ValueError(f"found no room for {wanted}; ask for fewer or smaller shapes")
    return Scene(shapes=shapes, background=sample_background(rng))


def _sized(item: Item, num_shapes: int, attempt: int, rng: np.random.Generator) -> Item:
    """Choose an open size: three large shapes just fit, four seldom do, so ask for less."""
    share_large = (0.9, 0.7, 0.5, 0.25)[min(num_shapes, 4) - 1]
    large = attempt < 4 and rng.random() < share_large
    return replace(item, size=item.size or ("large" if large else "small"))


def _seated(
    items: Sequence[Item], relations: Relations, rng: np.random.Generator
) -> tuple[Shape, ...] | None:
    """Seat small shapes on the board: what chance did not find room for."""
    squares = None
    if len(items) <= SIDE * SIDE and all(item.size in (None, "small") for item in items):
        squares = seat(len(items), relations, shuffled(rng))
    if squares is None:
        return None
    centers = [center(square) for square in squares]
    return tuple(
        Shape(kind=item.kind, color=item.color, size="small", x=x, y=y)
        for item, (x, y) in zip(items, centers, strict=True)
    )


def _open_colors(spec: Spec, rng: np.random.Generator, split: Split) -> list[Color]:
    taken = {thing.color for thing in spec.things if thing.color is not None}
    colors: list[Color] = []
    for thing in spec.things:
        if thing.color is not None:
            colors.append(thing.color)
            continue
        usable = [
            color for color in COLORS if not (split == "train" and held_out_pair(color, thing.kind))
        ]
        fresh = [color for color in usable if color not in taken] or usable
        colors.append(fresh[rng.integers(len(fresh))])
        taken.add(colors[-1])
    return colors


def _draw(task: Task, rng: np.random.Generator) -> PromptMeaning:
    match task:
        case "single_object":
            return _request([Thing(kind=_kinds(rng, 1)[0])])
        case "two_object":
            return _request([Thing(kind=kind) for kind in _kinds(rng, 2)])
        case "counting":
            number = int(rng.integers(2, MAX_COUNT + 1))
            return _request([Thing(kind=_kinds(rng, 1)[0], number=number)])
        case "colors":
            return _request([Thing(kind=_kinds(rng, 1)[0], color=_colors(rng, 1)[0])])
        case "position":
            first, second = (Thing(kind=kind) for kind in _kinds(rng, 2))
            return _request([first, second], [(0, _relation(rng), 1)])
        case "color_attr":
            return _request(_colored(rng, 2))
        case "position_attr":
            return _request(_colored(rng, 2), [(0, _relation(rng), 1)])
        case "composition":
            return _composition(rng)
        case "knowledge":
            return _knowledge(FACTS[rng.integers(len(FACTS))], rng)


def _composition(rng: np.random.Generator) -> PromptMeaning:
    """Three or four objects, each next one related to an earlier one or to none."""
    things = tuple(_colored(rng, int(rng.integers(3, 5))))
    while True:
        relations: list[tuple[int, RelationName, int]] = [(0, _relation(rng), 1)]
        for index in range(2, len(things)):
            if rng.random() < 0.7:
                relations.append((index, _relation(rng), int(rng.integers(index))))
        if feasible(len(things), tuple(relations)):
            return PromptMeaning(spec=Spec(things=things, relations=tuple(relations)).normal())


def _knowledge(fact: Fact, rng: np.random.Generator) -> PromptMeaning:
    return PromptMeaning.of_fact(fact, _kinds(rng, 1)[0])


def _request(
    things: Sequence[Thing], relations: Sequence[tuple[int, RelationName, int]] = ()
) -> PromptMeaning:
    return PromptMeaning(spec=Spec(things=tuple(things), relations=tuple(relations)))


def _colored(rng: np.random.Generator, number: int) -> list[Thing]:
    pairs = zip(_kinds(rng, number), _colors(rng, number), strict=True)
    return [Thing(kind=kind, color=color) for kind, color in pairs]


def _kinds(rng: np.random.Generator, number: int) -> list[Kind]:
    return [KINDS[i] for i in rng.choice(len(KINDS), number, replace=False)]


def _colors(rng: np.random.Generator, number: int) -> list[Color]:
    return [COLORS[i] for i in rng.choice(len(COLORS), number, replace=False)]


def _relation(rng: np.random.Generator) -> RelationName:
    return RELATIONS[rng.integers(len(RELATIONS))]
