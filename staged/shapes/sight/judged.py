"""The detector's verdict on what was drawn, kept with the trajectory beside the model's own."""

from __future__ import annotations

from dataclasses import replace

from staged.shapes.language.asked import read_request
from staged.shapes.language.phrases import GrammarError
from staged.shapes.sight.detect import detect
from staged.shapes.sight.verdict import satisfied
from staged.shapes.world.scene import CANVAS_PX
from staged.trajectory import Trajectory

DETECTOR = "detector"
"""Where in `provenance` the verdict stands."""

_NOT_FINITE = "not_finite"


def judged(trajectory: Trajectory) -> Trajectory:
    """Note whether the last sketch shows what the prompt asks for.

    Args:
        trajectory: Finished or broken off, its images loaded.

    Returns:
        The trajectory with `{"correct", "exact", "reasons"}` in its provenance, GenEval's rule and
        its strict sister. As it was where nothing can be said: there is no sketch of the canvas's
        size, its numbers were none, or the prompt asks for an edit or an answer.
    """
    sketch = trajectory.last_sketch
    if sketch is None or trajectory.provenance.get("failure") == _NOT_FINITE:
        return trajectory
    try:
        spec = read_request(trajectory.prompt).spec
    except GrammarError:
        return trajectory
    pixels = sketch.image.array()
    if pixels.shape != (CANVAS_PX, CANVAS_PX, 3):
        return trajectory
    verdict = satisfied(spec, detect(pixels))
    said = {
        "correct": verdict.correct,
        "exact": verdict.exact,
        "reasons": list(verdict.reasons),
    }
    return replace(trajectory, provenance={**trajectory.provenance, DETECTOR: said})
