"""What the miniature world's language model says in Idea2Img, by reading, looking and remembering.

It reads an idea, writes prompts in the words that the image model was taught, and looks at what
came of them: kinds that were drawn well are asked for again, kinds that were not give way where the
idea leaves them open, and what cannot give way is said from the other end.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from staged.ideas.exploration import MAX_SCORE, Aspect
from staged.shapes.language import instructions as say
from staged.shapes.language.faults import (
    Extra,
    Fault,
    Missing,
    WrongKind,
    WrongLook,
    WrongNumber,
    WrongPlace,
)
from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.prompts import read_prompt, write_prompt
from staged.shapes.language.wishes import MARK, Vision, read_vision, turned
from staged.shapes.players.answers import AnswerFor, corrections
from staged.shapes.sight.detect import detections_in
from staged.shapes.sight.recognition import see
from staged.shapes.sight.verdict import looks
from staged.shapes.sight.wishes import (
    Fulfilment,
    fulfilled,
    relation_is_there,
    wish_is_there,
)
from staged.shapes.world.scene import KINDS, SIZES, Color, Kind, Size
from staged.shapes.world.spec import Spec, Thing

_FAULT_COSTS, _SURPLUS_COSTS = 3, 1
"""What a fault and a thing too many take off a score of 10."""
_POOL = 256
"""Prompts between which it chooses."""
_NOTHING_WRONG = "nothing in it contradicts the idea"


def first_prompts(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Write different prompts, before anything is known of the image model."""
    vision = _vision(content, pictures)
    return {"prompts": _best_prompts(vision, content, Memory())}


def revised_prompts(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Write prompts by what the pictures so far show of the image model."""
    vision = _vision(content, pictures)
    memory = Memory.of(content["memory"], pictures)
    action = {"action": "regenerate"} if content.get("may_edit") else {}
    if content.get("may_edit") and (edit := _edit(vision, content["memory"], pictures)):
        return {"prompts": [edit] * content["number"], "action": "edit"}
    return {"prompts": _best_prompts(vision, content, memory), **action}


def selection(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Score each draft by its faults, and choose the first of those with the fewest."""
    vision = _vision(content, pictures)
    drafts = []
    for draft in content["drafts"]:
        found = fulfilled(vision, detections_in(_picture(draft["image"], pictures)))
        faults, surplus = found.faults
        lost = _FAULT_COSTS * faults + _SURPLUS_COSTS * surplus
        drafts.append(
            {
                "draft": draft["draft"],
                "justification": _said(found),
                "score": max(1, MAX_SCORE - lost),
            }
        )
    best = max(drafts, key=lambda draft: draft["score"])
    return {"drafts": drafts, "choice": best["draft"]}


def comparison(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Prefer the picture with fewer faults, then with fewer things too many."""
    vision = _vision(content, pictures)
    first, second = (
        fulfilled(vision, detections_in(_picture(content[name], pictures)))
        for name in ("first", "second")
    )
    better = "neither"
    if first.faults != second.faults:
        better = "first" if first.faults < second.faults else "second"
    said = [_said(found) for found in (first, second)]
    return {"reason": f"the first: {said[0]}; the second: {said[1]}", "better": better}


def feedback(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Name the first fault that was not raised before, and what to ask for instead."""
    vision = _vision(content, pictures)
    entry = _focus(content["memory"])
    judged = fulfilled(vision, detections_in(_picture(entry["image"], pictures)))
    raised = {one["feedback"]["problem"] for one in content["memory"] if "feedback" in one}
    faults = (*judged.check.faults, *judged.check.surplus)
    found = list(zip(faults, judged.reasons, strict=True))
    fresh = [(fault, reason) for fault, reason in found if reason not in raised]
    if not found:
        change = "keep what is asked for"
        return {"aspect": "appearance", "problem": _NOTHING_WRONG, "change": change}
    fault, reason = (fresh or found)[0]
    return {"aspect": _aspect(fault), "problem": reason, "change": _change(fault, vision)}


def checklist(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Ask for each thing, its looks, where things stand, and whether all is there at once."""
    vision = _vision(content, pictures)
    asked: list[dict[str, Any]] = []

    def ask(name: str, subject: str, text: str, parents: Sequence[str] = ()) -> str:
        question = {"id": name, "subject": subject, "question": text, "parents": list(parents)}
        asked.append(question)
        return name

    last: list[str] = []
    for number, wish in enumerate(vision.wishes, 1):
        thing = "anything" if wish.kind is None else f"a shape of the kind {wish.kind}"
        last.append(ask(f"w{number}", "object", f"Is there {thing}?"))
        if wish.color or wish.size:
            last[-1] = ask(f"w{number}.look", "attribute", f"Is there {wish}?", [last[-1]])
    for index, (a, names, b) in enumerate(vision.relations):
        where = " or ".join(names)
        text = f"Is {vision.wishes[a]} {where} {vision.wishes[b]}?"
        ask(f"r{index + 1}", "relation", text, [last[a], last[b]])
    ask("all", "object", "Is all of it there at once, each a shape of its own?", last)
    return {"questions": asked}


def check(content: dict[str, Any], pictures: Sequence[bytes]) -> dict[str, Any]:
    """Answer a checklist of `checklist` by looking."""
    vision = _vision(content, pictures)
    seen = detections_in(_picture(content["picture"], pictures))

    def holds(name: str) -> bool:
        if name == "all":
            return fulfilled(vision, seen).correct
        if name.startswith("r"):
            return relation_is_there(vision, int(name[1:]) - 1, seen)
        number, _, look = name[1:].partition(".")
        return wish_is_there(vision.wishes[int(number) - 1], seen, colored=bool(look))

    return {"answers": [{"id": q["id"], "yes": holds(q["id"])} for q in content["questions"]]}


EXPLORING: dict[str, AnswerFor] = {
    "idea_prompts": first_prompts,
    "idea_revision": revised_prompts,
    "idea_selection": selection,
    "idea_comparison": comparison,
    "idea_feedback": feedback,
    "idea_checklist": checklist,
    "idea_check": check,
}
"""By the name of the response format."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the rounds so far show of the image model.

    Attributes:
        tried: Prompts that were used.
        drawn: (kind, colour) -> how often it came as asked, less how often it did not; a colour of
            None counts the kind in whatever colour.
    """

    tried: frozenset[str] = frozenset()
    drawn: tuple[tuple[tuple[Kind, Color | None], int], ...] = ()

    @classmethod
    def of(cls, entries: Sequence[dict[str, Any]], pictures: Sequence[bytes]) -> Memory:
        """Look at each round's prompt and picture."""
        drawn: Counter[tuple[Kind, Color | None]] = Counter()
        for entry in entries:
            try:
                spec = read_prompt(entry["prompt"]).spec
            except GrammarError:
                continue  # an instruction, or somebody else's words
            seen = [looks(d) for d in detections_in(_picture(entry["image"], pictures))]
            for thing in spec.things:
                came = sum(thing.allows(other) for other in seen) >= thing.number
                for color in {thing.color, None}:
                    drawn[thing.kind, color] += 1 if came else -1
        return cls(
            tried=frozenset(entry["prompt"] for entry in entries), drawn=tuple(drawn.items())
        )

    def trust(self, spec: Spec) -> int:
        """How well the things of a prompt were drawn so far."""
        drawn = dict(self.drawn)
        return sum(
            drawn.get((thing.kind, thing.color), 0) + drawn.get((thing.kind, None), 0)
            for thing in spec.things
        )


def _best_prompts(vision: Vision, content: dict[str, Any], memory: Memory) -> list[str]:
    """Choose different prompts: those whose things were drawn best, untried ones first."""
    rng = np.random.default_rng(_digest(content))
    kinds = [KINDS[i] for i in rng.permutation(len(KINDS))]
    specs = list(vision.candidates(kinds))
    drawn = [specs[i] for i in rng.permutation(len(specs))[:_POOL]]
    pool: dict[str, Spec] = {}
    for spec in drawn:
        for told in (spec, turned(spec)):
            pool.setdefault(write_prompt(told), told)
    if len(pool) < content["number"]:  # nothing is open: sizes are left to say
        for spec in drawn:
            for size in SIZES:
                told = _sized(spec, size)
                pool.setdefault(write_prompt(told), told)
    ranked = sorted(pool, key=lambda text: (text in memory.tried, -memory.trust(pool[text])))
    return _spread(ranked, pool, content["number"])


def _spread(ranked: Sequence[str], pool: dict[str, Spec], number: int) -> list[str]:
    """Take the best, but no two that ask for the same things as long as there are others."""
    chosen: list[str] = []
    asked: set[tuple[Thing, ...]] = set()
    for fresh in (True, False):
        for text in ranked:
            things = tuple(sorted(pool[text].things, key=str))
            if len(chosen) < number and text not in chosen and (things not in asked or not fresh):
                chosen.append(text)
                asked.add(things)
    if len(chosen) < number:
        raise ValueError(f"{number} different prompts; the idea allows {len(chosen)}")
    return chosen


def _edit(
    vision: Vision, entries: Sequence[dict[str, Any]], pictures: Sequence[bytes]
) -> str | None:
    """Put the best picture right, where one edit does."""
    picture = _picture(_focus(entries)["image"], pictures)
    found = fulfilled(vision, detections_in(picture))
    edits = corrections((*found.check.faults, *found.check.surplus), found.spec)
    if len(edits) != 1 or isinstance(edits[0], say.Move):
        return None
    return say.write_edits(edits, voice="refinement")


def _focus(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The picture that is marked as best, or the last."""
    return next((entry for entry in entries if entry.get("best")), entries[-1])


def _aspect(fault: Fault) -> Aspect:
    match fault:
        case WrongNumber():
            return "counts"
        case WrongLook(wanted=wanted):
            return "size" if wanted in SIZES else "attributes"
        case WrongPlace():
            return "relations"
    return "entities"


def _change(fault: Fault, vision: Vision) -> str:
    match fault:
        case Missing(thing=thing) | WrongKind(wanted=thing) | WrongLook(thing=thing) if all(
            wish.kind != thing.kind for wish in vision.wishes
        ):
            return "ask for another kind of shape where the idea leaves it open"
        case WrongPlace():
            return "say from the other end where things stand"
        case Extra():
            return "ask for nothing but what is wanted"
    return "say the same in other words"


def _said(found: Fulfilment) -> str:
    return "; ".join(found.reasons) or _NOTHING_WRONG


def _sized(spec: Spec, size: Size) -> Spec:
    things = tuple(Thing(**{**vars(thing), "size": thing.size or size}) for thing in spec.things)
    return Spec(things=things, relations=spec.relations)


def _vision(content: dict[str, Any], pictures: Sequence[bytes]) -> Vision:
    parts = content["idea"]
    text = " ".join(part if isinstance(part, str) else MARK for part in parts)
    shown = [_picture(part, pictures) for part in parts if not isinstance(part, str)]
    return read_vision(text, [Spec.from_scene(see(png)) for png in shown])


def _picture(mention: dict[str, Any], pictures: Sequence[bytes]) -> bytes:
    number: int = mention["image"]
    return pictures[number - 1]


def _digest(content: dict[str, Any]) -> int:
    """A number of what was asked: who answers has no other seed."""
    return int.from_bytes(hashlib.sha256(repr(content).encode()).digest()[:8])
