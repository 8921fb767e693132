"""What the miniature world's language model says to each kind of request, by looking and reading.

Every function gets the JSON of the user message and the encoded images after it, and returns the
answer as the request's schema wants it, which the client checks as it does anybody's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import Any

from staged.scene_graph import SceneGraph, delta, increments
from staged.shapes.language import instructions as say
from staged.shapes.language.critiques import (
    PlanCritique,
    write_plan_critique,
    write_sketch_critique,
)
from staged.shapes.language.faults import (
    Contradiction,
    Extra,
    Fault,
    Misplaced,
    Missing,
    PlanFault,
    WrongNumber,
    correct,
    instruction_faults,
    plan_faults,
)
from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.prompts import read_description, read_prompt
from staged.shapes.language.steps import describe_graph, edits_of
from staged.shapes.players.looking import Onlooker
from staged.shapes.sight.detect import detections_in
from staged.shapes.sight.recognition import see, tinted
from staged.shapes.sight.verdict import satisfied
from staged.shapes.world.spec import INVERSE, Spec, Thing

MAX_PLANS = 6
"""Most steps by which a prompt is drawn."""
AnswerFor = Callable[[dict[str, Any], Sequence[bytes]], dict[str, Any]]


def scene_graph(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Read a prompt; facts that it rests on are known."""
    graph = read_prompt(content["prompt"]).spec.to_graph()
    return {
        "objects": [
            {
                "id": thing.id,
                "class_name": thing.class_name,
                "attributes": [
                    {"kind": attribute.kind, "value": attribute.value, "instead": []}
                    for attribute in graph.attributes_of(thing.id)
                ],
                "number": 1,
                "instead": [],
            }
            for thing in graph.objects
        ],
        "relations": [
            {"source": relation.source, "relation": relation.name, "target": relation.target}
            for relation in graph.relations
        ],
        "look": {"style": None, "setting": None, "light": None, "camera": None},
    }


def plan_steps(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Say what each step does, and what the picture then holds.

    Steps follow one another, or stand alone, as deliberate mistakes do. The prompt's scene has the
    names that it has in `scene_graph`.
    """
    scenes = [
        [SceneGraph.from_dict(step[name]) for name in ("before", "after")]
        for step in content["steps"]
    ]
    goal = read_prompt(content["prompt"]).spec.to_graph()
    steps = []
    for number, (before, after) in enumerate(scenes):
        following = takewhile(lambda pair: pair[0][1] == pair[1][0], pairwise(scenes[number:]))
        later = [*(scene for _, (_, scene) in following), goal]
        instruction, description = step_texts(before, after, later)
        steps.append(
            {
                "instruction": instruction,
                "description": description,
                "editor_prompt": instruction,
            }
        )
    return {"steps": steps}


def step_texts(
    before: SceneGraph, after: SceneGraph, later: Sequence[SceneGraph]
) -> tuple[str, str]:
    """Say what a step does, in view of those that follow, and what the picture then holds."""
    return say.write_edits(edits_of(delta(before, after), later)), describe_graph(after)


def judge_step(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Answer questions about a picture, and say what else has come, gone or changed."""
    scenes = [see(picture) for picture in pictures]
    if content["result"] == "first":
        scenes.reverse()
    onlooker = Onlooker(scenes[-1], scenes[0] if len(scenes) > 1 else None)
    answers = []
    for question in content["questions"]:
        yes = onlooker.answer(question["question"])
        seen = f"it is {'so' if yes else 'not so'}"
        answers.append({"id": question["id"], "seen": seen, "grade": 5 if yes else 1})
    changed = onlooker.lost() or (len(scenes) > 1 and tinted(scenes[0], scenes[-1]))
    return {
        "answers": answers,
        "extras": onlooker.extras(),
        "kept": 1 if changed else 5,
        "quality": 5,
    }


def inspect_plan(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Compare what a plan describes with the prompt, and what it does with what it describes."""
    asked = read_prompt(content["prompt"]).spec
    said = read_description(content["description"])
    found, pending = plan_faults(said, asked)
    faults = tuple(_with_rival(fault, asked, pending) for fault in found)
    faults = faults or instruction_faults(_told(content["instruction"]), said)
    critique = PlanCritique(faults=faults) if faults else PlanCritique(pending=pending)
    edits = [edit for fault in faults for edit in _corrected_plan(fault, asked)]
    return _inspection(write_plan_critique(critique), edits)


def inspect_sketch(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Compare what a picture shows with what its plan describes."""
    spec = _described(content["description"])
    (picture,) = pictures
    verdict = satisfied(spec, detections_in(picture))
    faults = (*verdict.faults, *(_counted(fault, spec) for fault in verdict.surplus))
    return _inspection(write_sketch_critique(faults), corrections(faults, spec))


def grade_picture(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Grade a picture from 0 to 10 by the share of what its prompt asks for that is there."""
    (picture,) = pictures
    check = satisfied(read_prompt(content["prompt"]).spec, detections_in(picture))
    reason = write_sketch_critique(check.faults) if check.faults else "as wanted"
    return {"reason": reason, "grade": round(10 * check.share)}


def plan_next(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Add to the scene until it holds what the prompt asks for; what was refused is planned anew.

    It goes by the steps that were drawn, whatever the picture shows.
    """
    path, number = drawing_path(content["prompt"]), len(content["drawn"])
    if number >= len(path):
        return {"done": True, "instruction": "", "description": ""}
    before = path[number - 1] if number else SceneGraph()
    instruction, description = step_texts(before, path[number], path[number + 1 :])
    return {"done": False, "instruction": instruction, "description": description}


ANSWERS: dict[str, AnswerFor] = {
    "scene_graph": scene_graph,
    "plan_steps": plan_steps,
    "judge_step": judge_step,
    "inspect_plan": inspect_plan,
    "inspect_sketch": inspect_sketch,
    "grade_picture": grade_picture,
    "plan_next": plan_next,
}
"""By the name of the response format."""


@lru_cache(maxsize=1024)
def drawing_path(prompt: str, max_steps: int = MAX_PLANS) -> tuple[SceneGraph, ...]:
    """Return the scenes by which a prompt is drawn step by step, the last one what it asks for."""
    return increments(read_prompt(prompt).spec.to_graph(), seed=0, max_steps=max_steps)


def _described(text: str) -> Spec:
    """Read a description, or a prompt: of a picture that was drawn at once it is all there is."""
    try:
        return read_description(text)
    except GrammarError:
        return read_prompt(text).spec


def _inspection(critique: str, edits: Sequence[say.Edit]) -> dict[str, Any]:
    return {
        "critique": critique,
        "verdict": "revise" if edits else "accept",
        "correction": say.write_edits(edits, voice="refinement") if edits else "",
    }


def _told(instruction: str) -> tuple[say.Edit, ...]:
    """The edits of an instruction; none where it is in other words than ours."""
    try:
        return say.read_edits(instruction)
    except ValueError:
        return ()


def _with_rival(fault: PlanFault, asked: Spec, pending: Sequence[Thing]) -> PlanFault:
    """Hold against what nobody asked for the first thing that is still to come."""
    match fault:
        case Contradiction(said=said, asked=None) if pending and not _one_of(said, asked):
            return replace(fault, asked=pending[0])
    return fault


def _counted(fault: Fault, spec: Spec) -> Fault:
    """Call one more of what was asked for a wrong number, and not a stranger."""
    match fault:
        case Extra(thing=seen):
            for thing in spec.things:
                if thing.number == 1 and thing.allows(seen):
                    return WrongNumber(thing=thing, seen=2)
    return fault


def _one_of(said: Thing, asked: Spec) -> bool:
    return any(thing.allows(said) for thing in asked.things)


def _corrected_plan(fault: PlanFault, asked: Spec) -> list[say.Edit]:
    """The edits that would put a planned scene right."""
    match fault:
        case Misplaced(thing=thing, against=against, asked=relation):
            return [say.Move(target=say.Ref(thing=thing), to=(relation, say.Ref(thing=against)))]
        case Contradiction(said=said, asked=wanted):
            if wanted is None:
                return [say.Remove(target=say.Ref(thing=said, any_of=_one_of(said, asked)))]
            return _instead(said, wanted)


def _instead(said: Thing, asked: Thing) -> list[say.Edit]:
    """The edits from what was said to what was asked for."""
    if said.kind == asked.kind and said.number > asked.number:
        surplus = replace(said, number=said.number - asked.number)
        return [say.Remove(target=say.Ref(thing=surplus, any_of=True))]
    if said.kind != asked.kind:
        return [say.Replace(target=say.Ref(thing=said), thing=replace(asked, number=said.number))]
    values = [
        new
        for old, new in ((said.color, asked.color), (said.size, asked.size))
        if new is not None and new != old
    ]
    return [say.Change(target=say.Ref(thing=said), value=value) for value in values]


def corrections(faults: Sequence[Fault], spec: Spec) -> list[say.Edit]:
    """The edits that put a picture right.

    Of what is missing, as much as can be takes the place of what should not be there; the rest
    is added where it belongs, after everything else has found its place.
    """
    missing = [fault.thing for fault in faults if isinstance(fault, Missing)]
    extra = [fault.thing for fault in faults if isinstance(fault, Extra)]
    edits: list[say.Edit] = []
    while extra and missing and missing[0].number == 1:
        edits.append(say.Replace(target=say.Ref(thing=extra.pop(0)), thing=missing.pop(0)))
    edits += [correct(fault) for fault in faults if not isinstance(fault, Missing | Extra)]
    edits += [say.Remove(target=say.Ref(thing=thing)) for thing in extra]
    return edits + [_added(thing, missing, spec) for thing in missing]


def _added(thing: Thing, missing: Sequence[Thing], spec: Spec) -> say.Edit:
    """Add something, in the relations that it has to what is there."""
    index = spec.things.index(thing)
    where = []
    for a, relation, b in spec.relations:
        other, name = (b, relation) if a == index else (a, INVERSE[relation])
        if index in (a, b) and spec.things[other] not in missing:
            where.append((name, say.Ref(thing=spec.things[other])))
    return say.Add(thing=thing, relations=tuple(where))
