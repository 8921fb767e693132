"""What a trajectory comes to for whoever wants an image."""

from __future__ import annotations

from staged.backends.generators.generator import DrawnImage, DrawOutcome, NoImage
from staged.model.finite import NotFiniteError
from staged.trajectory import Trajectory


def outcome_of(trajectory: Trajectory) -> DrawOutcome:
    """Take a trajectory's last picture as its image, or say why there is none."""
    provenance = trajectory.provenance
    reason = str(provenance.get("failure", ""))
    detail = str(provenance.get("failure_detail", ""))
    cost = provenance["cost"]
    # What broke off is less than was meant, and is there; numbers that are none are a failure,
    # whatever was drawn before them.
    if trajectory.last_sketch is None or reason == NotFiniteError.reason:
        # The same seeds would fail the same way again.
        return NoImage(
            reason=reason or "no sketch",
            detail=detail,
            final=True,
            cost=cost,
            trajectory=trajectory,
        )
    pixels = trajectory.last_sketch.image.array()
    return DrawnImage(pixels=pixels, cost=cost, note=reason, trajectory=trajectory)
