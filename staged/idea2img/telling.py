"""What is said while ideas are explored, and of all of them at the end."""

from __future__ import annotations

from textwrap import shorten
from typing import Any

from staged.ideas.exploration import Exploration
from staged.loops.idea2img.events import (
    Checked,
    ChecklistWritten,
    Chosen,
    Compared,
    ControlDrawn,
    DraftDrawn,
    Explored,
    FeedbackGiven,
    IdeaEvent,
    PromptsWritten,
    StepRetried,
)
from staged.report.explored import LINES, outcome, verdict

_MAX_CHARS = 160


def describe(event: IdeaEvent) -> str:
    """Say an event in a line or a few."""
    match event:
        case ChecklistWritten(questions=questions):
            return "asks     " + " ".join(question.text for question in questions)
        case PromptsWritten(round=number, prompts=prompts, action=action):
            what = "edits" if action == "edit" else "prompts"
            lines = [f"round {number + 1}, {what}", *(f"         {prompt}" for prompt in prompts)]
            return "\n".join(lines)
        case DraftDrawn(place=place, draft=draft):
            came = f"not drawn: {draft.failure} {draft.detail}" if draft.failure else "drawn"
            return f"draft    {place} {came}".rstrip()
        case Chosen(place=place, scored=scored, final=final):
            said = ", ".join(f"{one.place}: {one.score} of 10" for one in scored)
            which = "best of all" if final or not scored else "best"
            return f"choose   {which} is {place}" + (f" ({said})" if said else "")
        case Compared(comparison=one):
            result = "takes its place" if one.replaced else "does not take its place"
            if one.contradictory:
                result = "does not: the order decided"
            return f"compare  {one.challenger} with {one.champion}: {result}"
        case Checked(answers=answers):
            return f"check    {sum(answers.values())} of {len(answers)} hold"
        case FeedbackGiven(feedback=feedback):
            again = " (raised before)" if feedback.repeated else ""
            return f"feedback {feedback.problem}{again}\n         -> {feedback.change}"
        case StepRetried(step=step, detail=detail, attempt=attempt):
            return f"retry    {attempt} of {step}: {shorten(detail, _MAX_CHARS)}"
        case ControlDrawn(drafts=drafts):
            return f"control  {drafts} drawn from a person's own prompt"
        case Explored(exploration=exploration):
            return "end      " + ended(exploration)
    raise AssertionError(f"{event} is no event of this loop")


def ended(exploration: Exploration) -> str:
    """Say in a line what an exploration came to."""
    opinions = [
        f"{one.who.removeprefix('The ')}: {one.mark}"
        + (f", {shorten(one.words, _MAX_CHARS)}" if one.good is False and one.words else "")
        for one in outcome(exploration).opinions
    ]
    chosen = "nothing chosen" if exploration.best is None else f"draft {exploration.best}"
    return "; ".join([f"{chosen} of {exploration.num_drafts}", *opinions])


def figures(exploration: Exploration) -> dict[str, Any]:
    """Return an exploration's part of `--json`."""
    refined = exploration.refined
    detected = {line: found[0] for line in LINES if (found := verdict(exploration, line))}
    return {
        "idea": exploration.idea.text,
        "seed": exploration.seed,
        "complete": exploration.complete,
        "prompt": None if refined is None else refined.prompt,
        "rounds": len(exploration.rounds),
        "images": exploration.num_drafts,
        "failure": exploration.provenance.get("failure"),
        **({"detector": detected} if detected else {}),
    }
