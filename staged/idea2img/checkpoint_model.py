"""A checkpoint of ours as the image model that is explored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from staged.backends.generators.generator import DrawOutcome
from staged.generate.model import DrawingModel
from staged.generate.outcome import outcome_of
from staged.generate.settings import ModelSettings
from staged.loops.idea2img.roles import DraftRequest

_AT_ONCE: Final = 16


class CheckpointModel:
    """A checkpoint of ours, which draws and edits.

    Args:
        settings: Which, and how; its precision is settled.

    Raises:
        ValueError: There is no such checkpoint, or a setting is out of range.
    """

    edits = True
    at_once = _AT_ONCE

    def __init__(self, settings: ModelSettings) -> None:
        """Look at the checkpoint; its weights are loaded when they are needed."""
        self._model = DrawingModel(settings)
        self.name = settings.name

    @property
    def expectation(self) -> str:
        """What whoever looks at a miniature's pictures must know; empty of any other model."""
        return self._model.expectation

    def identity(self) -> Mapping[str, Any]:
        """Settings and flow, resolved, and weights."""
        return self._model.decides()

    def draw(self, requests: Sequence[DraftRequest]) -> Iterator[tuple[DraftRequest, DrawOutcome]]:
        """Draw side by side; no picture depends on its company."""
        starts = [
            self._model.start(
                self._model.heard(one.prompt, onto_images=one.onto is not None),
                [one.onto] if one.onto else [],
            )
            for one in requests
        ]
        inputs = max((len(start.inputs) for start in starts), default=0)
        loop = self._model.loop(num_inputs=inputs, most=_AT_ONCE)
        for place, trajectory in loop.stream(starts, [one.seed for one in requests]):
            yield requests[place], outcome_of(trajectory)
