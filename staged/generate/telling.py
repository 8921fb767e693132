"""What is said while trajectories come, and of all of them at the end."""

from __future__ import annotations

from dataclasses import replace
from textwrap import shorten
from typing import Any

from staged.loops.events import (
    Answered,
    Event,
    Failed,
    Inspected,
    PlanWritten,
    Refined,
    Retried,
    SketchDrawn,
    Stopped,
    ThoughtWritten,
)
from staged.report import EARLY, Outcome
from staged.shapes.sight.judged import judged
from staged.trajectory import Answer, Trajectory

_MAX_CHARS = 160
"""Of a fault; the page and `--json` have all."""


def describe(event: Event) -> str | None:
    """Say an event in a line; None for those that only a screen can show."""
    match event:
        case PlanWritten(step=step):
            return f"plan     {step.instruction}\n         -> {step.description}"
        case ThoughtWritten(step=step):
            return f"think    {step.text}"
        case SketchDrawn(step=step):
            return f"sketch   drawn in {step.num_flow_steps} flow steps, seed {step.seed}"
        case Inspected(step=step):
            return f"inspect  {step.target}: {step.verdict}: {step.critique}"
        case Refined(step=step):
            return f"refine   {step.instruction}"
        case Answered(step=step):
            return f"answer   {step.text}"
        case Retried(attempt=attempt, detail=detail):
            return f"retry    {attempt}: {detail}"
        case Stopped(ended_by=ended_by, trajectory=trajectory):
            stop = f"stop     by the {ended_by}, {trajectory.num_flow_steps} flow steps in all"
            return stop + _opinions(trajectory)
        case Failed(detail=detail, trajectory=trajectory):
            return f"failed   {detail}" + _opinions(trajectory)
    return None


def looked_at(event: Event) -> Event:
    """Let the detector look at what a miniature drew, where an event ends a trajectory."""
    if not isinstance(event, Stopped | Failed):
        return event
    return replace(event, trajectory=judged(event.trajectory))


def figures(trajectory: Trajectory) -> dict[str, Any]:
    """Return a picture's part of `--json`: what was asked for, and who says what of it."""
    opinions = [
        {"who": opinion.who, "mark": opinion.mark, "good": opinion.good, "words": opinion.words}
        for opinion in Outcome.of(trajectory).opinions
    ]
    texts = [step.text for step in trajectory.steps if isinstance(step, Answer)]
    return {
        "prompt": trajectory.prompt,
        **({"answer": texts[0]} if texts else {}),
        "seed": trajectory.provenance["seeds"]["rollout"],
        "flow_steps": trajectory.num_flow_steps,
        "complete": trajectory.complete,
        "opinions": opinions,
    }


def _opinions(trajectory: Trajectory) -> str:
    """Say in a line below what the model and a detector think of the picture."""
    said = [
        f"{opinion.who.removeprefix('The ')}: {opinion.mark}"
        + (f", {shorten(opinion.words, _MAX_CHARS)}" if opinion.good is False else "")
        for opinion in Outcome.of(trajectory).opinions
        if opinion.mark != EARLY
    ]
    return f"\n         {'; '.join(said)}" if said else ""
