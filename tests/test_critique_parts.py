"""What the judge says of wrong plans, what of a rollout is learned, how verdicts are balanced."""

from dataclasses import replace

import numpy as np
import pytest

from data_pipelines.critique.balance import Balance
from data_pipelines.critique.lessons import MAKERS, cut, supervised
from data_pipelines.critique.players import JudgedRollout
from data_pipelines.critique.settings import Learned
from data_pipelines.drift.steady import DRIFT
from data_pipelines.inspection import PlanJudgement, SketchJudgement
from data_pipelines.services import ONTO_LATENTS
from staged.shapes.language.advance import advanced, between, corrected
from staged.shapes.language.faults import plan_faults
from staged.shapes.language.instructions import read_edits
from staged.shapes.language.prompts import describe, read_description, write_prompt
from staged.shapes.language.sentences import sample_any_spec
from staged.shapes.language.steps import edits_of
from staged.shapes.players.judging import judge_plan
from staged.shapes.tasks import TASKS, sample_prompt
from staged.shapes.world.spec import Spec
from staged.trajectory import (
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Stop,
    Trajectory,
)


def say(prompt: str, instruction: str, description: str, drawn: str | None = None) -> dict:  # type: ignore[type-arg]
    return judge_plan(
        {
            "prompt": prompt,
            "drawn_so_far": drawn,
            "instruction": instruction,
            "description": description,
        },
        (),
    )


PROMPT = "a photo of a red circle above a blue star"


@pytest.mark.parametrize(
    ("instruction", "description", "drawn", "correction", "plan"),
    [
        (
            "add a green circle", "a green circle", None,
            "make the green circle red", ("add a red circle", "a red circle"),
        ),
        (
            "add a blue star above the red circle", "a blue star above a red circle",
            "a red circle", "move the blue star below the red circle",
            ("add a blue star below the red circle", "a blue star below a red circle"),
        ),
        (  # what is described is right, and what is done is not what is described
            "add a blue star above the red circle", "a red circle above a blue star",
            "a red circle", "move the blue star below the red circle",
            ("add a blue star below the red circle", "a red circle above a blue star"),
        ),
        (  # without what nobody asked for nothing is left to do, so the right next step is taken
            "add a pink heart", "a red circle and a pink heart", "a red circle",
            "replace the pink heart with a blue star",
            ("add a blue star below the red circle", "a red circle above a blue star"),
        ),
    ],
)  # fmt: skip
def test_a_refused_plan_comes_back_as_it_should_be(
    instruction: str, description: str, drawn: str | None, correction: str, plan: tuple[str, str]
) -> None:
    answer = say(PROMPT, instruction, description, drawn)
    assert answer["verdict"] == "revise"
    assert (answer["instruction"], answer["description"]) == plan, answer
    PlanJudgement.model_validate(answer)


def test_sound_is_a_plan_that_does_what_it_says_and_leads_on() -> None:
    first = say(PROMPT, "add a red circle", "a red circle")
    assert first["verdict"] == "accept" and first["sound"] and not first["complete"]
    last = say(
        PROMPT, "add a blue star below the red circle", "a red circle above a blue star",
        "a red circle",
    )  # fmt: skip
    assert last["sound"] and last["complete"]
    again = say(PROMPT, "add a red circle", "a red circle", "a red circle")
    other = say(PROMPT, "add a blue star", "a red circle", None)
    assert not again["sound"] and not other["sound"]
    nonsense = say(PROMPT, "add it", "the red circle circle")
    assert nonsense["verdict"] == "unusable"


def test_whatever_is_planned_wrong_the_corrected_plan_fits_and_can_be_said() -> None:
    rng = np.random.default_rng(0)
    revised = 0
    for number in range(300):
        asked = sample_prompt(TASKS[number % len(TASKS)], rng)
        said = sample_any_spec(rng)
        faults = plan_faults(said, asked.spec)[0]
        try:
            description = describe(said)
        except ValueError:
            continue
        answer = say(asked.text, "add a star", description)
        if answer["verdict"] != "revise":
            assert answer["verdict"] == "unusable" or not faults
            continue
        revised += 1
        right = read_description(answer["description"])
        assert not plan_faults(right, asked.spec)[0], (asked.text, description, answer)
        assert read_edits(answer["instruction"])
        assert answer["complete"] == (not plan_faults(right, asked.spec)[1])
    assert revised > 150


def test_right_steps_lead_to_what_is_asked_for() -> None:
    rng = np.random.default_rng(1)
    for number in range(80):
        asked = sample_prompt(TASKS[number % len(TASKS)], rng).spec
        here, steps = Spec(), 0
        while (step := advanced(here, asked)) is not None:
            assert edits_of(step)
            here, steps = Spec.from_graph(step.after), steps + 1
            assert steps < 6
        faults, pending = plan_faults(here, asked)
        assert not faults and not pending, (write_prompt(asked), describe(here))
        assert not between(here, asked).edits


def test_what_cannot_be_corrected_is_none() -> None:
    asked = read_description("a star")
    said = read_description("a red circle")
    faults = plan_faults(said, asked)[0]
    assert corrected(said, faults, asked) == Spec()


JUDGED = {"critique": "so it is", "correction": "", "instruction": "", "description": ""}


def plan_judgement(verdict: str, *, sound: bool = True, complete: bool = True) -> PlanJudgement:
    words = dict.fromkeys(("correction", "instruction", "description"), "do that")
    texts = words if verdict == "revise" else {}
    return PlanJudgement.model_validate(
        {**JUDGED, **texts, "verdict": verdict, "sound": sound, "complete": complete}
    )


def sketch_judgement(verdict: str) -> SketchJudgement:
    correction = "do that" if verdict == "revise" else ""
    return SketchJudgement.model_validate(
        {"critique": "so it is", "verdict": verdict, "correction": correction}
    )


PICTURE = ImageRef.from_array(np.zeros((8, 8, 3), np.uint8), name="0.png")
ROLLED = (
    Plan(instruction="draw", description="drawn"),
    Inspection(target="plan", verdict="revise", critique="no"),
    Refinement(instruction="do that"),
    Plan(instruction="draw that", description="that"),
    Inspection(target="plan", verdict="accept", critique="yes"),
    Sketch(image=PICTURE),
    Inspection(target="sketch", verdict="revise", critique="no"),
    Refinement(instruction="do that"),
    Sketch(image=PICTURE),
    Inspection(target="sketch", verdict="accept", critique="yes"),
    Plan(instruction="go on", description="all"),
    Inspection(target="plan", verdict="accept", critique="yes"),
    Sketch(image=PICTURE),
    Inspection(target="sketch", verdict="accept", critique="yes"),
    Stop(),
)
MADE = ["model", "judge", "judge", "judge", "judge", "model", "judge", "judge", "editor", "judge"]
MADE += ["model", "judge", "model", "judge", "loop"]


def rolled(*, sound: bool = True) -> tuple[Trajectory, JudgedRollout]:
    rollout = JudgedRollout(
        services=None,  # type: ignore[arg-type]
        makers={place: maker for place, maker in enumerate(MADE) if maker != "loop"},  # type: ignore[misc]
        judgements={
            0: plan_judgement("revise"),
            3: plan_judgement("accept", complete=False),
            5: sketch_judgement("revise"),
            8: sketch_judgement("accept"),
            10: plan_judgement("accept", sound=sound),
            12: sketch_judgement("accept"),
        },
        complete=True,
    )
    return Trajectory(prompt="all", steps=ROLLED, provenance={MAKERS: MADE}), rollout


@pytest.mark.parametrize(
    ("learned", "sound", "unlearned"),
    [
        (Learned(), True, {0, 5, 12}),
        (Learned(), False, {0, 5, 10, 12}),
        (Learned(own_plans=False), True, {0, 5, 10, 12}),
        (Learned(own_sketches=True), True, {0, 5}),
    ],
)
def test_what_is_learned(learned: Learned, sound: bool, unlearned: set[int]) -> None:
    lesson = supervised(*rolled(sound=sound), learned)
    assert lesson is not None
    assert {i for i, step in enumerate(lesson.steps) if not step.loss} == unlearned


def test_a_lesson_ends_where_nothing_more_is_learned() -> None:
    _, rollout = rolled()
    broken_off = Trajectory(prompt="all", steps=ROLLED[:6], provenance={MAKERS: MADE[:6]})
    lesson = supervised(broken_off, rollout, Learned())
    assert lesson is not None and len(lesson.steps) == len(lesson.provenance[MAKERS]) == 5
    alone = Trajectory(prompt="all", steps=ROLLED[:1], provenance={MAKERS: MADE[:1]})
    assert supervised(alone, rollout, Learned()) is None


def test_a_stop_before_the_end_is_not_learned() -> None:
    trajectory, rollout = rolled()
    rollout.complete = False
    lesson = supervised(trajectory, rollout, Learned())
    assert lesson is not None and not isinstance(lesson.steps[-1], Stop)


@pytest.mark.parametrize(("share", "kept"), [(0.5, 20), (0.2, 5), (0.0, 0), (None, 40)])
def test_verdicts_come_in_the_wanted_share(share: float | None, kept: int) -> None:
    learned = Learned(accepted_plans=share, accepted_sketches=None)
    lesson = supervised(*rolled(), learned)
    assert lesson is not None
    data = [(unit, lesson) for unit in range(20)]
    balance = Balance.of(data, learned, seed=3)
    assert balance == Balance.of(reversed(data), learned, seed=3)
    counts = {"accept": 0, "revise": 0}
    for unit, trajectory in data:
        left = balance.applied(unit, trajectory)
        assert left is not None and len(left.provenance[MAKERS]) == len(left.steps)
        for step, maker in zip(left.steps, left.provenance[MAKERS], strict=True):
            assert (maker == "editor") <= isinstance(step, Sketch)
            if isinstance(step, Inspection) and step.target == "plan":
                counts[step.verdict] += step.loss
    assert counts == {"accept": kept, "revise": 20}


def test_what_is_said_of_places_goes_with_the_steps_that_are_left() -> None:
    trajectory, rollout = rolled()
    drift = [{"place": 8, "moved": 0.0}, {"place": 12, "moved": 0.5}]
    noted = {**trajectory.provenance, ONTO_LATENTS: [8, 12], DRIFT: drift}
    lesson = supervised(replace(trajectory, provenance=noted), rollout, Learned())
    assert lesson is not None and lesson.provenance[ONTO_LATENTS] == [8, 12]
    fewer = Balance(frozenset({(0, 4), (0, 9)}), frozenset()).applied(0, lesson)
    assert fewer is not None and fewer.provenance[ONTO_LATENTS] == [7, 10]
    assert fewer.provenance[DRIFT][1] == {"place": 10, "moved": 0.5}
    assert fewer.steps[10] is lesson.steps[12]
    # What comes after the last step that is learned goes, and what is said of it.
    unlearned = (*ROLLED[:10], *(replace(step, loss=False) for step in ROLLED[10:]))
    short = cut(Trajectory(prompt="all", steps=unlearned, provenance={**noted, MAKERS: MADE}))
    assert short is not None and short.provenance[ONTO_LATENTS] == [8]
    assert short.provenance[DRIFT] == drift[:1]


def test_too_many_refusals_stay_in_place_unlearned() -> None:
    learned = Learned(accepted_plans=0.8, accepted_sketches=None)
    lesson = supervised(*rolled(), learned)
    assert lesson is not None
    balance = Balance.of([(unit, lesson) for unit in range(20)], learned, seed=0)
    assert len(balance.unsupervised) == 10 and not balance.left_out
    [unit, place] = next(iter(balance.unsupervised))
    left = balance.applied(unit, lesson)
    assert left is not None and len(left.steps) == len(lesson.steps)
    assert not left.steps[place].loss and left.steps[place + 1].loss
