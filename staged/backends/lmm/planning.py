"""What a language model is asked as planner: the next step of a drawing, or that it is done."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator

from staged import protocol, strict_json
from staged.backends.lmm.inspecting import RULES, OptionalText
from staged.backends.lmm.request import LmmRequest
from staged.trajectory import Inspection, Plan, Refinement, Sketch, Trajectory

PROMPT_VERSION = "2"
"""Raised with every change of the words below."""

_WORDS = (
    "An image is drawn in a few steps, each onto the picture before it. You get the prompt of the "
    "whole image, the steps that are drawn (what each changed, and the whole picture after it), "
    "and, where something is drawn, the picture as it is. Plan the next step. instruction: in "
    "the imperative and in few words, what to change; where new things go, seen from what is "
    "there. description: the whole picture after this step in one short phrase, with what stays. "
    "A step draws one or two things, those first that others stand in relation to; together the "
    "steps end in exactly what the prompt asks for, at most six of them. Where refused is given, "
    "that plan of this step was refused for the reason that it names: plan the step anew. done is "
    "true only when something is drawn and nothing of the prompt is left; both texts are empty "
    f"then.{RULES}, or if only one of both is empty."
)


class NextStepAnswer(BaseModel):
    """The next plan, or none."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    done: bool
    instruction: OptionalText
    description: OptionalText

    @model_validator(mode="after")
    def _planned(self) -> NextStepAnswer:
        if not self.done:
            protocol.check_text(self.instruction)
            protocol.check_text(self.description)
        return self


def next_step_request(trajectory: Trajectory, *, seed: int = 0) -> LmmRequest[NextStepAnswer]:
    """Ask for the plan that comes next in a trajectory."""
    drawn, refused = _plans(trajectory)
    content = {
        "prompt": trajectory.prompt,
        "drawn": [{"instruction": p.instruction, "description": p.description} for p in drawn],
        "refused": refused,
    }
    sketch = trajectory.last_sketch
    image = () if sketch is None or sketch.image.png is None else (sketch.image.png,)
    return LmmRequest(
        purpose="plan_next",
        prompt_version=PROMPT_VERSION,
        instructions=_WORDS,
        content=(strict_json.dumps(content), *image),
        answer=NextStepAnswer,
        seed=seed,
    )


def _plans(trajectory: Trajectory) -> tuple[list[Plan], dict[str, str] | None]:
    """The plans that were drawn, and the newest one with its critique where that was refused."""
    drawn: list[Plan] = []
    waiting: Plan | None = None
    critique = correction = ""
    for step in trajectory.steps:
        match step:
            case Plan():
                waiting, critique, correction = step, "", ""
            case Sketch():
                drawn += [] if waiting is None else [waiting]
                waiting = None
            case Inspection():
                critique = step.critique
            case Refinement():
                correction = step.instruction
    if waiting is None or not correction:
        return drawn, None
    return drawn, {
        "instruction": waiting.instruction,
        "description": waiting.description,
        "critique": critique,
        "correction": correction,
    }
