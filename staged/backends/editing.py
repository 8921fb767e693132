"""Sketches one after another, each an edit of the one before, by a model that knows no stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from staged.backends.bagel import BagelPlayer
from staged.backends.easel import PictureOnItsWay
from staged.roles import Preview, RoleError, StepRequest
from staged.trajectory import Refinement, Sketch, Trajectory


class EditingSketcher:
    """Sketches by the abilities of a model that was never taught to work in stages.

    The first sketch is drawn from the plan's description (or the prompt), a later one is an edit
    of the sketch before it by the last plan's or refinement's instruction, with nothing else in
    context.
    """

    def __init__(self, player: BagelPlayer) -> None:
        """Draw with a player."""
        self._player = player

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations a sketch."""
        return self._player.num_flow_steps

    @property
    def num_at_once(self) -> int:
        """Sketches that gain from one call."""
        return self._player.num_at_once

    def release(self, trajectory: Trajectory) -> None:
        """Forget what was read for this trajectory alone; see `staged.roles.Remembering`."""
        for end in range(len(trajectory.steps) + 1):
            begun = replace(trajectory, steps=trajectory.steps[:end])
            self._player.release(_as_request(begun))

    def draw(
        self, requests: Sequence[StepRequest], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError]:
        """Draw one image for each request; see `staged.roles.BatchedSketcher`."""
        return self._player.draw(list(map(_as_drawn, requests)), on_preview)

    @property
    def pictures(self) -> object:
        """See `staged.roles.DrawingInSteps`."""
        return self._player.pictures

    def begin(self, request: StepRequest) -> PictureOnItsWay:
        """Begin one image; see `staged.roles.DrawingInSteps`."""
        return self._player.begin(_as_drawn(request))

    def give_up(self, picture: PictureOnItsWay) -> None:
        """Hold nothing for it any more; see `staged.roles.DrawingInSteps`."""
        self._player.give_up(picture)

    def step(
        self, pictures: Sequence[PictureOnItsWay], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError | None]:
        """Take images a step on; see `staged.roles.DrawingInSteps`."""
        return self._player.step(pictures, on_preview)


def _as_drawn(request: StepRequest) -> StepRequest:
    return replace(request, trajectory=_as_request(request.trajectory))


def _as_request(trajectory: Trajectory) -> Trajectory:
    """Return the one-shot request or the edit that the last text asks for."""
    last, plan, sketch = trajectory.steps[-1:], trajectory.last_plan, trajectory.last_sketch
    if sketch is None:
        prompt = trajectory.prompt if plan is None else plan.description
        return Trajectory(prompt=prompt, inputs=trajectory.inputs)
    correction = last[0] if isinstance(last[0], Refinement) else plan
    prompt = trajectory.prompt if correction is None else correction.instruction
    return Trajectory(prompt=prompt, inputs=(sketch.image,))
