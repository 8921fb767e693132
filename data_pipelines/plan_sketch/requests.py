"""What the pipeline asks a language model about a prompt, its steps and their images."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from data_pipelines.answers import StrictAnswer
from data_pipelines.naming import names
from data_pipelines.wording import Wording
from staged.backends.lmm.inspecting import OptionalText, Text
from staged.backends.lmm.request import LmmRequest
from staged.scene_graph import (
    MANY,
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
        # What could be there instead is drawn as well, so it must be a label too.
        for item in self.objects:
            for name in item.instead:
                SceneObject(id=item.id, class_name=name)
            for attribute in item.attributes:
                for value in attribute.instead:
                    Attribute(object=item.id, kind=attribute.kind, value=value)
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
                    Attribute(object=o.id, kind=NUMBER, value=str(o.number or MANY))
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
    drawn_so_far: Sequence[str | None] | None = None,
    seed: int = 0,
) -> LmmRequest[StepsAnswer]:
    """Ask for the texts of every step; the answer has as many.

    Args:
        wording: In which words.
        prompt: What is asked for.
        look: How the whole image looks.
        deltas: The steps.
        later: For each of them what is drawn later, and is not to be named before.
        drawn_so_far: For each of them the description of what it begins with, where the steps do
            not follow one another; None where they do.
        seed: See `LmmRequest`.
    """
    content = {
        "prompt": prompt,
        "look": dict(look),
        "steps": [
            {
                "before": step.before.to_dict(),
                "after": step.after.to_dict(),
                "not_yet": list(not_yet),
                **({} if drawn_so_far is None else {"drawn_so_far": drawn_so_far[place]}),
            }
            for place, (step, not_yet) in enumerate(zip(deltas, later, strict=True))
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


def drawn_later(deltas: Sequence[Delta], look: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return for each step of a path the class names that only later ones draw.

    Without those that must be said already: a glass that comes later, where a glass table is there,
    or a beach, where the setting is one.
    """
    found = []
    for place, step in enumerate(deltas):
        later = {item.class_name for other in deltas[place + 1 :] for item in other.after.objects}
        found.append(unsaid(sorted(later), look, step.before, step.after))
    return tuple(found)


def unsaid(
    class_names: Sequence[str], look: Mapping[str, str], *scenes: SceneGraph
) -> tuple[str, ...]:
    """Return the class names that nothing of a look and of some scenes names."""
    said = [*look.values()]
    for scene in scenes:
        said += [item.class_name for item in scene.objects]
        said += [attribute.value for attribute in scene.attributes]
        said += [relation.name for relation in scene.relations]
    return tuple(name for name in class_names if not names(name, *said))


@lru_cache(maxsize=256)
def _steps_answer(later: tuple[tuple[str, ...], ...]) -> type[StepsAnswer]:
    """Return the schema of exactly so many steps, none of which tells what comes later."""

    def not_too_early(answer: StepsAnswer) -> StepsAnswer:
        for step, not_yet in zip(answer.steps, later, strict=True):
            for name in not_yet:
                if names(name, step.instruction, step.description, step.editor_prompt):
                    raise ValueError(f"a step names {name}, which comes later")
        return answer

    steps = Annotated[list[StepAnswer], Field(min_length=len(later), max_length=len(later))]
    validators: dict[str, Any] = {"not_too_early": model_validator(mode="after")(not_too_early)}
    return create_model(
        f"StepsAnswer{len(later)}",
        __base__=StepsAnswer,
        __validators__=validators,
        steps=(steps, ...),
    )
