"""What a loop tells while it runs. `rollout` is the index of the prompt it is about."""

from dataclasses import dataclass
from typing import Literal

from staged.roles import Pixels
from staged.trajectory import (
    Answer,
    Inspection,
    Move,
    Plan,
    Refinement,
    Sketch,
    Thought,
    Trajectory,
)

EndedBy = Literal["model", "policy", "failure"]
"""Who ended a trajectory: whoever directs, the policy's mode or limits, or a failed step."""


@dataclass(frozen=True, kw_only=True)
class PlanWritten:
    """A plan was written; `index` is its place among the steps."""

    rollout: int
    index: int
    step: Plan


@dataclass(frozen=True, kw_only=True)
class ThoughtWritten:
    """A thought was written, before anything is drawn."""

    rollout: int
    index: int
    step: Thought


@dataclass(frozen=True, kw_only=True)
class SketchDrawn:
    """A sketch was drawn."""

    rollout: int
    index: int
    step: Sketch


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """A plan or a sketch was inspected."""

    rollout: int
    index: int
    step: Inspection


@dataclass(frozen=True, kw_only=True)
class Refined:
    """A correction was written."""

    rollout: int
    index: int
    step: Refinement


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A question was answered."""

    rollout: int
    index: int
    step: Answer


@dataclass(frozen=True, kw_only=True)
class TextPreviewed:
    """A text is being written: what it says so far, tags included, and what it may become."""

    rollout: int
    index: int
    moves: tuple[Move, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class Previewed:
    """A sketch is forming: the picture that it seems to become after `flow_step` steps."""

    rollout: int
    index: int
    flow_step: int
    num_flow_steps: int
    pixels: Pixels


@dataclass(frozen=True, kw_only=True)
class Retried:
    """A step failed and is tried again; `attempt` counts the failures of this step."""

    rollout: int
    index: int
    moves: tuple[Move, ...]
    reason: str
    detail: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A trajectory is complete."""

    rollout: int
    ended_by: EndedBy
    trajectory: Trajectory


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A trajectory ended without being complete: a step failed as often as it may."""

    rollout: int
    reason: str
    detail: str
    trajectory: Trajectory


StepEvent = PlanWritten | ThoughtWritten | SketchDrawn | Inspected | Refined | Answered
Event = StepEvent | TextPreviewed | Previewed | Retried | Stopped | Failed
