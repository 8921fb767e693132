"""What is said while trajectories come, and of all of them at the end."""

from __future__ import annotations

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
            return f"stop     by the {ended_by}, {trajectory.num_flow_steps} flow steps in all"
        case Failed(detail=detail):
            return f"failed   {detail}"
    return None
