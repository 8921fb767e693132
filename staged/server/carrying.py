"""Pictures that leave the server carry how they were drawn; those that it keeps do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from staged.generate.picture_record import PictureOrigin, carried, pixels_name, public_name
from staged.generate.settings import DrawSettings
from staged.generate.signing import PictureSigner
from staged.trajectory import Sketch, Trajectory

DRAWING: Final = "drawing"
"""Where the history keeps, in the provenance of what a trajectory began with, `drawing_of` it."""


def drawing_of(settings: DrawSettings) -> dict[str, Any]:
    """What pictures that are drawn with some settings carry of them, as plain data."""
    return {"settings": carried(settings), "checkpoint": public_name(settings.checkpoint)}


def as_sent(
    trajectory: Trajectory,
    name: str,
    *,
    drawing: Mapping[str, Any],
    seed: int,
    id: str,
    signer: PictureSigner | None = None,
) -> bytes:
    """Return a picture of a trajectory as it is sent.

    Args:
        trajectory: As far as it has come; its images are named and loaded.
        name: Of the picture. An input image, which may be anybody's, stays as it is.
        drawing: What `drawing_of` gave; where it is empty, pictures carry nothing.
        seed: Of the trajectory.
        id: Of the trajectory.
        signer: Signs what was drawn.
    """
    place = next(
        (
            place
            for place, step in enumerate(trajectory.steps)
            if isinstance(step, Sketch) and step.image.name == name
        ),
        None,
    )
    png = next(ref.loaded for ref in trajectory.images if ref.name == name)
    if place is None:
        return png
    if drawing:
        upto = replace(trajectory, steps=trajectory.steps[: place + 1], provenance={})
        named = upto.with_images([replace(ref, name=pixels_name(ref)) for ref in upto.images])
        origin = PictureOrigin(**drawing, seed=seed, id=id)
        png = origin.put_into_picture(upto.images[-1], named)
    return png if signer is None else signer.sign(png)
