"""What the pipeline asks a language model: the words, their versions, and the answers' schemas.

Each function builds one request. The user message is one JSON object (with images after it), so
that any model, ours included, finds every input under a name.
"""

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from staged import protocol, strict_json
from staged.backends.lmm.types import LmmRequest
from staged.scene_graph import Attribute, Delta, Question, Relation, SceneGraph, SceneObject
from staged.trajectory import Plan, Verdict

PROMPT_VERSION = "1"
"""Raised with every change of the words below: answers to other words are not reused."""


def _protocol_text(text: str) -> str:
    protocol.check_text(text)
    return text


Text = Annotated[str, Field(max_length=2000), AfterValidator(_protocol_text)]
"""Text that may stand in a trajectory."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AttributeAnswer(_Answer):
    """An attribute of an object."""

    kind: str
    value: str


class ObjectAnswer(_Answer):
    """An object with its attributes."""

    id: str
    class_name: str
    attributes: list[AttributeAnswer]


class RelationAnswer(_Answer):
    """A relation between two objects."""

    source: str
    relation: str
    target: str


class SceneGraphAnswer(_Answer):
    """A scene graph; one that breaks the graph's rules is not valid output."""

    objects: list[ObjectAnswer]
    relations: list[RelationAnswer]

    @model_validator(mode="after")
    def _legal(self) -> "SceneGraphAnswer":
        if not self.objects:
            raise ValueError("a scene holds at least one object")
        self.graph()
        return self

    def graph(self) -> SceneGraph:
        """Return the graph."""
        return SceneGraph(
            (SceneObject(id=o.id, class_name=o.class_name) for o in self.objects),
            (
                Attribute(object=o.id, kind=a.kind, value=a.value)
                for o in self.objects
                for a in o.attributes
            ),
            (Relation(source=r.source, name=r.relation, target=r.target) for r in self.relations),
        )


class StepAnswer(_Answer):
    """The texts of one step."""

    instruction: Text
    description: Text


class StepsAnswer(_Answer):
    """The texts of all steps, in order."""

    steps: list[StepAnswer]


class QuestionAnswer(_Answer):
    """Yes or no to one question."""

    id: str
    yes: bool


class JudgementAnswer(_Answer):
    """Whether a step was drawn as it was wanted."""

    answers: list[QuestionAnswer]
    rest_unchanged: bool
    reason: Annotated[str, Field(max_length=2000)]


class InspectionAnswer(_Answer):
    """An inspection, with the correction that a conflict calls for (empty without one)."""

    critique: Text
    verdict: Verdict
    correction: Annotated[str, Field(max_length=2000)]

    @model_validator(mode="after")
    def _corrected(self) -> "InspectionAnswer":
        if self.verdict == "revise":
            protocol.check_text(self.correction)
        return self


def scene_graph_request(prompt: str, *, seed: int = 0) -> LmmRequest[SceneGraphAnswer]:
    """Ask for the scene graph of a prompt."""
    return _request(
        "scene_graph",
        "Read the prompt of an image as a scene graph. List every object that must be visible, one "
        "entry for each (three apples are three objects), with ids o1, o2, ... in the order of "
        "the prompt, its class as a singular noun, and its attributes (color, size, material, "
        "...) as kind and value. Resolve what is only implied: 'the colour of a ripe banana' is "
        "yellow. List relations between objects in words that read after 'is': left of, on, "
        "holding. Add nothing that the prompt neither says nor implies.",
        {"prompt": prompt},
        SceneGraphAnswer,
        seed=seed,
    )


def steps_request(
    prompt: str, deltas: tuple[Delta, ...], *, seed: int = 0
) -> LmmRequest[StepsAnswer]:
    """Ask for the instruction and the description of every step; the answer has as many."""
    return _request(
        "plan_steps",
        "An image is drawn in steps. For each step you get the scene graph before it and after "
        "it. Write an instruction that makes exactly the difference, in the imperative and in as "
        "few words as are clear, saying where new things go, and a description of the whole "
        "scene after it in one short phrase.",
        {
            "prompt": prompt,
            "steps": [
                {"before": delta.before.to_dict(), "after": delta.after.to_dict()}
                for delta in deltas
            ],
        },
        _steps_answer(len(deltas)),
        seed=seed,
    )


def judgement_request(
    plan: Plan,
    step: Delta,
    questions: tuple[Question, ...],
    before: bytes | None,
    after: bytes,
    *,
    seed: int = 0,
) -> LmmRequest[JudgementAnswer]:
    """Ask whether an image shows what its step was to draw.

    Args:
        plan: The texts of the step.
        step: The scene before it and after it.
        questions: Asked one by one, wanted answer yes.
        before: The image before the step; None for the first one.
        after: The image after it.
        seed: See `LmmRequest`.
    """
    images = (after,) if before is None else (before, after)
    return _request(
        "judge_step",
        "An image was edited. The last image is the result; where there are two, the first is the "
        "image before the edit. Answer every question about the result with yes or no, by "
        "looking, not by what was intended. Then say whether everything that the instruction "
        "does not mention stayed as it was (yes for a first image), and in one sentence what is "
        "wrong, if anything. Ids are those of the scene graphs.",
        {
            "instruction": plan.instruction,
            "description": plan.description,
            "scene_before": step.before.to_dict(),
            "scene_after": step.after.to_dict(),
            "questions": [{"id": q.id, "question": q.text} for q in questions],
        },
        JudgementAnswer,
        images=images,
        seed=seed,
    )


def plan_inspection_request(
    prompt: str, description_before: str | None, plan: Plan, *, seed: int = 0
) -> LmmRequest[InspectionAnswer]:
    """Ask whether a plan conflicts with the prompt."""
    return _request(
        "inspect_plan",
        "Check the plan of a drawing step against the prompt. What the prompt asks for and is not "
        "planned yet is no conflict; what contradicts the prompt is. Give a critique of one short "
        "sentence, the verdict accept or revise, and for revise the corrected instruction of this "
        "step in few words (empty for accept).",
        {
            "prompt": prompt,
            "drawn_so_far": description_before,
            "instruction": plan.instruction,
            "description": plan.description,
        },
        InspectionAnswer,
        seed=seed,
    )


def sketch_inspection_request(
    prompt: str, plan: Plan, image: bytes, *, seed: int = 0
) -> LmmRequest[InspectionAnswer]:
    """Ask whether an image conflicts with its plan."""
    return _request(
        "inspect_sketch",
        "Check the image against the plan of the step that drew it. What the prompt asks for and "
        "the plan does not mention yet is no conflict. Give a critique of one short sentence, the "
        "verdict accept or revise, and for revise an instruction that corrects the image in few "
        "words (empty for accept).",
        {"prompt": prompt, "instruction": plan.instruction, "description": plan.description},
        InspectionAnswer,
        images=(image,),
        seed=seed,
    )


def _request(
    purpose: Literal["scene_graph", "plan_steps", "judge_step", "inspect_plan", "inspect_sketch"],
    instructions: str,
    content: dict[str, Any],
    answer: type[Any],
    *,
    images: tuple[bytes, ...] = (),
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


@lru_cache(maxsize=64)
def _steps_answer(number: int) -> type[StepsAnswer]:
    """Return the schema of exactly so many steps."""
    steps = Annotated[list[StepAnswer], Field(min_length=number, max_length=number)]
    return create_model(f"StepsAnswer{number}", __base__=StepsAnswer, steps=(steps, ...))
