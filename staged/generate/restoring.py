"""A run restored from a picture of it, up to that picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from staged.generate.picture_record import PictureRecord, pixels_name
from staged.loops.roles import Roles
from staged.roles import StepRequest
from staged.trajectory import ImageRef, Sketch, Trajectory


def check_inputs(record: PictureRecord, inputs: Sequence[ImageRef]) -> None:
    """Make sure that input images are those that a picture was drawn from.

    Raises:
        ValueError: They are others, or missing.
    """
    wanted = [ref.name for ref in record.trajectory.inputs]
    if [pixels_name(ref) for ref in inputs] != wanted:
        raise ValueError(
            f"it was drawn from {len(wanted)} input images, which it does not carry; give the same "
            "with --image, in their order"
            if wanted
            else "it was drawn from a prompt alone; leave --image out"
        )


def restore(
    record: PictureRecord,
    picture: ImageRef,
    start: Trajectory,
    roles: Roles,
    tell: Callable[[str], None],
) -> Trajectory:
    """Make the steps up to a picture again: texts as they were, pictures before it drawn anew.

    Args:
        record: What the picture carries.
        picture: The picture.
        start: Prompt, system text and input images.
        roles: Who draws.
        tell: Told of each picture that comes out otherwise, as it does on another machine, in
            another precision, or with other weights.

    Raises:
        RoleError: A picture cannot be drawn.
    """
    trajectory, steps = start, record.trajectory.steps
    for place, step in enumerate(steps):
        if isinstance(step, Sketch):
            again = picture
            if place + 1 < len(steps):
                again = _draw(trajectory, step, roles)
                if pixels_name(again) != step.image.name:
                    tell(f"step {place}, a sketch, comes out otherwise here than where it was made")
            step = replace(step, image=replace(again, name=None))
        trajectory = trajectory.extend(step)
    forked = {"at": len(steps), "by_hand": False}
    return replace(trajectory, provenance={"forked": forked})


def _draw(trajectory: Trajectory, step: Sketch, roles: Roles) -> ImageRef:
    request = StepRequest(trajectory=trajectory, moves=("sketch",), seed=step.seed or 0)
    [drawn] = roles.sketcher.draw([request])
    if isinstance(drawn, Exception):
        raise drawn
    return drawn.image
