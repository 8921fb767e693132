"""A checkpoint of ours as a verifier: its own inspection of the picture, accept or revise."""

from __future__ import annotations

from collections.abc import Sequence

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.engine.engine import Engine
from staged.roles import Rated, Rating, RoleError, StepRequest
from staged.trajectory import ImageRef, Inspection, Sketch, Trajectory


class InspectorVerifier:
    """Asks a checkpoint to inspect a picture as a sketch drawn at once for the prompt.

    Args:
        engine: Of the checkpoint.
        name: Of the checkpoint, with its weights.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        """Keep the parts."""
        self._engine, self.name = engine, name

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        """Rate each: 1 for accepted, 0 for refused."""
        player = BagelPlayer(self._engine, BagelSettings(max_text_tokens=256))
        requests = [
            StepRequest(
                trajectory=Trajectory(
                    prompt=picture.prompt,
                    steps=(Sketch(image=ImageRef.from_array(picture.pixels)),),
                ),
                moves=("inspect sketch",),
                seed=0,
            )
            for picture in pictures
        ]
        return [_rating(answer) for answer in player.write(requests)]


def _rating(answer: object) -> Rating:
    if isinstance(answer, Inspection):
        return Rating(value=float(answer.verdict == "accept"))
    assert isinstance(answer, RoleError)
    return Rating(value=None, reason=str(answer)[:500])
