"""The steps of a trajectory by round: a plan, its sketch, and how each was inspected and mended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from staged.report.graphs import GraphDrawing, graph_drawings
from staged.trajectory import (
    Answer,
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Stop,
    Thought,
    Trajectory,
)


@dataclass(frozen=True, kw_only=True)
class RoundItem:
    """A plan, a thought, a sketch or an answer, with what led to it and what was said about it.

    Attributes:
        kind: Which of them.
        plan: Where it is a plan.
        sketch: Where it is a sketch.
        answer: Where it is an answer.
        thought: Where it is a thought.
        refinement: The correction that it follows.
        inspection: Of it.
        before: The picture that a sketch goes on from; None where it is the first.
    """

    kind: Literal["plan", "sketch", "answer", "thought", "correction"]
    plan: Plan | None = None
    sketch: Sketch | None = None
    answer: Answer | None = None
    thought: Thought | None = None
    refinement: Refinement | None = None
    inspection: Inspection | None = None
    before: ImageRef | None = None


@dataclass(frozen=True, kw_only=True)
class Round:
    """Attempts that belong together.

    Attributes:
        title: Such as "Round 1"; "Drawn at once" for a sketch without a plan.
        attempts: In order.
        note: What the round was to change, where the data set tells.
        graph: The same as a drawing.
    """

    title: str
    attempts: Sequence[RoundItem]
    note: str = ""
    graph: GraphDrawing | None = None


def rounds(trajectory: Trajectory) -> list[Round]:
    """Group the steps of a trajectory, finished or not; `Stop` is no part of a round."""
    groups: list[list[RoundItem]] = []
    refinement: Refinement | None = None
    before = trajectory.inputs[-1] if trajectory.inputs else None
    seen: Inspection | None
    steps = trajectory.steps
    for number, step in enumerate(steps):
        follower = steps[number + 1] if number + 1 < len(steps) else None
        seen = follower if isinstance(follower, Inspection) else None
        match step:
            case Plan():
                attempt = RoundItem(kind="plan", plan=step, refinement=refinement, inspection=seen)
            case Sketch():
                attempt = RoundItem(
                    kind="sketch",
                    sketch=step,
                    refinement=refinement,
                    inspection=seen,
                    before=before,
                )
                before = step.image
            case Answer():
                attempt = RoundItem(kind="answer", answer=step)
            case Thought():
                attempt = RoundItem(kind="thought", thought=step)
            case Refinement():
                refinement = step
                continue
            case Inspection() | Stop():
                continue
        if not groups or (isinstance(step, Plan) and refinement is None):
            groups.append([])
        groups[-1].append(attempt)
        refinement = None
    if refinement is not None and groups:
        groups[-1].append(RoundItem(kind="correction", refinement=refinement))
    deltas = trajectory.provenance.get("deltas")
    notes = [note for note in deltas if isinstance(note, str)] if isinstance(deltas, list) else []
    graphs = graph_drawings(trajectory.provenance.get("graphs"))
    return [
        Round(
            title=_title(number, group),
            attempts=tuple(group),
            note=notes[number - 1] if number <= len(notes) else "",
            graph=graphs[number - 1] if number <= len(graphs) else None,
        )
        for number, group in enumerate(groups, 1)
    ]


def ending(trajectory: Trajectory) -> str:
    """Say how it ended, in a few words; empty where its outcome says that it ended early."""
    ended_by = trajectory.provenance.get("ended_by")
    if trajectory.provenance.get("failure"):
        return ""
    if not trajectory.complete:
        return "Not finished"
    if ended_by == "policy":
        return "Stopped by the limits of the loop"
    return "Stopped by the model" if ended_by == "model" else "Stop"


def _title(number: int, group: Sequence[RoundItem]) -> str:
    first, last = group[0].kind, group[-1].kind
    if first == "thought" and last == "answer":
        return "Thought and drawn, then answered"
    titles = {"sketch": "Drawn at once", "thought": "Thought, then drawn", "answer": "Answered"}
    return titles.get(first, f"Round {number}")
