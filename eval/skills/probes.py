"""One step each, set between right pictures: what is asked of the model, and what is right.

draw               a prompt, one shot
add, recolour, …   an edit of a right picture, as a request or as the next plan of a trajectory
see right          inspect a right sketch
see FAULT          inspect a sketch with one fault
correct FAULT      draw the correction of that fault, named in words
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from eval.generation.samples import sample_seed
from eval.miniature.kinds import kind_of
from eval.skills.wanted import wanted
from staged.shapes.drills import VERBS, Drill, Verb, draw_drill
from staged.shapes.language.critiques import write_sketch_critique
from staged.shapes.language.faults import Fault, correct
from staged.shapes.language.instructions import Add, Edit, Swap, write_edits
from staged.shapes.language.prompts import describe, write_prompt
from staged.shapes.sight.detect import detect
from staged.shapes.sight.verdict import satisfied
from staged.shapes.tasks import Split, Task, sample_prompt, sample_scene
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene
from staged.shapes.world.spec import Spec
from staged.trajectory import ImageRef, Inspection, Move, Plan, Refinement, Sketch, Trajectory

Manner = Literal["request", "stage"]
"""An edit is asked for by itself, as of a base model, or by the next plan of a trajectory."""
MANNERS: tuple[Manner, ...] = get_args(Manner)

_EDITED: tuple[Task, ...] = ("two_object", "color_attr", "composition")
_MISTAKES: dict[str, float] = {
    "recolour": 1.0, "replace": 1.0, "remove": 1.0, "move": 1.0, "add": 1.0,
}  # fmt: skip
_TRIES = 50


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One question.

    Attributes:
        skill: What it tests.
        cluster: Questions of one scene belong together.
        trajectory: All that comes before the step.
        move: What is asked for.
        seed: Of noise.
        scene: What the picture shall show; nothing else, and what stays where it is.
        edits: What is to be done to the last picture.
        wrong: For an inspection: whether the sketch is.
    """

    skill: str
    cluster: str
    trajectory: Trajectory
    move: Move
    seed: int
    scene: Scene
    edits: tuple[Edit, ...] = ()
    wrong: bool = False


def probes(*, num_per_skill: int, split: Split, manner: Manner, seed: int) -> Iterator[Probe]:
    """Set the questions; the same arguments set the same.

    Args:
        num_per_skill: Of each.
        split: Train: nothing that training never shows; test: something in every scene.
        manner: How edits are asked for; by stage, inspections and corrections are asked for too,
            which a base knows nothing of.
        seed: Of scenes, edits and noise.
    """
    for index in range(num_per_skill):
        yield _draw(index, split, seed)
        for verb in VERBS:
            yield from _edit(verb, index, split, manner, seed)
        if manner == "stage":
            yield from _inspect(index, split, seed)


def _draw(index: int, split: Split, seed: int) -> Probe:
    rng = np.random.default_rng((seed, 0, index))
    prompt = sample_prompt("colors", rng, split)
    return Probe(
        skill="draw",
        cluster=prompt.text,
        trajectory=Trajectory(prompt=prompt.text),
        move="sketch",
        seed=sample_seed(seed, prompt.text, index),
        scene=sample_scene(prompt.spec, rng, split),
    )


def _edit(verb: Verb, index: int, split: Split, manner: Manner, seed: int) -> Iterator[Probe]:
    drill = _drill({verb: 1.0}, index, split, seed)
    if drill is None:
        return
    prompt, before = _asking(drill.after), _picture(drill.before)
    if manner == "request":
        given = (before,) if drill.before.shapes else ()
        trajectory = Trajectory(prompt=drill.instruction, inputs=given)
    else:
        plan = Plan(instruction=drill.instruction, description=_said(drill.after))
        trajectory = Trajectory(prompt=prompt, steps=(*_drawn(drill.before), plan))
    yield Probe(
        skill=verb,
        cluster=f"{verb} {index}",
        trajectory=trajectory,
        move="sketch",
        seed=sample_seed(seed, drill.instruction, index),
        scene=drill.after,
        edits=drill.edits,
    )


def _inspect(index: int, split: Split, seed: int) -> Iterator[Probe]:
    """A right sketch, the same with a fault, and the correction of that."""
    drill = _drill(_MISTAKES, index, split, seed, salt=1)
    if drill is None:
        return
    # One of the two scenes around an edit is what was planned, the other the mistake.
    right, wrong = drill.before, drill.after
    cluster = f"inspect {index}"
    verdict = satisfied(Spec.from_scene(right), detect(render(wrong)))
    faults: tuple[Fault, ...] = (*verdict.faults, *verdict.surplus)
    if len(faults) != 1 or not right.shapes or not wrong.shapes:
        return
    kind = kind_of(faults[0])
    plan = _first_plan(right)
    for name, scene in (("right", right), (kind, wrong)):
        sketch = Sketch(image=_picture(scene), num_flow_steps=1)
        trajectory = Trajectory(prompt=_asking(right), steps=(plan, sketch))
        yield Probe(
            skill=f"see {name}",
            cluster=cluster,
            trajectory=trajectory,
            move="inspect sketch",
            seed=sample_seed(seed, cluster, index),
            scene=scene,
            wrong=name != "right",
        )
    edits = (correct(faults[0]),)
    refused = Inspection(target="sketch", verdict="revise", critique=write_sketch_critique(faults))
    refinement = Refinement(instruction=write_edits(edits, voice="refinement"))
    yield Probe(
        skill=f"correct {kind}",
        cluster=cluster,
        trajectory=Trajectory(
            prompt=trajectory.prompt, steps=(*trajectory.steps, refused, refinement)
        ),
        move="sketch",
        seed=sample_seed(seed, cluster, index),
        scene=right,
        edits=edits,
    )


def _drill(
    verbs: Mapping[str, float],
    index: int,
    split: Split,
    seed: int,
    *,
    salt: int = 0,
) -> Drill | None:
    """A single edit of a scene with several things, all of which can be described."""
    number = 1 + list(VERBS).index(next(verb for verb in VERBS if verb in verbs)) + 16 * salt
    rng = np.random.default_rng((seed, number, index))
    for _ in range(_TRIES):
        task = _EDITED[int(rng.integers(len(_EDITED)))]
        # The names of two objects are never held out; their colours may be.
        scene = sample_scene(sample_prompt(task, rng, split).spec, rng, split)
        drill = draw_drill(scene, rng, verbs, split=split, two_edits=0.0)
        if drill is None or not drill.before.shapes:
            continue
        if _sayable(drill.before, drill.after) and not _done_already(drill):
            return drill
    return None


def _done_already(drill: Drill) -> bool:
    """Whether the picture before passes for what is asked; a relation may nearly hold."""
    if any(isinstance(edit, Swap) for edit in drill.edits) or not drill.edits:
        return False
    return satisfied(wanted(drill.after, drill.edits), detect(render(drill.before))).exact


def _sayable(*scenes: Scene) -> bool:
    try:
        for scene in scenes:
            _said(scene)
    except ValueError:
        return False
    return True


def _drawn(scene: Scene) -> tuple[Plan, Sketch]:
    """A first round that drew a scene rightly."""
    return _first_plan(scene), Sketch(image=_picture(scene), num_flow_steps=1)


def _first_plan(scene: Scene) -> Plan:
    adds = [Add(thing=thing) for thing in Spec.from_scene(scene).things]
    return Plan(instruction=write_edits(adds), description=_said(scene))


def _asking(scene: Scene) -> str:
    return write_prompt(Spec.from_scene(scene))


def _said(scene: Scene) -> str:
    return describe(Spec.from_scene(scene))


def _picture(scene: Scene) -> ImageRef:
    return ImageRef.from_array(render(scene))
