"""Process metrics on trajectories made by hand: real pictures, the real detector, exact numbers."""

from dataclasses import replace

import pytest

from eval.miniature.course import MAX_BUDGETS, budgets, course_estimates
from eval.miniature.process import process_estimates
from eval.miniature.score import score
from eval.miniature.settings import MiniatureSample
from eval.statistics import Estimate
from staged.shapes.language.prompts import read_prompt
from staged.shapes.tasks import Task, TaskPrompt
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, Shape
from staged.trajectory import (
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Target,
    Trajectory,
)

CIRCLE = Shape(kind="circle", color="red", size="large", x=14, y=24)
STAR = Shape(kind="star", color="blue", size="large", x=34, y=24)
GREEN = replace(CIRCLE, color="green")
HEART = Shape(kind="heart", color="pink", size="small", x=40, y=8)
BOTH = "a photo of a red circle and a blue star"
PLAN_CIRCLE = Plan(instruction="add a red circle", description="a red circle")
PLAN_BOTH = Plan(instruction="add a blue star", description="a red circle and a blue star")


def picture(*shapes: Shape, num_flow_steps: int = 10) -> Sketch:
    pixels = render(Scene(shapes=shapes, background=(160, 165, 170)))
    return Sketch(image=ImageRef.from_array(pixels), num_flow_steps=num_flow_steps)


def accept(target: Target) -> Inspection:
    return Inspection(target=target, verdict="accept", critique="fine")


def refuse(target: Target, critique: str) -> tuple[Inspection, Refinement]:
    refused = Inspection(target=target, verdict="revise", critique=critique)
    return refused, Refinement(instruction="make the circle red")


def sample(text: str, task: Task = "color_attr", key: str = "0") -> MiniatureSample:
    prompt = TaskPrompt(text=text, task=task, request=read_prompt(text))
    return MiniatureSample(key=key, prompt=prompt, seed=0)


def on_the_way(
    samples: dict[str, MiniatureSample], trajectories: dict[str, Trajectory]
) -> dict[str, Estimate]:
    scored = score(list(samples.values()), trajectories)
    return process_estimates(scored) | course_estimates(scored)


def estimates(text: str, *steps: Step, **provenance: object) -> dict[str, Estimate]:
    asked = sample(text)
    trajectory = Trajectory(prompt=text, steps=steps, provenance=provenance)
    return on_the_way({asked.key: asked}, {asked.key: trajectory})


def numbers(found: dict[str, Estimate], *starts: str) -> dict[str, tuple[float | None, int]]:
    """Value and n of those whose name begins so."""
    return {name: (e.value, e.n) for name, e in found.items() if name.startswith(starts)}


def test_inspections_and_refinements_count_by_what_was_there() -> None:
    wrong = Plan(instruction="add a green circle", description="a green circle")
    found = estimates(
        BOTH,
        wrong,
        *refuse("plan", "the plan says a green circle but the prompt asks for a red circle"),
        PLAN_CIRCLE,
        accept("plan"),
        picture(GREEN),
        *refuse("sketch", "the circle is green but should be red"),
        picture(CIRCLE),
        *refuse("sketch", "the circle is blue but should be red"),  # a false alarm
        picture(GREEN),
        accept("sketch"),  # missed
        PLAN_BOTH,
        picture(CIRCLE, STAR),
        Stop(),
    )
    assert numbers(found, "plan", "sketch", "inspect", "refine") == {
        "plan/right": (1.0, 1),
        "plan/consistent": (2 / 3, 3),
        "plan/instruction fits": (1.0, 3),
        "sketch/follows plan": (0.5, 4),
        "inspect plan/precision": (1.0, 1),
        "inspect plan/precision/wrong thing": (1.0, 1),
        "inspect plan/recall": (1.0, 1),
        "inspect plan/recall/wrong thing": (1.0, 1),
        "inspect plan/over-inspection": (0.0, 1),
        "inspect sketch/precision": (0.5, 2),
        "inspect sketch/precision/wrong colour": (0.5, 2),
        "inspect sketch/recall": (0.5, 2),
        "inspect sketch/recall/wrong colour": (0.5, 2),
        "inspect sketch/over-inspection": (0.0, 3),
        "refine plan/helped": (1.0, 1),
        "refine sketch/helped": (1.0, 1),
        "refine sketch/harmed": (1.0, 1),
    }


@pytest.mark.parametrize(
    ("instruction", "fits"),
    [
        ("add a star below the red circle", 1),
        ("add a red circle above the star", 1),
        ("add a star above the red circle", 0),  # the relation turned round
        ("move the star to the left of the red circle", 0),
        ("add a blue star below the red circle", 1),
        ("add two stars", 0),
        ("add a heart", 0),
        ("remove the heart", 1),  # what goes is not in the description
        ("draw something nice", 0),
    ],
)
def test_an_instruction_is_held_against_its_own_description(instruction: str, fits: int) -> None:
    both = "a red circle above a star"
    plan = Plan(instruction=instruction, description=both)
    found = estimates(f"a photo of {both}", plan, picture(CIRCLE), Stop())
    assert found["plan/consistent"].value == 1
    assert found["plan/instruction fits"].value == fits


@pytest.mark.parametrize(
    ("shapes", "critique", "expected"),
    [
        (  # one of two faults named, and one that is not there
            (GREEN, HEART),
            "the circle is green but should be red; the star is missing",
            {"precision/wrong colour": 1, "precision/missing": 0,
             "recall/wrong colour": 1, "recall/surplus": 0},
        ),
        ((), "the red circle is missing", {"precision/missing": 1, "recall/missing": 1}),
        ((STAR, CIRCLE), "the blue star should not be there",
         {"precision/surplus": 1, "recall/surplus": 1}),
        ((replace(CIRCLE, kind="ring"),), "the red ring should be a red circle",
         {"precision/wrong shape": 1, "recall/wrong shape": 1}),
        ((CIRCLE,), "the circle is missing", {"precision/missing": 0}),
    ],
)  # fmt: skip
def test_a_sketchs_faults_are_told_apart_by_kind(
    shapes: tuple[Shape, ...], critique: str, expected: dict[str, float]
) -> None:
    found = estimates(
        "a photo of a red circle", PLAN_CIRCLE, picture(*shapes), *refuse("sketch", critique)
    )
    by_kind = {
        name.removeprefix("inspect sketch/"): estimate.value
        for name, estimate in found.items()
        if name.count("/") == 2
    }
    assert by_kind == expected


def test_words_that_nobody_can_read_leave_kinds_unscored_and_the_verdict_counted() -> None:
    found = estimates(
        "a photo of a red circle",
        PLAN_CIRCLE,
        picture(GREEN),
        *refuse("sketch", "I do not like it"),
    )
    assert found["inspect sketch/recall"].value == 1
    by_kind = found["inspect sketch/recall/wrong colour"]
    assert (by_kind.value, by_kind.unscored) == (None, 1)
    assert "inspect sketch/precision/wrong colour" not in found


def test_asking_for_what_is_not_yet_planned_is_over_inspection() -> None:
    early = refuse("sketch", "the blue star is missing")
    fair = refuse("sketch", "the red circle is missing")
    found = estimates(
        BOTH,
        PLAN_CIRCLE,
        accept("plan"),
        picture(),
        *fair,
        picture(CIRCLE),
        *early,
        picture(CIRCLE),
        accept("sketch"),
        PLAN_BOTH,
        accept("plan"),
        picture(CIRCLE),
        *early,  # now it is planned
    )
    assert numbers(found, "inspect sketch/over") == {"inspect sketch/over-inspection": (1 / 3, 3)}
    assert numbers(found, "inspect plan/over") == {"inspect plan/over-inspection": (0.0, 1)}
    refused = estimates(BOTH, PLAN_CIRCLE, *refuse("plan", "the blue star is still to come"))
    assert refused["inspect plan/over-inspection"].value == 1


def test_a_stop_is_right_when_the_picture_is() -> None:
    first = (PLAN_CIRCLE, picture(CIRCLE))
    second = (PLAN_BOTH, picture(CIRCLE, STAR))
    halves = ("stop/stopped when right", "stop/went on when wrong")
    right, on = halves
    assert numbers(estimates(BOTH, *first, *second, Stop()), "stop") == {
        "stop/right": (1.0, 2), right: (1.0, 1), on: (1.0, 1),
    }  # fmt: skip
    assert numbers(estimates(BOTH, *first, Stop()), "stop") == {"stop/right": (0, 1), on: (0, 1)}
    too_long = estimates(BOTH, *first, *second, PLAN_BOTH, picture(CIRCLE), Stop())
    assert numbers(too_long, "stop") == {"stop/right": (1 / 3, 3), right: (0, 1), on: (0.5, 2)}
    imposed = estimates(BOTH, *first, Stop(), ended_by="policy")
    assert numbers(imposed, "stop") == {}


def test_a_refined_plan_or_sketch_is_no_decision_to_go_on() -> None:
    found = estimates(
        BOTH,
        PLAN_CIRCLE,
        picture(CIRCLE),
        PLAN_BOTH,
        *refuse("plan", "too soon"),
        PLAN_BOTH,
        picture(CIRCLE),
        *refuse("sketch", "the blue star is missing"),
        picture(CIRCLE, STAR),
        Stop(),
    )
    assert found["stop/right"].n == 2
    assert numbers(found, "round 2/c", "round 3") == {"round 2/correct": (1.0, 1)}


def test_accuracy_by_round_and_by_flow_steps_ends_at_the_score() -> None:
    """A trajectory that has ended keeps its picture; tasks weigh the same."""
    quick, slow, none = (
        sample("a photo of a red circle", "colors", "quick"),
        sample(BOTH, "color_attr", "slow"),
        sample("a photo of a blue star", "colors", "none"),
    )
    paths = {
        "quick": (PLAN_CIRCLE, picture(CIRCLE), Stop()),
        "slow": (
            PLAN_CIRCLE,
            picture(GREEN),
            *refuse("sketch", "the circle is green but should be red"),
            picture(CIRCLE),
            PLAN_BOTH,
            picture(CIRCLE, STAR),
            Stop(),
        ),
        "none": (PLAN_CIRCLE,),
    }
    samples = {item.key: item for item in (quick, slow, none)}
    trajectories = {
        key: Trajectory(prompt=samples[key].prompt.text, steps=steps)
        for key, steps in paths.items()
    }
    found = on_the_way(samples, trajectories)
    assert numbers(found, "round", "within") == {
        "round 1/correct": (0.5, 2),
        "round 1/follows plan": (1.0, 2),
        "round 2/correct": (1.0, 2),
        "round 2/follows plan": (1.0, 1),
        "within 10 flow steps/correct": (0.5, 2),
        "within 20 flow steps/correct": (0.5, 2),
        "within 30 flow steps/correct": (1.0, 2),
    }
    assert found["round 1/correct"].unscored == 1
    assert found["within 30 flow steps/correct"].unscored == 1


def test_one_picture_at_once_has_flow_steps_and_no_rounds() -> None:
    found = estimates(BOTH, picture(CIRCLE, STAR, num_flow_steps=20), Stop(), ended_by="policy")
    assert numbers(found, "") == {"within 20 flow steps/correct": (1.0, 1)}
    assert estimates(BOTH, picture(CIRCLE, num_flow_steps=0), Stop(), ended_by="policy") == {}


def test_budgets_begin_where_every_image_has_a_picture_and_stay_few() -> None:
    assert budgets([[20, 40], [30, 60], []]) == [30, 40, 60]
    assert budgets([[]]) == budgets([[0, 0]]) == []
    many = budgets([list(range(1, 301))])
    assert len(many) == MAX_BUDGETS and (many[0], many[-1]) == (1, 300)


def test_what_an_edit_leaves_alone_should_stay() -> None:
    """The heart stays, the star moves by five pixels and then goes; the circle may change."""
    moved = replace(STAR, x=31, y=28)
    found = estimates(
        "a photo of a red circle, a blue star and a pink heart",
        Plan(instruction="add a green circle", description="a green circle"),
        picture(GREEN, STAR, HEART),
        *refuse("sketch", "the circle is green but should be red"),
        picture(CIRCLE, moved, HEART),
        Plan(instruction="move the red circle to the left of the blue star", description="-"),
        picture(replace(CIRCLE, x=12, y=34), HEART),
    )
    kept, shift = found["untouched/kept"], found["untouched/shift px"]
    assert (kept.value, kept.n, kept.unscored) == (0.5, 4, 0)
    assert shift.n == 3
    assert shift.value == pytest.approx(5 / 3, abs=0.5)  # the detector's own pixel included
    words = estimates(
        BOTH, PLAN_CIRCLE, picture(CIRCLE), Plan(instruction="?", description="?"), picture(STAR)
    )
    assert (words["untouched/kept"].value, words["untouched/kept"].unscored) == (None, 1)


def test_an_unreadable_plan_is_wrong_and_its_sketch_is_unscored() -> None:
    found = estimates(
        "a photo of a red circle",
        Plan(instruction="draw", description="something nice"),
        picture(CIRCLE),
        *refuse("sketch", "the red circle is missing"),
    )
    assert found["plan/right"].value == found["plan/consistent"].value == 0
    for name in ("sketch/follows plan", "inspect sketch/precision/missing"):
        assert (found[name].value, found[name].unscored) == (None, 1)


def test_images_of_one_prompt_are_one_cluster() -> None:
    samples = {key: sample(BOTH, key=key) for key in ("a", "b")}
    steps = (PLAN_BOTH, picture(CIRCLE, STAR), Stop())
    trajectories = {key: Trajectory(prompt=BOTH, steps=steps) for key in samples}
    found = on_the_way(samples, trajectories)
    assert {(e.n, e.num_clusters) for e in found.values()} == {(2, 1)}
