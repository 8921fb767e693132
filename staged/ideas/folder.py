"""An exploration as a folder that people open.

idea2img.json      the whole record
idea-1.png …       images of the idea
draft-1-2.png …    what was drawn, by round and draft; draft-0-1.png … are the control's
trajectory.json    the way to the chosen picture, with its images and final.png, as the staged
                   loop keeps it
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

from staged import images, strict_json
from staged.ideas.exploration import (
    MAX_DRAFTS,
    MAX_ROUNDS,
    Draft,
    DraftRound,
    DraftScore,
    Exploration,
    Feedback,
    PairComparison,
    Place,
)
from staged.ideas.idea import Idea, Part
from staged.jobs.files import write_whole
from staged.scene_graph import Question
from staged.scene_graph.question import Subject
from staged.trajectory import ImageRef
from staged.trajectory_folder import save_trajectory

EXPLORATION: Final = "idea2img.json"
FORMAT: Final = "staged-idea2img/1"
_OURS: Final = re.compile(r"(?:idea-\d+|draft-\d+-\d+)\.(?:png|webp|jpg)", re.ASCII)
_MAX_JSON_BYTES: Final = 32 * 2**20


def save_exploration(folder: Path, exploration: Exploration) -> None:
    """Write an exploration into a folder, in place of one that stands there.

    Args:
        folder: Made if need be.
        exploration: Its images must be loaded.

    Raises:
        ValueError: An image is not loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Absent until everything else is there: whoever finds it finds a whole exploration.
    (folder / EXPLORATION).unlink(missing_ok=True)
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink()
    named = []
    for stem, ref in zip(_stems(exploration), exploration.images, strict=True):
        name = f"{stem}.{images.probe(ref.loaded)[0]}"
        write_whole(folder / name, ref.loaded)
        named.append(replace(ref, name=name))
    save_trajectory(folder, exploration.trajectory())
    text = strict_json.dumps(to_json(exploration.with_images(named)))
    write_whole(folder / EXPLORATION, f"{text}\n".encode())


def load_exploration(folder: Path) -> Exploration:
    """Read what `save_exploration` wrote; nothing read is trusted.

    Args:
        folder: The folder, or the path of its `idea2img.json`.

    Raises:
        ValueError: A file is missing, too large, or not what it should be; names the file.
    """
    path = folder / EXPLORATION if folder.is_dir() else folder
    missing = "; `staged idea2img` writes it"
    data = strict_json.read(path, max_bytes=_MAX_JSON_BYTES, missing=missing)
    try:
        exploration = from_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    loaded = []
    for ref in exploration.images:
        assert ref.name is not None  # JSON knows images by name only; names hold no slashes
        file = path.with_name(ref.name)
        png = images.read_file(file)
        try:
            images.probe(png)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        loaded.append(replace(ref, png=png))
    return exploration.with_images(loaded)


def to_json(exploration: Exploration) -> dict[str, Any]:
    """Return plain JSON, images by name.

    Raises:
        ValueError: An image has no name.
    """
    return {
        "format": FORMAT,
        "idea": [p if isinstance(p, str) else {"image": _name(p)} for p in exploration.idea.parts],
        "seed": exploration.seed,
        "rounds": [_round(one) for one in exploration.rounds],
        "best": _place(exploration.best),
        "final": [{**vars(s), "place": list(s.place)} for s in exploration.final],
        "questions": [
            {"id": q.id, "subject": q.subject, "text": q.text, "parents": list(q.parents)}
            for q in exploration.questions
        ],
        "comparisons": [
            {
                "champion": _place(c.champion),
                "challenger": _place(c.challenger),
                "forward": c.forward,
                "backward": c.backward,
                "reasons": list(c.reasons),
            }
            for c in exploration.comparisons
        ],
        "control": None if exploration.control is None else _round(exploration.control),
        "provenance": exploration.provenance,
    }


def from_json(data: Any) -> Exploration:
    """Read what `to_json` returns; images have names alone.

    Raises:
        ValueError: It is anything else; names the place.
    """
    fields = {"format": str, "idea": list, "seed": int, "rounds": list, "final": list,
              "questions": list, "comparisons": list, "provenance": dict}  # fmt: skip
    found = strict_json.record(data, "exploration", fields, {"best": list, "control": dict})
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']!r:.40} is not {FORMAT!r}")
    if len(found["rounds"]) > MAX_ROUNDS:
        raise ValueError(f"{len(found['rounds'])} rounds exceed {MAX_ROUNDS}")
    control = found.get("control")
    return Exploration(
        idea=Idea(parts=tuple(_read_part(p, f"idea[{i}]") for i, p in enumerate(found["idea"]))),
        seed=found["seed"],
        rounds=tuple(_read_round(r, f"rounds[{i}]") for i, r in enumerate(found["rounds"])),
        best=_read_place(found.get("best"), "best"),
        final=tuple(_read_scored(s, f"final[{i}]") for i, s in enumerate(found["final"])),
        questions=tuple(_read_question(q, i) for i, q in enumerate(found["questions"])),
        comparisons=tuple(_read_comparison(c, i) for i, c in enumerate(found["comparisons"])),
        control=None if control is None else _read_round(control, "control"),
        provenance=found["provenance"],
    )


def _stems(exploration: Exploration) -> list[str]:
    """Names of the images, in the order of `Exploration.images`."""
    rounds = list(enumerate(exploration.rounds, 1))
    control = [(0, exploration.control)] if exploration.control else []
    return [
        *(f"idea-{number}" for number, _ in enumerate(exploration.idea.images, 1)),
        *(
            f"draft-{number}-{index}"
            for number, one in (*rounds, *control)
            for index, draft in enumerate(one.drafts, 1)
            if draft.image
        ),
    ]


def _round(one: DraftRound) -> dict[str, Any]:
    return {
        "drafts": [_draft(draft) for draft in one.drafts],
        "action": one.action,
        "choice": one.choice,
        "answers": None if one.answers is None else dict(one.answers),
        "feedback": None if one.feedback is None else dict(vars(one.feedback)),
    }


def _draft(draft: Draft) -> dict[str, Any]:
    return {
        "prompt": draft.prompt,
        "seed": draft.seed,
        "image": None if draft.image is None else _name(draft.image),
        "onto": _place(draft.onto),
        "failure": draft.failure,
        "detail": draft.detail,
        "score": draft.score,
        "justification": draft.justification,
        "cost": dict(draft.cost),
    }


def _name(ref: ImageRef) -> str:
    if ref.name is None:
        raise ValueError("an image without a name; save the exploration to a folder")
    return ref.name


def _place(place: Place | None) -> list[int] | None:
    return None if place is None else list(place)


def _read_part(value: Any, place: str) -> Part:
    if isinstance(value, str):
        return strict_json.unicode_text(value, place)
    return ImageRef(name=strict_json.record(value, place, {"image": str})["image"])


def _read_round(value: Any, place: str) -> DraftRound:
    optional = {"choice": int, "answers": dict, "feedback": dict}
    found = strict_json.record(value, place, {"drafts": list, "action": str}, optional)
    if len(found["drafts"]) > MAX_DRAFTS * MAX_ROUNDS:
        raise ValueError(f"{place}: {len(found['drafts'])} drafts")
    answers, feedback = found.get("answers"), found.get("feedback")
    for name, yes in (answers or {}).items():
        if type(yes) is not bool:
            raise ValueError(f"{place}.answers: {name!r} is {yes!r:.40}; expected true or false")
    if feedback is not None:
        texts = {"aspect": str, "problem": str, "change": str, "repeated": bool}
        feedback = Feedback(**strict_json.record(feedback, f"{place}.feedback", texts))
    drafts = (_read_draft(d, f"{place}.drafts[{i}]") for i, d in enumerate(found["drafts"]))
    return DraftRound(
        drafts=tuple(drafts),
        action=found["action"],
        choice=found.get("choice"),
        answers=answers,
        feedback=feedback,
    )


def _read_draft(value: Any, place: str) -> Draft:
    required = {"prompt": str, "seed": int, "failure": str, "detail": str,
                "justification": str, "cost": dict}  # fmt: skip
    optional = {"image": str, "onto": list, "score": int}
    found = strict_json.record(value, place, required, optional)
    for unit, amount in found["cost"].items():
        if type(amount) not in (int, float):
            raise ValueError(f"{place}.cost: {unit} is {amount!r:.40}; expected a number")
    image = found.get("image")
    return Draft(
        **{
            **found,
            "image": None if image is None else ImageRef(name=image),
            "onto": _read_place(found.get("onto"), f"{place}.onto"),
        }
    )


def _read_scored(value: Any, place: str) -> DraftScore:
    required = {"place": list, "score": int, "justification": str}
    found = strict_json.record(value, place, required)
    where = _read_place(found["place"], place)
    assert where is not None
    return DraftScore(**{**found, "place": where})


def _read_question(value: Any, index: int) -> Question:
    required = {"id": str, "subject": str, "text": str, "parents": list}
    found = strict_json.record(value, f"questions[{index}]", required)
    parents = [strict_json.unicode_text(p, f"questions[{index}].parents") for p in found["parents"]]
    if found["subject"] not in get_args(Subject):
        raise ValueError(f"questions[{index}].subject: {found['subject']!r:.40} is none")
    return Question(**{**found, "parents": tuple(parents)})


def _read_comparison(value: Any, index: int) -> PairComparison:
    place = f"comparisons[{index}]"
    required = {"champion": list, "challenger": list, "forward": str, "backward": str,
                "reasons": list}  # fmt: skip
    found = strict_json.record(value, place, required)
    reasons = [strict_json.unicode_text(r, f"{place}.reasons") for r in found["reasons"]]
    champion, challenger = (_read_place(found[k], place) for k in ("champion", "challenger"))
    if champion is None or challenger is None or len(reasons) != 2:
        raise ValueError(f"{place}: expected two drafts and two reasons")
    return PairComparison(
        champion=champion,
        challenger=challenger,
        forward=found["forward"],
        backward=found["backward"],
        reasons=(reasons[0], reasons[1]),
    )


def _read_place(value: Any, place: str) -> Place | None:
    if value is None:
        return None
    if len(value) != 2 or any(type(number) is not int or number < 0 for number in value):
        raise ValueError(f"{place}: {value!r:.40} is no draft; expected [round, draft] from 0")
    return Place(*value)
