"""What the judge is asked about a checkpoint's own plans and sketches."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from staged import protocol, strict_json
from staged.backends.lmm.inspecting import OptionalText, Text
from staged.backends.lmm.types import LmmRequest
from staged.trajectory import Plan

PROMPT_VERSION = "1"
"""Raised with every change of the words below: answers to other words are not reused."""

Judgement = Literal["accept", "revise", "unusable"]
"""Unusable is what no correction could start from."""


class SketchJudgement(BaseModel):
    """A critique with a verdict, and the correction that a refusal calls for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
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


_PLAN = (
    "An image is drawn in steps, and a plan says what one step draws: an instruction, and a "
    "description of the whole image after it. Check such a plan against the prompt of the image. "
    "First write the critique: go through what the description says of objects, their number, "
    "their attributes, how they stand to one another, and style, and name what contradicts the "
    "prompt, and how. What the prompt asks for and the plan does not draw yet is no conflict: it "
    "can still come. Then give the verdict: accept; revise where something contradicts the "
    "prompt; or unusable where the texts make no sense. For revise also give the correction, an "
    "instruction of one sentence that says what to change in the plan, and instruction and "
    "description of the plan as it should be, which goes on from what is drawn so far; leave all "
    "three empty otherwise. sound says whether the instruction makes just the difference between "
    "what is drawn so far and the description, and whether that brings the image nearer to the "
    "prompt. complete says whether the description, corrected where you corrected it, leaves "
    "nothing of the prompt to come."
)
_SKETCH = (
    "The last image was drawn by the plan below; where there are two, the first is the image that "
    "it was drawn onto. Check it against the description. First write the critique: go through "
    "objects, their number, their attributes, how they stand to one another, and style, by "
    "looking, and name what is not as described, what is there that is not described, and what "
    "the step should have left alone. What the prompt asks for and the description does not "
    "mention yet is no conflict. Then give the verdict: accept; revise where the image conflicts "
    "with the description; or unusable where it cannot be put right by an edit. For revise also "
    "give the correction: an instruction in the imperative that makes the image what is "
    "described, and changes nothing else; leave it empty otherwise."
)


def plan_judgement_request(
    prompt: str, drawn_so_far: str | None, plan: Plan, *, seed: int = 0
) -> LmmRequest[PlanJudgement]:
    """Ask whether a plan conflicts with the prompt, and how it should be.

    Args:
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
    return _request("judge_plan", _PLAN, content, PlanJudgement, (), seed)


def sketch_judgement_request(
    prompt: str, plan: Plan, before: bytes | None, image: bytes, *, seed: int = 0
) -> LmmRequest[SketchJudgement]:
    """Ask whether an image conflicts with its plan.

    Args:
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
    return _request("judge_sketch", _SKETCH, content, SketchJudgement, images, seed)


def _request(
    purpose: Literal["judge_plan", "judge_sketch"],
    instructions: str,
    content: dict[str, Any],
    answer: type[Any],
    images: tuple[bytes, ...],
    seed: int,
) -> LmmRequest[Any]:
    return LmmRequest(
        purpose=purpose,
        prompt_version=PROMPT_VERSION,
        instructions=instructions,
        content=(strict_json.dumps(content), *images),
        answer=answer,
        seed=seed,
    )
