"""Why a prompt became no trajectory, in words that need no knowledge of the pipeline."""

from __future__ import annotations

import re
from typing import Final

_STAGES: Final = {
    "scene_graph": "reading the prompt",
    "plan_steps": "writing the plans",
    "inspect_plan": "inspecting a plan",
    "draw": "drawing a plan",
    "refine": "correcting a sketch",
    "judge_step": "checking a sketch against its plan",
    "inspect_sketch": "inspecting a sketch",
    "rollout": "rolling out the checkpoint",
    "judge_plan": "judging a plan",
    "judge_sketch": "judging a sketch",
}
_REASONS: Final = {
    "object not as planned": "an object is not the one that was planned",
    "attribute not as planned": "an object does not look as planned",
    "relation not as planned": "an object does not stand where it was planned",
    "absence not as planned": "something is still there that was to go",
    "look not as planned": "style, setting, light or view are not those of the prompt",
    "number not as planned": "there are more or fewer of a kind than were planned",
    "something extra": "something is there that nobody asked for",
    "poor quality": "the image is poor as an image",
    "something else changed": "something changed that was to stay as it was",
    "drift: size": "the edit came in another size than the picture before",
    "drift: shift": "the edit shifted the whole picture",
    "drift: zoom": "the edit made the whole picture larger or smaller",
    "drift: turn": "the edit turned the whole picture",
    "drift: tint": "the edit changed the colours of the whole picture",
    "drift: contrast": "the edit changed the contrast of the whole picture",
    "drift: detail": "the edit softened or sharpened the whole picture",
    "drift: drawn anew": "the edit drew most of the picture anew",
    "question left unanswered": "the judge left a question about the picture unanswered",
    "right plan refused": "the inspector refused a plan that was right",
    "right sketch refused": "the inspector refused a sketch that was right",
    "no room": "the editor found no room on the canvas",
    "nothing to edit": "the editor did not find what it was to change",
    "not understood": "the editor did not understand the instruction",
    "nothing to learn": "nothing was wrong that could be put right, and nothing right to learn",
    "unusable": "the judge could not start a correction from it",
    "protocol": "the checkpoint wrote what is no step",
    "illegal": "the checkpoint wrote a step that may not stand there",
    "not_finite": "the checkpoint's numbers are none",
    "refusal": "the model would not answer",
    "content_filter": "a filter withheld the answer",
    "truncated": "the answer was cut off",
    "invalid_output": "the answers did not have the form that was asked for",
    "rate_limit": "the service was busy at every attempt",
    "timeout": "the service did not answer in time",
    "connection": "the service could not be reached",
    "server_error": "the service failed at every attempt",
    "bad_request": "the service did not take the request",
    "unsupported": "the service does not take a field of the request",
}
_MISTAKES: Final = {
    "class": "a wrong object",
    "attribute": "a wrong look",
    "relation": "a wrong place",
    "elsewhere": "a place beside the right one",
    "extra": "one object too many",
    "lost": "a lost object",
    "undone": "nothing done",
}
_FROM_FIRST: Final = re.compile(r"drift from the first: (.+)")
_NOT_SEEN: Final = re.compile(r"wrong (.+) not seen")
_TOO_MANY: Final = re.compile(r"more than ([0-9]+) objects")


def reason_in_words(stage: str, reason: str) -> str:
    """Say where a unit ended, and why; names that are not known here stay as they are.

    Args:
        stage: Of the pipeline.
        reason: As the ledger counts it.
    """
    said = _REASONS.get(reason, reason)
    if found := _NOT_SEEN.fullmatch(reason):
        kind = _MISTAKES.get(found[1], found[1])
        said = f"the inspector did not see the deliberate mistake ({kind})"
    elif found := _FROM_FIRST.fullmatch(reason):
        one = _REASONS.get(f"drift: {found[1]}", reason)
        said = one.replace("the edit ", "the edits together ") + " since the first one"
    elif found := _TOO_MANY.fullmatch(reason):
        said = f"the scene has more than {found[1]} objects"
    return f"{_STAGES.get(stage, stage)}: {said}"


def mistake_in_words(note: str) -> str:
    """Say a deliberate mistake, which a trajectory notes as `plan: class` or the like."""
    where, _, kind = note.partition(": ")
    return f"{_MISTAKES.get(kind, kind)} in a {where}" if kind else note
