"""Yes/no questions about a step that depend on one another, after DSG (arXiv 2310.18235).

A question about a property means nothing where the thing itself is missing, so a child question
counts only if its parents hold. The answer wanted is always yes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from staged.scene_graph.edits import (
    AddObject,
    ChangeAttribute,
    Delta,
    Relate,
    RemoveObject,
    ReplaceObject,
    SwapObjects,
)
from staged.scene_graph.graph import Relation, SceneGraph

Subject = Literal["object", "attribute", "relation", "absence"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question.

    Attributes:
        id: Stable within its step: `o1`, `o1.color`, `o1 left of o2`, `no x1`.
        subject: What it is about.
        text: The question, to be answered with yes or no by looking at the image.
        parents: Ids of the questions that must hold for this one to count.
    """

    id: str
    subject: Subject
    text: str
    parents: tuple[str, ...] = ()


def questions(delta: Delta) -> tuple[Question, ...]:
    """Ask whether an image shows what a step changed; parents come before their children."""
    after = delta.after
    asked: dict[str, Question] = {}

    def ask_object(object_id: str) -> str:
        item = after.object(object_id)
        number = after.number(object_id)
        text = (
            f"Is there {_a(item.class_name)}?"
            if number == 1
            else f"Are there at least {number} of this kind: {item.class_name}?"
        )
        asked.setdefault(object_id, Question(id=object_id, subject="object", text=text))
        return object_id

    def ask_attribute(object_id: str, value: str, kind: str) -> None:
        name = f"{object_id}.{kind}"
        same = _number_with(after, object_id, kind, value)
        class_name = after.object(object_id).class_name
        if len(after.of_class(class_name)) == 1:
            text = f"Is the {class_name} {value}?"
        elif same == 1:
            text = f"Is at least one {class_name} {value}?"
        else:
            text = f"Are at least {same} of this kind {value}: {class_name}?"
        parent = ask_object(object_id)
        asked.setdefault(name, Question(id=name, subject="attribute", text=text, parents=(parent,)))

    def ask_relation(relation: Relation) -> None:
        name = f"{relation.source} {relation.name} {relation.target}"
        source, target = _the(after, relation.source), _the(after, relation.target)
        parents = (ask_object(relation.source), ask_object(relation.target))
        text = f"Is {source} {relation.name} {target}?"
        asked.setdefault(name, Question(id=name, subject="relation", text=text, parents=parents))

    def ask_absence(object_id: str, class_name: str) -> None:
        left = len(after.of_class(class_name))
        text = f"Are there exactly {left} of this kind: {class_name}?"
        if left <= 1:
            text = f"Is there {'exactly 1' if left else 'no'} {class_name}?"
        name = f"no {object_id}"
        asked.setdefault(name, Question(id=name, subject="absence", text=text))

    def ask_loss(edit: ChangeAttribute) -> None:
        name = f"no {edit.object_id}.{edit.kind}"
        text = f"Is {_the(after, edit.object_id)} not {edit.before}?"
        parent = ask_object(edit.object_id)
        asked.setdefault(name, Question(id=name, subject="absence", text=text, parents=(parent,)))

    for edit in delta:
        match edit:
            case AddObject():
                ask_object(edit.object.id)
                for attribute in edit.attributes:
                    ask_attribute(attribute.object, attribute.value, attribute.kind)
                for relation in edit.relations:
                    ask_relation(relation)
            case ChangeAttribute(after=None):
                ask_loss(edit)
            case ChangeAttribute(after=str(value)):
                ask_attribute(edit.object_id, value, edit.kind)
            case Relate():
                for relation in edit.after:
                    ask_relation(relation)
            case ReplaceObject():
                ask_object(edit.object_id)
                ask_absence(edit.object_id, edit.before)
            case SwapObjects():
                for end in (edit.first, edit.second):
                    for relation in after.relations_of(end):
                        ask_relation(relation)
            case RemoveObject():
                ask_absence(edit.object.id, edit.object.class_name)
    return tuple(asked.values())


def resolve(asked: Sequence[Question], answers: Mapping[str, bool]) -> dict[str, bool]:
    """Apply the dependencies: a yes stands only where every parent's yes stands.

    Args:
        asked: Questions, parents first, as `questions` gives them.
        answers: Question id -> answered yes.

    Returns:
        Question id -> whether it holds. The step is consistent if all hold; their mean is DSG's
        score.

    Raises:
        ValueError: a question has no answer (unanswered is not no), or asks before its parent.
    """
    holds: dict[str, bool] = {}
    for question in asked:
        if question.id not in answers:
            raise ValueError(f"question {question.id!r} has no answer")
        for parent in question.parents:
            if parent not in holds:
                raise ValueError(f"question {question.id!r} comes before its parent {parent!r}")
        holds[question.id] = answers[question.id] and all(holds[p] for p in question.parents)
    return holds


def _number_with(graph: SceneGraph, object_id: str, kind: str, value: str) -> int:
    """Count, among objects of this one's class up to itself, those with the same value."""
    item = graph.object(object_id)
    same = 0
    for other in graph.of_class(item.class_name):
        same += any((a.kind, a.value) == (kind, value) for a in graph.attributes_of(other.id))
        if other.id == object_id:
            break
    return same


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def _the(graph: SceneGraph, object_id: str) -> str:
    class_name = graph.object(object_id).class_name
    return f"the {class_name}" if len(graph.of_class(class_name)) == 1 else _a(class_name)
