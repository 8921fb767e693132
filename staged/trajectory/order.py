"""The order of steps: what each does, and what may come next."""

from collections.abc import Sequence
from typing import Literal

from staged.trajectory.steps import (
    STEP_NAMES,
    Answer,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Thought,
)

Move = Literal[
    "plan",
    "sketch",
    "inspect plan",
    "inspect sketch",
    "refine plan",
    "refine sketch",
    "answer",
    "think",
    "stop",
]
"""What a step does. The kind of the next step together with what it is about."""


class TrajectoryError(ValueError):
    """The order of the steps is illegal.

    Attributes:
        index: Index in `steps` of the offending step; `len(steps)` when one is missing.
    """

    def __init__(self, index: int, reason: str) -> None:
        """Name the step and the reason."""
        super().__init__(f"steps[{index}]: {reason}")
        self.index = index
        self.reason = reason


def moves(steps: Sequence[Step]) -> tuple[Move, ...]:
    """Say what each step does, checking that their order is legal.

    Raises:
        TrajectoryError: with the index of the first step that may not stand where it stands.
    """
    made: list[Move] = []
    for i, step in enumerate(steps):
        if type(step) not in STEP_NAMES:
            raise TrajectoryError(i, f"{type(step).__name__} is no step")
        before = steps[i - 1] if i else None
        move = _move(step, before)
        legal = legal_after(made, before)
        if move not in legal:
            place = f"after {made[-1]}" if made else "at the start"
            expected = " or ".join(legal) or "nothing"
            raise TrajectoryError(i, f"{move} may not come {place}; expected {expected}")
        made.append(move)
    return tuple(made)


def _move(step: Step, before: Step | None) -> Move:
    match step:
        case Inspection(target=target):
            return "inspect plan" if target == "plan" else "inspect sketch"
        case Refinement():
            # A refinement is of what was just inspected; elsewhere it is illegal either way.
            about_plan = isinstance(before, Inspection) and before.target == "plan"
            return "refine plan" if about_plan else "refine sketch"
        case Plan():
            return "plan"
        case Sketch():
            return "sketch"
        case Answer():
            return "answer"
        case Thought():
            return "think"
        case Stop():
            return "stop"


def legal_after(made: Sequence[Move], before: Step | None) -> tuple[Move, ...]:
    """Name the moves that may come next.

    Args:
        made: Moves so far, in a legal order.
        before: The step of the last one.
    """
    if not made:
        return ("plan", "sketch", "answer", "think")
    if isinstance(before, Inspection) and before.verdict == "revise":
        return ("refine plan",) if before.target == "plan" else ("refine sketch",)
    match made[-1]:
        case "plan" | "inspect plan":
            return ("inspect plan", "sketch")
        case "refine plan":
            return ("plan",)
        case "refine sketch" | "think":
            return ("sketch",)
        case "sketch" | "inspect sketch":
            # A trajectory that began at once has one round only; one that began with a thought may
            # be a chain of thoughts and pictures, to an answer in the end.
            further: dict[Move, tuple[Move, ...]] = {
                "plan": ("plan",),
                "think": ("think", "answer"),
            }
            return ("inspect sketch", "stop", *further.get(made[0], ()))
        case "answer":
            return ("stop",)
        case "stop":
            return ()
