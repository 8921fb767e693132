"""Whether an edit left the whole of a picture where and as it was, before anybody is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data_pipelines.drift.limits import DriftLimits
from data_pipelines.objection import Objection
from staged import images

DRIFT = "drift"
"""Where in a trajectory's provenance stands what edits did to all of a picture, by the place of the
sketch among the steps."""


REALIGNED = "realigned image"
"""As what a drawing that was laid back is kept in the ledger."""


@dataclass(frozen=True, kw_only=True)
class Steadied:
    """A drawing after its drift was measured.

    Attributes:
        image: Encoded: the drawing, or what became of it when its motion was undone.
        noted: What was measured, as it stands in the trajectory's provenance.
        objection: Why it does not pass; None where its drift is within the limits.
    """

    image: bytes
    noted: dict[str, Any]
    objection: Objection | None


def steadied(limits: DriftLimits, first: bytes | None, before: bytes, image: bytes) -> Steadied:
    """Measure the drift of a drawing, and undo its motion where that mends it.

    Args:
        limits: What passes.
        first: The picture from which the edits began, if it is another one than `before`.
        before: What was drawn onto.
        image: The drawing.
    """
    # SciPy's parts load where drift is measured, and for no other job.
    from data_pipelines.drift.measure import measure
    from data_pipelines.drift.realign import realigned

    old, new = images.decode(before), images.decode(image)
    if old.shape != new.shape:
        sizes = " and ".join(f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in (old, new))
        return Steadied(image=image, noted={}, objection=Objection("drift: size", sizes))
    drift = measure(old, new)
    noted: dict[str, Any] = {}
    if limits.mends(drift):
        # Measured again: undone is what was found, and that may not be all of it.
        new, undone = realigned(old, new, drift)
        noted = {"realigned": {"drawn": drift.to_dict(), "undone": vars(undone)}}
        image, drift = images.encode_png(new), measure(old, new)
    noted = {**drift.to_dict(), **noted}
    if limits.drawn_anew(drift):
        return Steadied(
            image=image,
            noted=noted,
            objection=Objection("drift: drawn anew", f"{drift.found:.0%} of the edges are left"),
        )
    for name, words in limits.exceeded(drift):
        return Steadied(image=image, noted=noted, objection=Objection(f"drift: {name}", words))
    if first is None or limits.from_first is None:
        return Steadied(image=image, noted=noted, objection=None)
    start = images.decode(first)
    if start.shape != new.shape:
        return Steadied(image=image, noted=noted, objection=Objection("drift: size", "first"))
    decay = measure(start, new)
    noted["from_first"] = decay.to_dict()
    for name, words in limits.exceeded(decay, times=limits.from_first):
        objection = Objection(f"drift from the first: {name}", words)
        return Steadied(image=image, noted=noted, objection=objection)
    return Steadied(image=image, noted=noted, objection=None)
