"""Pictures of a loop, watched while they are drawn, and drawn again otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.engine.drawing import ImageOnItsWay
from staged.engine.engine import Engine
from staged.engine.sampling import Drawing
from staged.generate.model import DrawingModel
from staged.jobs.progress import Progress
from staged.loops.roles import Roles
from staged.loops.staged import StagedLoop
from staged.model.flows import FlowKind, FlowSettings

MAX_FITTED = 32
"""Pictures of a kind that a forecast is fitted to; at full size each keeps some 150 MB of
velocities."""
_KINDS: tuple[FlowKind, ...] = ("first", "edit", "refinement")


@dataclass(kw_only=True)
class Trial:
    """A forecast for one kind of picture, and what it does to pictures.

    Attributes:
        flow: Without a forecast.
        forecast: With it.
        share: Of the network's work that is left.
        num_fitted: Pictures that it was fitted to.
        by_forecast: Root mean square difference, of 255, of each picture from the one with every
            step asked.
        by_fewer: Of pictures in as many plain steps.
    """

    flow: FlowSettings
    forecast: FlowSettings
    share: float
    num_fitted: int
    by_forecast: list[float] = field(default_factory=list)
    by_fewer: list[float] = field(default_factory=list)

    @property
    def fewer(self) -> FlowSettings:
        """As many plain steps as take the same work."""
        number = max(round(self.share * self.flow.num_flow_steps), 1)
        return self.flow.otherwise(num_flow_steps=number)

    @property
    def differences(self) -> tuple[float, float]:
        """Means of the two; nothing was compared where they are not numbers."""
        ours, theirs = self.by_forecast, self.by_fewer
        if not ours:
            return float("nan"), float("nan")
        return sum(ours) / len(ours), sum(theirs) / len(theirs)

    def worth_it(self, most: float) -> bool:
        """Whether pictures change by no more than `most`, and by less than in fewer steps."""
        ours, theirs = self.differences
        return ours <= most and ours < theirs

    def __str__(self) -> str:
        """What was found, on a line."""
        ours, theirs = self.differences
        return (
            f"{self.forecast.num_evaluations} of {self.flow.num_flow_steps} steps asked, "
            f"{self.share:.0%} of the work; pictures differ by {ours:.2f} of 255, "
            f"in {self.fewer.num_flow_steps} plain steps by {theirs:.2f} "
            f"({self.num_fitted} fitted, {len(self.by_forecast)} compared)"
        )


class StepStudy:
    """A checkpoint's loop over an engine that watches.

    Attributes:
        flows: How it draws, with every step asked.
    """

    def __init__(self, model: DrawingModel, batch_size: int | None) -> None:
        """Draw with a model.

        Args:
            model: In which mode, with what limits.
            batch_size: Trajectories that advance together; None for as many as memory takes.
        """
        admitted = model.admit(batch_size)
        # New objects each, by which the kinds are told apart where all are drawn alike.
        self.flows = model.flows.each(lambda flow: replace(flow, forecast=()))
        self._model, self._batch_size = model, admitted.batch_size
        engine = model.engine
        self._engine = _Watching(engine.model, engine.codec, engine.tokenizer, flows=self.flows)
        self._playing = BagelSettings(
            flows=self.flows, max_cached_tokens=admitted.max_cached_tokens
        )

    def draw(
        self, prompts: Sequence[str], *, seed: int, progress: Progress
    ) -> dict[FlowKind, list[ImageOnItsWay]]:
        """Draw prompts, and keep what the network said at every step of every picture.

        Returns:
            The pictures by kind, the first `MAX_FITTED` of each; their velocities lie in the CPU's
            memory.
        """
        self._engine.room = Counter(dict.fromkeys(_KINDS, MAX_FITTED))
        self._engine.kept = {kind: [] for kind in _KINDS}
        self._run(prompts, seed, progress)
        kept, self._engine.kept = self._engine.kept, {}
        return {kind: images for kind, images in kept.items() if images}

    def compare(
        self,
        prompts: Sequence[str],
        trials: Mapping[FlowKind, Trial],
        *,
        seed: int,
        progress: Progress,
    ) -> None:
        """Draw prompts, and each picture otherwise too, which goes into its kind's trial."""
        self._engine.room.clear()
        self._engine.trials = trials
        self._run(prompts, seed, progress)

    def _run(self, prompts: Sequence[str], seed: int, progress: Progress) -> None:
        player = BagelPlayer(self._engine, self._playing)
        roles = Roles.of(player, self._model.settings.drawn_by)
        loop = StagedLoop(roles, self._model.policy, batch_size=self._batch_size)
        starts = [self._model.start(prompt) for prompt in prompts]
        for _ in loop.stream(starts, [seed] * len(starts)):
            progress.advance()


@dataclass(frozen=True)
class _Seen:
    """An image that is being drawn: which, from what noise."""

    kind: FlowKind
    watched: bool
    size: tuple[int, int]
    seed: int


class _Watching(Engine):
    """An engine that draws as it is asked to, and looks at how.

    Attributes:
        room: Images of each kind that are still to be kept.
        kept: Where they go, with the velocities of all their steps.
        trials: How images of each kind are drawn again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.room = Counter[FlowKind]()
        self.kept: dict[FlowKind, list[ImageOnItsWay]] = {}
        self.trials: Mapping[FlowKind, Trial] = {}
        self._seen: dict[ImageOnItsWay, _Seen] = {}

    def _kind(self, flow: FlowSettings) -> FlowKind:
        return next(kind for kind in _KINDS if self.flows.of(kind) is flow)

    def begin(
        self,
        *contexts: Any,
        sizes: Sequence[tuple[int, int]],
        seeds: Sequence[int],
        settings: Sequence[FlowSettings],
    ) -> list[ImageOnItsWay]:
        """Begin images; see `Engine.begin`."""
        images = super().begin(*contexts, sizes=sizes, seeds=seeds, settings=settings)
        for image, size, seed, flow in zip(images, sizes, seeds, settings, strict=True):
            kind = self._kind(flow)
            watched = self.room[kind] > 0
            if watched:
                self.room[kind] -= 1
                image.num_kept = len(image.times)
            self._seen[image] = _Seen(kind, watched, size, seed)
        return images

    @torch.inference_mode()
    def finished(self, drawn: ImageOnItsWay) -> Drawing:
        """What became of an image; see `Engine.finished`."""
        drawing = super().finished(drawn)
        if (seen := self._seen.pop(drawn, None)) is not None:
            if seen.watched and isinstance(drawing.decoded, np.ndarray):
                drawn.asked = [(time, velocities.cpu()) for time, velocities in drawn.asked]
                self.kept[seen.kind].append(drawn)
            if (trial := self.trials.get(seen.kind)) is not None:
                for flow, differences in (
                    (trial.forecast, trial.by_forecast),
                    (trial.fewer, trial.by_fewer),
                ):
                    differences.append(_difference(drawing, self._otherwise(drawn, seen, flow)))
        return drawing

    def _otherwise(self, drawn: ImageOnItsWay, seen: _Seen, flow: FlowSettings) -> Drawing:
        images = super().begin(
            *([branch] for branch in drawn.image.branches),
            sizes=[seen.size],
            seeds=[seen.seed],
            settings=[flow],
        )
        return self.finish(images)[0]


def _difference(drawing: Drawing, other: Drawing) -> float:
    """Root mean square, of 255; without end where either is no picture."""
    if not all(isinstance(one.decoded, np.ndarray) for one in (drawing, other)):
        return float("inf")
    difference = drawing.pixels.astype(np.float64) - other.pixels
    return float(np.sqrt(np.mean(difference**2)))
