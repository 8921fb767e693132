"""What the miniature world's language model says of plans and pictures that others made.

Like `answers`, for requests that also want the corrected plan, or compare two pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from staged.scene_graph import Delta
from staged.shapes.language import instructions as say
from staged.shapes.language.advance import advanced, between, corrected
from staged.shapes.language.faults import plan_faults
from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.prompts import read_description, read_prompt
from staged.shapes.language.steps import describe_graph, edits_of
from staged.shapes.players import answers
from staged.shapes.world.spec import Spec

_UNUSABLE = "it says nothing that could be drawn"


def judge_plan(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Compare a plan with the prompt; say how it should be, and whether it leads on to the end."""
    asked = read_prompt(content["prompt"]).spec
    before = Spec()
    if content["drawn_so_far"] is not None:
        before = read_description(content["drawn_so_far"])
    try:
        said = read_description(content["description"])
    except GrammarError:
        return _plan_judgement({"critique": _UNUSABLE, "verdict": "unusable", "correction": ""})
    inspection = answers.inspect_plan(content, pictures)
    faults, pending = plan_faults(said, asked)
    if inspection["verdict"] == "accept":
        sound = _sound(content["instruction"], before, said, asked)
        return _plan_judgement(inspection, sound=sound, complete=not pending)
    step = _instead(before, corrected(said, faults, asked), asked)
    if step is None or not step.edits:
        return _plan_judgement({"critique": _UNUSABLE, "verdict": "unusable", "correction": ""})
    after = Spec.from_graph(step.after)
    return _plan_judgement(
        inspection,
        instruction=say.write_edits(edits_of(step)),
        description=describe_graph(step.after),
        complete=not plan_faults(after, asked)[1],
    )


def judge_sketch(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Compare the last picture with what its plan describes."""
    return answers.inspect_sketch(content, pictures[-1:])


def explain_image(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Compare a picture with what it is said to be of."""
    (picture,) = pictures
    seen = answers.inspect_sketch({"description": content["prompt"]}, [picture])
    return {"critique": seen["critique"], "verdict": seen["verdict"]}


def correct_image(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Say what is wrong with the first of two pictures, and whether the second is right."""
    description = {"description": content["prompt"]}
    first, second = (answers.inspect_sketch(description, [picture]) for picture in pictures)
    return {
        "critique": first["critique"],
        "conflicts": first["verdict"] == "revise",
        "correction": first["correction"],
        "explanation": second["critique"],
        "mended": second["verdict"] == "accept",
    }


JUDGEMENTS: dict[str, answers.AnswerFor] = {
    "judge_plan": judge_plan,
    "judge_sketch": judge_sketch,
    "explain_image": explain_image,
    "correct_image": correct_image,
}
"""By the name of the response format."""


def _plan_judgement(
    inspection: dict[str, Any],
    *,
    instruction: str = "",
    description: str = "",
    sound: bool = False,
    complete: bool = False,
) -> dict[str, Any]:
    return {
        **inspection,
        "instruction": instruction,
        "description": description,
        "sound": sound,
        "complete": complete,
    }


def _instead(before: Spec, after: Spec | None, asked: Spec) -> Delta | None:
    """The step to a corrected scene; where that leads nowhere, the step that should come next."""
    if after is not None:
        step = between(before, after)
        if step.edits and _gains(before, after, asked):
            return step
    return advanced(before, asked)


def _sound(instruction: str, before: Spec, said: Spec, asked: Spec) -> bool:
    """Whether an instruction makes the difference to what is described, and that is a gain."""
    try:
        told = say.read_edits(instruction)
        meant = edits_of(between(before, said))
    except ValueError:
        return False
    return _gains(before, said, asked) and _unordered(told) == _unordered(meant)


def _gains(before: Spec, after: Spec, asked: Spec) -> bool:
    """Whether less is to come afterwards, or something that was wrong is right."""
    (wrong, pending), (still_wrong, still_pending) = (
        plan_faults(spec, asked) for spec in (before, after)
    )
    left, now = (sum(thing.number for thing in things) for things in (pending, still_pending))
    return (len(still_wrong), now) < (len(wrong), left) and now <= left


def _unordered(edits: Sequence[say.Edit]) -> set[object]:
    """Edits without the order in which they, and the relations of each, are said.

    Spots are left out: where nothing else is said a plan may choose one.
    """
    return {
        (edit.thing, frozenset(edit.relations)) if isinstance(edit, say.Add) else edit
        for edit in edits
    }
