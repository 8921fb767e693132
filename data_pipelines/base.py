"""The base miniature's data: one-shot images, single edits, descriptions, and facts in words.

BAGEL was trained on pairs of text and image, on edits and on understanding before anybody taught
it to plan; this is the same diet in the miniature world. Sample i is a function of (seed, i).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

import numpy as np

from staged.command_line import MAX_SEED
from staged.jobs.progress import Progress
from staged.ranges import check_range, check_weights
from staged.settings import fingerprint, to_dict
from staged.shapes.drills import VERBS, draw_drill
from staged.shapes.language.asked import QUESTION
from staged.shapes.language.prompts import describe
from staged.shapes.language.told import draw_told
from staged.shapes.tasks import ALL_TASKS, Task, sample_prompt, sample_scene
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene
from staged.shapes.world.spec import Spec
from staged.shards import ShardWriter
from staged.trajectory import Answer, ImageRef, Sketch, Stop, Trajectory

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
    """Weights of what a sample teaches; `told` are facts in words, also those of the test split."""
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
    edited: dict[str, float] = field(
        default_factory=lambda: {
            "colors": 0.1,
            "two_object": 0.15,
            "counting": 0.15,
            "position": 0.1,
            "color_attr": 0.2,
            "composition": 0.3,
        }
    )
    """Weights of the tasks whose scenes are edited: keeping several things is what takes long."""
    verbs: dict[str, float] = field(
        default_factory=lambda: {
            "add": 0.45,
            "recolour": 0.12,
            "replace": 0.12,
            "remove": 0.11,
            "move": 0.08,
            "swap": 0.06,
            "keep": 0.06,
        }
    )
    """Weights of what an edit does; most steps of a plan add something."""
    seed: int = 0
    """Of everything."""
    num_workers: int = 2
    """Processes; the result does not depend on it."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        check_range(self, "num_samples", "num_workers", minimum=1)
        check_range(self, "seed", minimum=0, maximum=MAX_SEED)
        check_weights("kinds", self.kinds, _MAKERS)
        check_weights("tasks", self.tasks, ALL_TASKS)
        check_weights("edited", self.edited, ALL_TASKS)
        check_weights("verbs", self.verbs, VERBS)


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
    tasks = settings.edited if kind == "edit" else settings.tasks
    prompt = sample_prompt(_task(tasks, rng), rng, "train")
    scene = sample_scene(prompt.spec, rng, "train")
    return _MAKERS[kind](settings, prompt.text, scene, rng)


def _one_shot(
    settings: BaseSettings, prompt: str, scene: Scene, rng: np.random.Generator
) -> Trajectory:
    # The stop after the image is not supervised, so the image is a target and no context: half
    # the tokens.
    steps = (Sketch(image=_picture(scene)), Stop(loss=False))
    return Trajectory(prompt=prompt, task="one_shot", steps=steps)


def _understanding(
    settings: BaseSettings, prompt: str, scene: Scene, rng: np.random.Generator
) -> Trajectory:
    return Trajectory(
        prompt=QUESTION,
        inputs=(_picture(scene),),
        task="understanding",
        steps=(Answer(text=describe(Spec.from_scene(scene))), Stop(loss=False)),
    )


def _edit(
    settings: BaseSettings, prompt: str, scene: Scene, rng: np.random.Generator
) -> Trajectory:
    drill = draw_drill(scene, rng, settings.verbs)
    if drill is None:
        return _one_shot(settings, prompt, scene, rng)
    # Onto nothing is drawn without a picture: that is how a first sketch begins.
    return Trajectory(
        prompt=drill.instruction,
        inputs=(_picture(drill.before),) if drill.before.shapes else (),
        task=drill.verb,
        steps=(Sketch(image=_picture(drill.after)), Stop(loss=False)),
    )


def _told(
    settings: BaseSettings, prompt: str, scene: Scene, rng: np.random.Generator
) -> Trajectory:
    question, answer = draw_told(rng)
    steps = (Answer(text=answer), Stop(loss=False))
    return Trajectory(prompt=question, task="told", steps=steps)


_MAKERS = {"one_shot": _one_shot, "edit": _edit, "understanding": _understanding, "told": _told}


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
    return next(task for task in ALL_TASKS if task == name)
