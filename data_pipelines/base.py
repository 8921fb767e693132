"""The base miniature's data: one-shot images, single edits and descriptions, from exact scenes.

BAGEL was trained on pairs of text and image, on edits and on understanding before anybody taught
it to plan; this is the same diet in the miniature world. Sample i is a function of (seed, i).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from staged.command_line import MAX_SEED
from staged.jobs.progress import Progress
from staged.ranges import check_range
from staged.settings import fingerprint, to_dict
from staged.shapes.instructions import Add, Change, Edit, Ref, Remove, Replace, write_edits
from staged.shapes.prompts import describe
from staged.shapes.render import render
from staged.shapes.scene import COLORS, KINDS, RELATIONS, Scene, Shape, holds
from staged.shapes.spec import Spec, Thing
from staged.shapes.splits import held_out_pair, is_held_out
from staged.shapes.tasks import TASKS, Task, sample_prompt, sample_scene
from staged.shards import ShardWriter
from staged.trajectory import Answer, ImageRef, Sketch, Stop, Trajectory

QUESTION = "describe the picture"
"""The prompt of understanding samples."""

_CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class BaseSettings:
    """What `staged data base` makes."""

    out: Path
    """Folder of shards."""
    num_samples: int = 60_000
    """Trajectories in all."""
    kinds: dict[str, float] = field(
        default_factory=lambda: {"one_shot": 0.8, "edit": 0.1, "understanding": 0.1}
    )
    """Weights of what a sample teaches."""
    tasks: dict[str, float] = field(
        default_factory=lambda: {
            "single_object": 0.15,
            "colors": 0.35,
            "two_object": 0.12,
            "counting": 0.12,
            "position": 0.08,
            "color_attr": 0.08,
            "composition": 0.05,
            "knowledge": 0.05,
        }
    )
    """Weights of the prompts' tasks."""
    seed: int = 0
    """Of everything."""
    num_workers: int = 2
    """Processes; the result does not depend on it."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.num_samples < 1 or self.num_workers < 1:
            raise ValueError(
                f"num_samples {self.num_samples}, num_workers {self.num_workers}; give at least 1"
            )
        check_range(self, "seed", minimum=0, maximum=MAX_SEED)
        _check_weights("kinds", self.kinds, tuple(_MAKERS))
        _check_weights("tasks", self.tasks, TASKS)


def build(settings: BaseSettings) -> Counter[str]:
    """Write the data set.

    Returns:
        Samples of each kind.

    Raises:
        ValueError: The folder holds a finished data set already.
    """
    counts: Counter[str] = Counter()
    starts = range(0, settings.num_samples, _CHUNK)
    progress = Progress("samples", settings.num_samples, unit="samples/s")
    writer = ShardWriter(
        settings.out,
        title="base diet of the miniature world",
        fingerprints=(fingerprint(replace(settings, out=Path("."), num_workers=1)),),
        settings=to_dict(settings),
    )
    with writer, ProcessPoolExecutor(settings.num_workers) as pool:
        for chunk in pool.map(_chunk, repeat(settings), starts):
            for key, trajectory in chunk:
                writer.write(key, trajectory)
                counts[str(trajectory.task)] += 1
                progress.advance()
    return counts


def sample(settings: BaseSettings, index: int) -> Trajectory:
    """Sample number `index`."""
    rng = np.random.default_rng((settings.seed, index))
    kind = _choose(settings.kinds, rng)
    prompt = sample_prompt(_task(settings.tasks, rng), rng, "train")
    scene = sample_scene(prompt.spec, rng, "train")
    return _MAKERS[kind](prompt.text, scene, rng)


def _one_shot(prompt: str, scene: Scene, rng: np.random.Generator) -> Trajectory:
    # The stop after the image is not supervised, so the image is a target and no context: half
    # the tokens.
    steps = (Sketch(image=_picture(scene)), Stop(loss=False))
    return Trajectory(prompt=prompt, task="one_shot", steps=steps)


def _understanding(prompt: str, scene: Scene, rng: np.random.Generator) -> Trajectory:
    return Trajectory(
        prompt=QUESTION,
        inputs=(_picture(scene),),
        task="understanding",
        steps=(Answer(text=describe(Spec.from_scene(scene))), Stop(loss=False)),
    )


def _edit(prompt: str, scene: Scene, rng: np.random.Generator) -> Trajectory:
    edits = [edit for _ in range(8) for edit in _draw_edit(scene, rng)]
    if not edits:
        return _one_shot(prompt, scene, rng)
    edit, before, after = edits[0]
    return Trajectory(
        prompt=write_edits([edit]),
        inputs=(_picture(before),),
        task="edit",
        steps=(Sketch(image=_picture(after)), Stop(loss=False)),
    )


_MAKERS = {"one_shot": _one_shot, "edit": _edit, "understanding": _understanding}


def _draw_edit(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[Edit, Scene, Scene]]:
    """One edit that a sentence can name, if the dice find one: edit, scene before, scene after."""
    shapes = scene.shapes
    index = int(rng.integers(len(shapes)))
    shape, rest = shapes[index], shapes[:index] + shapes[index + 1 :]
    named = _names_one(shape, shapes)
    verb = ("add", "remove", "recolour", "replace")[int(rng.integers(4))]
    without = replace(scene, shapes=rest)
    if verb == "add" and rest:
        other = rest[int(rng.integers(len(rest)))]
        thing = Thing(kind=shape.kind, color=shape.color)
        for relation in RELATIONS:
            pair = (thing, Thing(kind=other.kind, color=other.color))
            if (
                holds(relation, shape, other, margin=0.15)
                and _names_one(other, rest)
                and not is_held_out(Spec(things=pair, relations=((0, relation, 1),)))
            ):
                yield Add(thing=thing, relations=((relation, Ref(thing=pair[1])),)), without, scene
    if verb == "remove" and named and rest:
        yield Remove(target=_ref(shape)), scene, without
    if verb == "recolour" and named:
        color = COLORS[int(rng.integers(len(COLORS)))]
        changed = replace(shape, color=color)
        if color != shape.color and not held_out_pair(color, shape.kind):
            yield Change(target=_ref(shape), value=color), scene, _with(scene, index, changed)
    if verb == "replace" and named:
        kind = KINDS[int(rng.integers(len(KINDS)))]
        changed = replace(shape, kind=kind)
        if kind != shape.kind and not held_out_pair(shape.color, kind):
            thing = Thing(kind=kind, color=shape.color)
            yield Replace(target=_ref(shape), thing=thing), scene, _with(scene, index, changed)


def _names_one(shape: Shape, shapes: tuple[Shape, ...]) -> bool:
    return sum((s.kind, s.color) == (shape.kind, shape.color) for s in shapes) == 1


def _ref(shape: Shape) -> Ref:
    return Ref(thing=Thing(kind=shape.kind, color=shape.color))


def _with(scene: Scene, index: int, shape: Shape) -> Scene:
    shapes = list(scene.shapes)
    shapes[index] = shape
    return replace(scene, shapes=tuple(shapes))


def _picture(scene: Scene) -> ImageRef:
    return ImageRef.from_array(render(scene))


def _chunk(settings: BaseSettings, start: int) -> list[tuple[str, Trajectory]]:
    stop = min(start + _CHUNK, settings.num_samples)
    return [(f"base-{index:07d}", sample(settings, index)) for index in range(start, stop)]


def _choose(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    names = list(weights)
    shares = np.array([weights[name] for name in names], dtype=np.float64)
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def _task(weights: Mapping[str, float], rng: np.random.Generator) -> Task:
    name = _choose(weights, rng)
    return next(task for task in TASKS if task == name)


def _check_weights(what: str, weights: Mapping[str, float], names: tuple[str, ...]) -> None:
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ValueError(f"{what}: no such {', '.join(unknown)}; there are {', '.join(names)}")
    if not sum(weights.values()) > 0 or min(weights.values()) < 0:
        raise ValueError(f"{what}: weights {weights}; give none below 0 and at least one above")
