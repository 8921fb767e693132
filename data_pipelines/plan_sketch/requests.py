"""What the pipeline asks a language model about a prompt, its steps and their images."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from data_pipelines.answers import StrictAnswer
from data_pipelines.wording import Wording
from staged.backends.lmm.inspecting import OptionalText, Text
from staged.backends.lmm.request import LmmRequest
from staged.scene_graph import (
    NUMBER,
    Attribute,
    Delta,
    Question,
    Relation,
    SceneGraph,
    SceneObject,
    Vocabulary,
)
from staged.trajectory import Plan

Grade = Annotated[int, Field(ge=1, le=5)]
"""1 is certainly not, 5 certainly."""

Which = Literal["last", "first"]
_MANY = "many"


class AttributeAnswer(StrictAnswer):
    """An attribute of an object, and what it could be instead."""

    kind: str
    value: str
    instead: list[str]


class ObjectAnswer(StrictAnswer):
    """An object with its attributes, how many it stands for, and what could be there instead."""

    id: str
    class_name: str
    number: Annotated[int, Field(ge=0)]
    attributes: list[AttributeAnswer]
    instead: list[str]


class RelationAnswer(StrictAnswer):
    """A relation between two objects."""

    source: str
    relation: str
    target: str


class LookAnswer(StrictAnswer):
    """How the whole image looks; null is left open."""

    style: str | None
    setting: str | None
    light: str | None
    camera: str | None


class SceneAnswer(StrictAnswer):
    """A scene graph; one that breaks the graph's rules is not valid output."""

    objects: list[ObjectAnswer]
    relations: list[RelationAnswer]
    look: LookAnswer

    @model_validator(mode="after")
    def _legal(self) -> "SceneAnswer":
        if not self.objects:
            raise ValueError("a scene holds at least one object")
        self.graph()
        return self

    def graph(self) -> SceneGraph:
        """Return the graph; how many an object stands for is an attribute of it."""
        return SceneGraph(
            (SceneObject(id=o.id, class_name=o.class_name) for o in self.objects),
            (
                *(
                    Attribute(object=o.id, kind=a.kind, value=a.value)
                    for o in self.objects
                    for a in o.attributes
                ),
                *(
                    Attribute(object=o.id, kind=NUMBER, value=str(o.number or _MANY))
                    for o in self.objects
                    if o.number != 1
                ),
            ),
            (Relation(source=r.source, name=r.relation, target=r.target) for r in self.relations),
        )

    def said_of_all(self) -> dict[str, str]:
        """What is said of the whole image, without what is left open."""
        return {name: said for name, said in self.look.model_dump().items() if said}

    def vocabulary(self) -> Vocabulary:
        """What could be drawn instead of each object and of each attribute."""
        return Vocabulary(
            classes=tuple(sorted({name for o in self.objects for name in o.instead})),
            instead={o.id: tuple(o.instead) for o in self.objects},
            values={(o.id, a.kind): tuple(a.instead) for o in self.objects for a in o.attributes},
        )


class StepAnswer(StrictAnswer):
    """The texts of one step."""

    instruction: Text
    description: Text
    editor_prompt: Text

    @property
    def plan(self) -> Plan:
        """What the model that is trained will write."""
        return Plan(instruction=self.instruction, description=self.description)


class StepsAnswer(StrictAnswer):
    """The texts of all steps, in order."""

    steps: list[StepAnswer]


class SeenAnswer(StrictAnswer):
    """What is seen of one question, and then the grade."""

    id: str
    seen: OptionalText
    grade: Grade


class StepJudgement(StrictAnswer):
    """What an image shows, by somebody who does not know what was wanted."""

    answers: list[SeenAnswer]
    extras: list[OptionalText]
    kept: Grade
    quality: Grade

    @model_validator(mode="after")
    def _once(self) -> "StepJudgement":
        ids = [answer.id for answer in self.answers]
        if len(set(ids)) != len(ids):
            raise ValueError("a question is answered twice")
        return self


def scene_graph_request(wording: Wording, prompt: str, *, seed: int = 0) -> LmmRequest[SceneAnswer]:
    """Ask for the scene graph of a prompt, and for how the whole image looks."""
    return wording.request("scene_graph", {"prompt": prompt}, SceneAnswer, seed=seed)


def steps_request(
    wording: Wording,
    prompt: str,
    look: Mapping[str, str],
    deltas: Sequence[Delta],
    later: Sequence[tuple[str, ...]],
    *,
    seed: int = 0,
) -> LmmRequest[StepsAnswer]:
    """Ask for the texts of every step; the answer has as many.

    Args:
        wording: In which words.
        prompt: What is asked for.
        look: How the whole image looks.
        deltas: The steps.
        later: For each of them what is drawn later, and is not to be named to the editor before.
        seed: See `LmmRequest`.
    """
    content = {
        "prompt": prompt,
        "look": dict(look),
        "steps": [
            {
                "before": step.before.to_dict(),
                "after": step.after.to_dict(),
                "not_yet": list(names),
            }
            for step, names in zip(deltas, later, strict=True)
        ],
    }
    return wording.request("plan_steps", content, _steps_answer(tuple(later)), seed=seed)


def judgement_request(
    wording: Wording,
    questions: Sequence[Question],
    before: bytes | None,
    after: bytes,
    *,
    result: Which = "last",
    seed: int = 0,
) -> LmmRequest[StepJudgement]:
    """Ask what an image shows. Nothing tells what it was to show, but for the questions.

    Args:
        wording: In which words.
        questions: Asked one by one, under neutral names: q1, q2, ...
        before: The image before the step; None for the first one.
        after: The image after it.
        result: As which of two images it is shown.
        seed: See `LmmRequest`.
    """
    images = [after] if before is None else [before, after]
    content = {
        "questions": [{"id": f"q{i}", "question": q.text} for i, q in enumerate(questions, 1)],
        "result": result,
    }
    if result == "first":
        images.reverse()
    return wording.request("judge_step", content, StepJudgement, *images, seed=seed)


def drawn_later(deltas: Sequence[Delta]) -> tuple[tuple[str, ...], ...]:
    """Return for each step of a path the class names that only later ones draw."""
    found = []
    for place, step in enumerate(deltas):
        here = {item.class_name for item in step.after.objects}
        later = {item.class_name for other in deltas[place + 1 :] for item in other.after.objects}
        found.append(tuple(sorted(name for name in later if not names(name, *here))))
    return tuple(found)


def names(name: str, *texts: str) -> bool:
    """Whether a class is named in one of some texts, in the singular or with an s."""
    word = re.compile(rf"\b{re.escape(name)}s?\b", re.IGNORECASE)
    return any(word.search(text) for text in texts)


@lru_cache(maxsize=256)
def _steps_answer(later: tuple[tuple[str, ...], ...]) -> type[StepsAnswer]:
    """Return the schema of exactly so many steps, whose editor is not told what comes later."""

    def not_too_early(answer: StepsAnswer) -> StepsAnswer:
        for step, not_yet in zip(answer.steps, later, strict=True):
            for name in not_yet:
                if names(name, step.editor_prompt):
                    raise ValueError(f"an editor_prompt names {name}, which comes later")
        return answer

    steps = Annotated[list[StepAnswer], Field(min_length=len(later), max_length=len(later))]
    validators: dict[str, Any] = {"not_too_early": model_validator(mode="after")(not_too_early)}
    return create_model(
        f"StepsAnswer{len(later)}",
        __base__=StepsAnswer,
        __validators__=validators,
        steps=(steps, ...),
    )
