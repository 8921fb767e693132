"""Yes/no questions about a step that depend on one another, after DSG (arXiv 2310.18235).

A question about a property means nothing where the thing itself is missing, so a child question
counts only if its parents hold. The answer wanted is always yes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

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

Subject = Literal["object", "attribute", "relation", "absence", "number", "rest", "look"]

NUMBER: Final = "number"
"""Kind of the attribute that says how many an object stands for: a crowd, a flock of twelve."""
TEXT: Final = "text"
"""Kind of the attribute that says what is written on an object."""
MANY: Final = "many"
"""Value of `NUMBER` where nobody says how many."""
_LOOKS: Final = {
    "style": "Does the whole image have this style: {}?",
    "setting": "Does the image show this place or background: {}?",
    "light": "Is the light of the whole image like this: {}?",
    "camera": "Is the image seen and framed like this: {}?",
}
_FIRST: Final = ("size", "age")
"""Kinds of attributes that stand first before a noun: the small red star."""
_BEHIND: Final = frozenset((NUMBER, TEXT, "action", "pose", "expression"))
"""Kinds of attributes that do not stand before a noun."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question.

    Attributes:
        id: Stable within its step: `o1`, `o1.color`, `o1 left of o2`, `no x1`, `exactly star`,
            `same o1`, `look style`.
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
        if kind == TEXT:
            # The words come last and in no quotation marks: they may hold some of their own.
            text = f"Is this written on {the(after, object_id)}, letter for letter: {value}"
        elif kind == NUMBER:
            text = _crowd_question(after, class_name)
        elif len(after.of_class(class_name)) == 1:
            text = f"Is the {class_name} {value}?"
        elif same == 1:
            text = f"Is at least one {class_name} {value}?"
        else:
            text = f"Are at least {same} of this kind {value}: {class_name}?"
        parent = ask_object(object_id)
        asked.setdefault(name, Question(id=name, subject="attribute", text=text, parents=(parent,)))

    def ask_relation(relation: Relation) -> None:
        name = f"{relation.source} {relation.name} {relation.target}"
        source, target = the(after, relation.source), the(after, relation.target)
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
        text = f"Is {the(after, edit.object_id)} not {edit.before}?"
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


def count_questions(graph: SceneGraph) -> tuple[Question, ...]:
    """Ask for the exact number of everything that has one.

    Whether there is a bear cannot see two bears. Of crowds and flocks nobody counts the members.
    """
    asked = []
    for class_name in dict.fromkeys(item.class_name for item in graph.objects):
        items = graph.of_class(class_name)
        if any(a.kind == NUMBER for item in items for a in graph.attributes_of(item.id)):
            continue
        text = f"Are there exactly {len(items)} of this kind: {class_name}?"
        if len(items) == 1:
            text = f"Is there exactly 1 {class_name}?"
        asked.append(Question(id=f"exactly {class_name}", subject="number", text=text))
    return tuple(asked)


def look_questions(look: Mapping[str, str]) -> tuple[Question, ...]:
    """Ask about the image as a whole.

    Args:
        look: What is wanted: `style`, `setting`, `light` and `camera`, as far as they are said.
    """
    return tuple(
        Question(id=f"look {name}", subject="look", text=text.format(look[name]))
        for name, text in _LOOKS.items()
        if name in look
    )


def rest_questions(delta: Delta) -> tuple[Question, ...]:
    """Ask whether what a step leaves alone is still where and as it was.

    Objects that cannot be told apart are asked about together.
    """
    named: dict[str, list[str]] = {}
    for item in delta.untouched:
        named.setdefault(the(delta.after, item), []).append(item)
    asked = []
    for name, ids in named.items():
        text = f"Is {name} as it was in the other image, and in the same place?"
        if len(ids) > 1:
            kind = name.split(" ", 1)[1]
            text = (
                f"Are at least {len(ids)} of this kind as they were in the other image, and in the "
                f"same places: {kind}?"
            )
        asked.append(Question(id=f"same {ids[0]}", subject="rest", text=text))
    return tuple(asked)


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


def _crowd_question(graph: SceneGraph, class_name: str) -> str:
    """Ask how many there are of a class that has a group in it: of all of them together.

    Three red lanterns and two white ones are five lanterns, and not about three.
    """
    numbers = [
        next((a.value for a in graph.attributes_of(item.id) if a.kind == NUMBER), "1")
        for item in graph.of_class(class_name)
    ]
    if all(number.isdigit() for number in numbers):
        return f"Are there about {sum(map(int, numbers))} of this kind: {class_name}?"
    return f"Are there many, or one mass of many, of this kind: {class_name}?"


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def the(graph: SceneGraph, object_id: str) -> str:
    """Name an object: by its class, and where there are others by how it looks.

    "the star" where it is the only one, "the red star" where no other is red, "a red star" where
    several are and all that is said of one is said of another.
    """
    item = graph.object(object_id)
    alike = [other.id for other in graph.of_class(item.class_name) if other.id != object_id]
    if not alike:
        return f"the {item.class_name}"
    words = _adjectives(graph, object_id)
    # "The white with a gold rim teapot" is no English: a phrase stands behind its noun.
    noun = " ".join((*(word for word in words if " " not in word), item.class_name))
    if phrases := [word for word in words if " " in word]:
        noun = f"{noun} that is {' and '.join(phrases)}"
    unique = words and all(not set(words) <= set(_adjectives(graph, other)) for other in alike)
    return f"the {noun}" if unique else _a(noun)


def _adjectives(graph: SceneGraph, object_id: str) -> tuple[str, ...]:
    attributes = [a for a in graph.attributes_of(object_id) if a.kind not in _BEHIND]
    return tuple(a.value for a in sorted(attributes, key=lambda a: a.kind not in _FIRST))
