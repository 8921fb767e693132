"""What the judge is asked about plans and sketches, whoever made them."""

from typing import Literal

from pydantic import model_validator

from data_pipelines.answers import StrictAnswer
from data_pipelines.wording import Wording
from staged import protocol
from staged.backends.lmm.inspecting import OptionalText, Text
from staged.backends.lmm.request import LmmRequest
from staged.trajectory import Plan

Judgement = Literal["accept", "revise", "unusable"]
"""Unusable is what no correction could start from."""


class SketchJudgement(StrictAnswer):
    """A critique with a verdict, and the correction that a refusal calls for."""

    critique: Text
    verdict: Judgement
    correction: OptionalText

    @model_validator(mode="after")
    def _corrected(self) -> "SketchJudgement":
        for text in self._needed() if self.verdict == "revise" else ():
            protocol.check_text(text)
        return self

    def _needed(self) -> tuple[str, ...]:
        return (self.correction,)


class PlanJudgement(SketchJudgement):
    """A critique of a plan, with the plan as it should be, and how far it leads."""

    instruction: OptionalText
    description: OptionalText
    sound: bool
    complete: bool

    def _needed(self) -> tuple[str, ...]:
        return (self.correction, self.instruction, self.description)

    @property
    def plan(self) -> Plan:
        """The plan as it should be, of one that is refused."""
        return Plan(instruction=self.instruction, description=self.description)


def plan_judgement_request(
    wording: Wording, prompt: str, drawn_so_far: str | None, plan: Plan, *, seed: int = 0
) -> LmmRequest[PlanJudgement]:
    """Ask whether a plan conflicts with the prompt, and how it should be.

    Args:
        wording: In which words.
        prompt: What is asked for.
        drawn_so_far: Description of the last sketch; None where nothing is drawn.
        plan: The texts of the step.
        seed: See `LmmRequest`.
    """
    content = {
        "prompt": prompt,
        "drawn_so_far": drawn_so_far,
        "instruction": plan.instruction,
        "description": plan.description,
    }
    return wording.request("judge_plan", content, PlanJudgement, seed=seed)


def sketch_judgement_request(
    wording: Wording, prompt: str, plan: Plan, before: bytes | None, image: bytes, *, seed: int = 0
) -> LmmRequest[SketchJudgement]:
    """Ask whether an image conflicts with its plan.

    Args:
        wording: In which words.
        prompt: What is asked for.
        plan: The texts of the step.
        before: The image that it was drawn onto; None where there was none.
        image: The image.
        seed: See `LmmRequest`.
    """
    content = {
        "prompt": prompt,
        "instruction": plan.instruction,
        "description": plan.description,
    }
    images = (image,) if before is None else (before, image)
    return wording.request("judge_sketch", content, SketchJudgement, *images, seed=seed)
