"""The miniature world's own players of the loop's roles: they read, look and compute.

Over a model that sketches they are the method's training-free baselines (a scripted planner, a
scripted inspector); with the scripted sketcher they run the loop without any model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from staged.roles import ImageEditor, Preview, RoleError, StepRequest
from staged.scene_graph import SceneGraph
from staged.shapes.language.prompts import describe, read_prompt
from staged.shapes.players import answers
from staged.shapes.players.editor import FORESIGHT, ShapesEditor
from staged.shapes.world.scene import CANVAS_PX
from staged.trajectory import (
    ImageRef,
    Inspection,
    Move,
    Plan,
    Refinement,
    Sketch,
    Target,
    Trajectory,
    Verdict,
)

T = TypeVar("T")
_VERDICTS: dict[str, Verdict] = {"accept": "accept", "revise": "revise"}


class ScriptedPlanner:
    """Plays `Planner` and `Director`: adds to the scene until it holds what the prompt asks for.

    It answers a refused sketch with a refinement and goes on after an accepted one.
    """

    def plan(self, trajectory: Trajectory, *, seed: int) -> Plan:
        """Write the next plan; `seed` changes nothing."""
        path = _understood(lambda: answers.drawing_path(trajectory.prompt))
        number = min(_num_sketched(trajectory), len(path) - 1)
        return _plan(path[number - 1] if number else SceneGraph(), path[number], path[number + 1 :])

    def next_move(self, trajectory: Trajectory) -> Move:
        """Plan and sketch in turn; stop when the last plan is drawn."""
        legal = trajectory.legal_next()
        if not trajectory.steps:
            return "plan"
        if "stop" not in legal:
            return "sketch" if "sketch" in legal else legal[0]
        path = _understood(lambda: answers.drawing_path(trajectory.prompt))
        return "plan" if "plan" in legal and _num_sketched(trajectory) < len(path) else "stop"


class ScriptedInspector:
    """Plays `Inspector` and `Refiner` by reading plans and detecting what sketches show."""

    def inspect(self, trajectory: Trajectory, target: Target, *, seed: int) -> Inspection:
        """Check the last plan against the prompt, or the last sketch against its plan."""
        answer = _inspected(trajectory, target)
        verdict = _VERDICTS[answer["verdict"]]
        return Inspection(target=target, verdict=verdict, critique=answer["critique"])

    def refine(self, trajectory: Trajectory, *, seed: int) -> Refinement:
        """Say how to put right what the last inspection refused, whoever wrote that."""
        target: Target = "plan" if trajectory.legal_next() == ("refine plan",) else "sketch"
        correction = _inspected(trajectory, target)["correction"]
        if not correction:
            raise RoleError("refusal", f"the {target} has no fault to correct")
        return Refinement(instruction=correction)


class ScriptedSketcher:
    """Plays `BatchedSketcher` with an image editor; no flow is computed."""

    num_flow_steps = 0
    num_at_once = 1

    def __init__(self, editor: ImageEditor | None = None) -> None:
        """Draw with an editor, by default the miniature world's own."""
        self._editor = editor or ShapesEditor()

    def draw(
        self, requests: Sequence[StepRequest], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError]:
        """Draw the last plan or refinement of each request onto its last sketch."""
        results: list[Sketch | RoleError] = []
        for request in requests:
            try:
                results.append(self._sketch(request.trajectory, request.seed))
            except RoleError as error:
                results.append(error)
        return results

    def _sketch(self, trajectory: Trajectory, seed: int) -> Sketch:
        before, plan = trajectory.last_sketch, trajectory.last_plan
        step = trajectory.steps[-1] if trajectory.steps else None
        if isinstance(step, Refinement):
            instruction = step.instruction
        elif plan is not None:
            instruction = plan.instruction + FORESIGHT + trajectory.prompt
        else:  # all at once
            [whole] = _understood(lambda: answers.drawing_path(trajectory.prompt, 1))
            instruction = _plan(SceneGraph(), whole, ()).instruction
        pixels = self._editor.edit(
            before.image.array() if before else None,
            instruction,
            width=CANVAS_PX,
            height=CANVAS_PX,
            seed=seed,
        )
        return Sketch(image=ImageRef.from_array(pixels), seed=seed)


def _plan(before: SceneGraph, after: SceneGraph, later: Sequence[SceneGraph]) -> Plan:
    instruction, description = _understood(lambda: answers.step_texts(before, after, later))
    return Plan(instruction=instruction, description=description)


def _num_sketched(trajectory: Trajectory) -> int:
    """Plans that have been drawn: those that a sketch follows."""
    drawn, planned = 0, False
    for step in trajectory.steps:
        if isinstance(step, Sketch) and planned:
            drawn, planned = drawn + 1, False
        planned = planned or isinstance(step, Plan)
    return drawn


def _inspected(trajectory: Trajectory, target: Target) -> dict[str, Any]:
    plan, sketch, prompt = trajectory.last_plan, trajectory.last_sketch, trajectory.prompt
    if target == "plan":
        assert plan is not None
        said = {
            "prompt": prompt,
            "instruction": plan.instruction,
            "description": plan.description,
        }
        return _understood(lambda: answers.inspect_plan(said, ()))
    assert sketch is not None
    picture = sketch.image.loaded

    def look() -> dict[str, Any]:
        wanted = describe(read_prompt(prompt).spec) if plan is None else plan.description
        return answers.inspect_sketch({"description": wanted}, [picture])

    return _understood(look)


def _understood(act: Callable[[], T]) -> T:
    """Turn a text or picture that is not of this world into a failure of the role."""
    try:
        return act()
    except ValueError as error:
        raise RoleError("grammar", str(error)) from None
