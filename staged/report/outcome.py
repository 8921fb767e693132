"""What came of a trajectory: the picture, the facts beside it, and who says what about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from staged.trajectory import Answer, ImageRef, Inspection, Plan, Sketch, Trajectory

_FAILURES = {
    "protocol": "the model wrote a text that is none of the steps, each time it was asked",
    "truncated": "the model wrote a text that did not end within its limit",
    "illegal": "the model wrote a step that may not come there, each time it was asked",
    "limit": "no flow steps were left for the next sketch",
    "refusal": "a player would not answer",
    "content_filter": "a service withheld the image",
    "grammar": "a player could not read what it was given",
    "not understood": "the editor did not understand the instruction",
}
EARLY = "ended early"
"""The mark of a run that did not come to its end."""

_MAX_CHARS = 400


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What somebody says about a picture.

    Attributes:
        who: Such as "The model" or "The detector".
        mark: The verdict in a word or two.
        good: Whether it speaks for the picture; None for neither.
        words: Why.
    """

    who: str
    mark: str
    good: bool | None = None
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a trajectory.

    Attributes:
        prompt: What was asked for.
        image: The last picture, loaded; None where there is none.
        facts: Names and values, such as ("seed", "0").
        opinions: In order; the model's own first.
        text: The answer, where one was asked for.
    """

    prompt: str
    image: ImageRef | None = None
    facts: Sequence[tuple[str, str]] = ()
    opinions: Sequence[Opinion] = ()
    text: str = ""

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        *,
        facts: Sequence[tuple[str, str]] = (),
        opinions: Sequence[Opinion] = (),
    ) -> Self:
        """Read an outcome from a trajectory and its provenance, which may be anything.

        Args:
            trajectory: Its last sketch is the picture.
            facts: Further ones, behind its own.
            opinions: Further ones, behind the model's; where none is a detector's, that of the
                provenance is taken.
        """
        answer = next((s.text for s in trajectory.steps if isinstance(s, Answer)), "")
        sketch = trajectory.last_sketch
        said = [*_own(trajectory), *(opinions or _detected(trajectory)), *_early(trajectory)]
        return cls(
            prompt=trajectory.prompt,
            image=None if sketch is None else sketch.image,
            facts=[*_facts(trajectory), *facts],
            opinions=said,
            text=answer,
        )


def detector(correct: bool | None, reasons: Sequence[str]) -> Opinion:
    """Say what somebody who looks at the pixels alone found.

    Args:
        correct: Whether the picture shows what was asked for; None where it could not be said.
        reasons: Of a wrong picture; of a right one, what is there beside.
    """
    mark = {True: "right", False: "wrong", None: "unscored"}[correct]
    words = "; ".join(reasons)
    if correct and not words:
        words = "everything that was asked for is there"
    return Opinion(who="The detector", mark=mark, good=correct, words=_cut(words))


def noted_verdict(noted: Any) -> tuple[bool, list[str]] | None:
    """Read what a detector has said; None where it has not.

    Args:
        noted: From provenance, so it may be anything.
    """
    found = _mapping(noted)
    correct, reasons = found.get("correct"), found.get("reasons")
    if not isinstance(correct, bool):
        return None
    listed = reasons if isinstance(reasons, list) else []
    return correct, [reason for reason in listed if isinstance(reason, str)]


def _own(trajectory: Trajectory) -> list[Opinion]:
    """The last look at the last sketch."""
    looks = [s for s in trajectory.steps if isinstance(s, Sketch | Inspection)]
    if not any(isinstance(s, Sketch) for s in looks):
        return []
    models = _mapping(trajectory.provenance.get("models"))
    who = "The model" if "ended_by" in trajectory.provenance else "The inspector"
    inspector = models.get("inspector")
    if isinstance(inspector, str) and inspector != models.get("sketcher"):
        who = f"The inspector ({inspector:.60})"
    last = looks[-1]
    if not isinstance(last, Inspection):
        if not any(isinstance(s, Inspection) for s in looks):
            return []  # drawn in a way that knows no inspections
        return [Opinion(who=who, mark="did not look", words="the last sketch was not inspected")]
    good = last.verdict == "accept"
    return [
        Opinion(
            who=who,
            mark="accepts it" if good else "refuses it",
            good=good,
            words=last.critique,
        )
    ]


def _detected(trajectory: Trajectory) -> list[Opinion]:
    found = noted_verdict(trajectory.provenance.get("detector"))
    return [] if found is None else [detector(*found)]


def _early(trajectory: Trajectory) -> list[Opinion]:
    """Why it did not come to its end: that says nothing of the picture that is there."""
    failure = trajectory.provenance.get("failure")
    if not isinstance(failure, str) or not failure:
        return []
    words = _FAILURES.get(failure, failure)
    detail = trajectory.provenance.get("failure_detail")
    if isinstance(detail, str) and detail:
        words += f" ({_cut(detail)})"
    words += (
        ". The picture is the last one before that"
        if trajectory.last_sketch
        else ". Nothing was drawn before that"
    )
    return [Opinion(who="The run", mark=EARLY, words=words)]


def _facts(trajectory: Trajectory) -> list[tuple[str, str]]:
    facts = []
    seed = _mapping(trajectory.provenance.get("seeds")).get("rollout")
    if isinstance(seed, int):
        facts.append(("seed", str(seed)))
    plans = _rounds(trajectory)
    if plans:
        facts.append(("rounds", str(plans)))
    sketches = sum(isinstance(step, Sketch) for step in trajectory.steps)
    if sketches > 1:
        facts.append(("sketches", str(sketches)))
    if trajectory.num_flow_steps:
        facts.append(("flow steps", str(trajectory.num_flow_steps)))
    return facts


def _rounds(trajectory: Trajectory) -> int:
    """Plans that are no corrections of the plan before."""
    kinds = [s for s in trajectory.steps if isinstance(s, Plan | Sketch)]
    before = [None, *kinds]
    return sum(
        isinstance(step, Plan) and not isinstance(last, Plan)
        for last, step in zip(before, kinds, strict=False)
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"
