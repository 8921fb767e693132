"""Every picture of a trajectory: when it was drawn, what it had cost, what it shows."""

from __future__ import annotations

from dataclasses import dataclass

from staged.shapes.language.prompts import read_description
from staged.shapes.sight.detect import ShapeDetection, detections_in
from staged.shapes.sight.verdict import SceneCheck, satisfied
from staged.shapes.world.spec import Spec
from staged.trajectory import ImageRef, Plan, Refinement, Sketch, Trajectory


@dataclass(frozen=True, kw_only=True)
class DrawnPicture:
    """A picture that a trajectory drew.

    Attributes:
        step: Index of its step.
        round: Which plan it belongs to, from 1; a refined plan opens no new round, and without
            any plan all is one round.
        num_flow_steps: Network evaluations spent when it was there.
        whole: What the detector says when it is held against the prompt.
        planned: And against the description it was drawn for, or the prompt where nothing was
            planned; None where the description is not in the miniature world's language.
        by_plan: Whether there was a plan.
    """

    step: int
    round: int
    num_flow_steps: int
    whole: SceneCheck
    planned: SceneCheck | None
    by_plan: bool


def pictures_of(trajectory: Trajectory, asked: Spec) -> tuple[DrawnPicture, ...]:
    """Look at every sketch of a trajectory, in order.

    Args:
        trajectory: With its images loaded, 48 x 48 pixels each.
        asked: What its prompt means.

    Raises:
        ValueError: a picture is of another size, or not loaded.
    """
    drawn: list[DrawnPicture] = []
    plan: Plan | None = None
    num_rounds = spent = 0
    for index, step in enumerate(trajectory.steps):
        if isinstance(step, Plan):
            refined = index > 0 and isinstance(trajectory.steps[index - 1], Refinement)
            num_rounds += not refined
            plan = step
        if isinstance(step, Sketch):
            spent += step.num_flow_steps
            wanted = asked if plan is None else described(plan)
            found = seen(step.image)
            drawn.append(
                DrawnPicture(
                    step=index,
                    round=max(num_rounds, 1),
                    num_flow_steps=spent,
                    whole=satisfied(asked, found),
                    planned=None if wanted is None else satisfied(wanted, found),
                    by_plan=plan is not None,
                )
            )
    return tuple(drawn)


def described(plan: Plan) -> Spec | None:
    """Read a plan's description; None where it is not in the miniature world's language."""
    try:
        return read_description(plan.description)
    except ValueError:
        return None


def seen(image: ImageRef) -> tuple[ShapeDetection, ...]:
    """Detect what a picture shows; each is looked at several times, so the answer is kept.

    Raises:
        ValueError: it is not loaded, or no picture of 48 x 48 pixels.
    """
    return detections_in(image.loaded)
