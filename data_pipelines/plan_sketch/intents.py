"""What is going to be done for a prompt, decided before anything is drawn: steps and mistakes."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from data_pipelines.plan_sketch.mistakes import MistakeKind, mistaken
from data_pipelines.plan_sketch.settings import PlanSketchSettings
from staged.scene_graph import (
    AddObject,
    ChangeAttribute,
    Delta,
    Relate,
    RemoveObject,
    ReplaceObject,
    SceneGraph,
    SwapObjects,
    Vocabulary,
    delta,
    increments,
    varied_path,
)
from staged.scene_graph.matching import embeds, same_scene

_DETOURS = 8


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What is going to be done in one step, decided before anything is asked or drawn.

    Attributes:
        step: The scene before and after.
        inspect_plan: Whether the plan is inspected.
        wrong_plan: The scene of the plan that is wrong first, with the kind of mistake.
        inspect_sketch: Whether the sketch is inspected.
        wrong_sketch: The scene of the sketch that is wrong first, with the kind of mistake.
        look_again: Whether a corrected plan, and a corrected sketch, are inspected once more.
    """

    step: Delta
    inspect_plan: bool
    wrong_plan: tuple[MistakeKind, SceneGraph] | None
    inspect_sketch: bool
    wrong_sketch: tuple[MistakeKind, SceneGraph] | None
    look_again: tuple[bool, bool]


def intents(
    settings: PlanSketchSettings,
    graph: SceneGraph,
    proposed: Vocabulary,
    *,
    rng: random.Random,
    seed_of: Callable[[str], int],
    allowed: Callable[[SceneGraph], bool],
) -> list[Intent]:
    """Split a scene into steps, and choose what is inspected and what is wrong first.

    Args:
        settings: Of the job.
        graph: The wanted scene.
        proposed: What could be drawn instead, by whoever read the prompt.
        rng: Source of every choice.
        seed_of: Seeds by name.
        allowed: Whether the data set may show a scene.
    """
    ours = settings.steps
    words, (fewest, most_steps, max_objects) = ours.vocabulary(proposed), ours.limits
    steps = most_steps if fewest == most_steps else rng.randint(fewest, most_steps)
    path = increments(
        graph,
        seed=seed_of("path"),
        max_steps=steps,
        late_attributes=ours.late_attributes,
        grouped=ours.grouped,
    )
    if rng.random() < ours.varied:
        # Some of the first detours may show what this data set must not.
        for attempt in range(_DETOURS):
            tried = varied_path(
                graph,
                seed=seed_of(f"detour {attempt}"),
                max_steps=steps,
                vocabulary=words,
                variations=ours.variations,
                max_objects=max_objects,
                grouped=ours.grouped,
            )
            if all(allowed(graph) for graph in tried):
                path = tried
                break
    return [
        _intent(settings, graph, delta(before, after), words, rng, allowed)
        for before, after in zip((SceneGraph(), *path), path, strict=False)
    ]


def _intent(
    settings: PlanSketchSettings,
    graph: SceneGraph,
    step: Delta,
    words: Vocabulary,
    rng: random.Random,
    allowed: Callable[[SceneGraph], bool],
) -> Intent:
    critiques = settings.critiques
    *_, most = settings.steps.limits
    # A detour contradicts the prompt on purpose: to approve its plan would teach a falsehood, and
    # to refuse it would undo it. What is left open for now is a detour too.
    ids = [item.id for item in step.after.objects]
    settled = all(i in graph for i in ids) and step.after == graph.subgraph(ids)
    inspect_plan = rng.random() < critiques.plan_share and settled
    inspect_sketch = rng.random() < critiques.sketch_share
    wrong_plan = wrong_sketch = None
    mistake = partial(mistaken, step, rng, vocabulary=words, max_objects=most)
    if inspect_plan and rng.random() < critiques.wrong_plans:
        wrong_plan = mistake(
            kinds=critiques.plan_mistakes,
            counts=lambda wrong: (
                allowed(wrong) and wrong != step.before and not embeds(wrong, graph)
            ),
        )
    if inspect_sketch and rng.random() < critiques.wrong_sketches:
        wrong_sketch = mistake(
            kinds=critiques.sketch_mistakes,
            # Where nothing is drawn yet, to draw nothing is no picture to inspect.
            counts=lambda wrong: (
                bool(wrong.objects or step.before.objects)
                and allowed(wrong)
                and not same_scene(wrong, step.after)
            ),
        )
    return Intent(
        step=step,
        inspect_plan=inspect_plan,
        wrong_plan=wrong_plan,
        inspect_sketch=inspect_sketch,
        wrong_sketch=wrong_sketch,
        look_again=(
            rng.random() < critiques.plan_share,
            rng.random() < critiques.sketch_share,
        ),
    )


def in_short(step: Delta) -> str:
    """Name the operations of a step, for people who look at samples: by classes, not by ids."""

    def name(object_id: str) -> str:
        scene = step.after if object_id in step.after else step.before
        class_name = scene.object(object_id).class_name
        alike = [item.id for item in scene.objects if item.class_name == class_name]
        number = f" {alike.index(object_id) + 1}" if len(alike) > 1 else ""
        return f"{class_name}{number}"

    names = []
    for edit in step:
        match edit:
            case AddObject(object=item) | RemoveObject(object=item):
                names.append(f"{edit.operation} {name(item.id)}")
            case ChangeAttribute(object_id=item, kind=kind, before=old, after=new):
                change = f"change {kind} of {name(item)}"
                names.append(f"{change} from {old or 'open'} to {new or 'open'}")
            case ReplaceObject(before=old, after=new):
                names.append(f"swap {old} for {new}")
            case SwapObjects(first=first, second=second):
                names.append(f"exchange {name(first)} and {name(second)}")
            case Relate(after=gained):
                names += [f"move {name(r.source)} {r.name} {name(r.target)}" for r in gained]
    return "; ".join(names)
