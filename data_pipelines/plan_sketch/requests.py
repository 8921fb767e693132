"""What the pipeline asks a language model: the words, their versions, and the answers' schemas.

Each function builds one request. The user message is one JSON object (with images after it), so
that any model, ours included, finds every input under a name.
"""

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from staged import strict_json
from staged.backends.lmm.inspecting import Text
from staged.backends.lmm.types import LmmRequest
from staged.scene_graph import Attribute, Delta, Question, Relation, SceneGraph, SceneObject
from staged.trajectory import Plan

PROMPT_VERSION = "1"
"""Raised with every change of the words below: answers to other words are not reused."""


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


def _request(
    purpose: Literal["scene_graph", "plan_steps", "judge_step"],
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
