"""Which flow steps need the network: those whose velocities cannot be foreseen from others.

From step to step a velocity changes little and smoothly, but how much depends on weights, grid and
guidance. So pictures are drawn with every step asked, and what the network said is studied: for
each step and each pair of steps before it, how far along the line through those two its velocity
lies, and what is lost by taking that instead. Of all ways to leave steps out at a price, the one
that loses least is then a shortest path.

Letters: n latent tokens, Z numbers a latent token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from staged.engine.drawing import ImageOnItsWay, along_line
from staged.model.flows import MAX_FORECAST

MAX_AHEAD = 3
"""Steps in a row that are foreseen, at most."""

_Pair = tuple[int | None, int]
"""The two steps that were asked for last; none before the first."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A forecast, and what it is expected to do.

    Attributes:
        forecast: See `FlowSettings.forecast`.
        share: Of the network's work that is left, in [0, 1]: a branch of guidance counts as one.
    """

    forecast: tuple[float | None, ...]
    share: float


def fit(drawn: Sequence[ImageOnItsWay], share: float) -> Fitted:
    """Choose the steps at which to ask.

    Args:
        drawn: Pictures that the same settings drew, with every step asked and kept.
        share: Of the network's work that may be left, in (0, 1].

    Returns:
        The forecast that loses least: by the sum over foreseen steps of the root mean square
        error of the guided velocity, times the length of the step.

    Raises:
        ValueError: There are no pictures, or one was given up or drawn otherwise.
    """
    studied = _Studied(drawn)
    allowed = math.floor(share * sum(studied.prices) + 1e-9)
    path = _cheapest(studied, allowed)
    if path is None:
        raise ValueError(
            f"share is {share:g}: with at most {MAX_AHEAD} steps in a row foreseen, nothing of "
            f"{len(studied.prices)} steps does with so little; give more"
        )
    forecast: list[float | None] = [None] * len(studied.prices)
    for pair, step in _foreseen(path, len(forecast)):
        forecast[step] = studied.follow(pair, step)
    asked = sum(price for price, one in zip(studied.prices, forecast, strict=True) if one is None)
    return Fitted(forecast=tuple(forecast), share=asked / sum(studied.prices))


class _Studied:
    """What the network said at every step, and how well other steps would have said it."""

    def __init__(self, drawn: Sequence[ImageOnItsWay]) -> None:
        if not drawn:
            raise ValueError("no pictures were drawn; a forecast is fitted to some")
        self._drawn, self._times = drawn, drawn[0].times
        for image in drawn:
            if image.times != self._times or len(image.asked) != len(self._times) - 1:
                raise ValueError("pictures were not drawn by one grid with every step asked")
        steps = range(len(self._times) - 1)
        self.prices = [max(len(image.asked[step][1]) for image in drawn) for step in steps]
        # Of one object, so that their results are kept no longer than it.
        self.follow, self.loss = cache(self._follow), cache(self._loss)

    def serves(self, pair: _Pair, step: int) -> bool:
        """Whether the steps of a pair have all branches that a step needs."""
        return all(
            len(image.asked[before][1]) >= len(image.asked[step][1])
            for image in self._drawn
            for before in pair
            if before is not None
        )

    def _follow(self, pair: _Pair, step: int) -> float:
        """How far to follow the line, by least squares of what guidance makes of it."""
        along = across = 0.0
        for image in self._drawn:
            there = self._guided(image, (None, step), step, 0)
            kept, far = (self._guided(image, pair, step, follow) for follow in (0, 1))
            along += float(((far - kept) * (there - kept)).sum(dtype=torch.float64))
            across += float(((far - kept) ** 2).sum(dtype=torch.float64))
        follow = along / across if across > 0 else 0.0
        return round(min(max(follow, -MAX_FORECAST), MAX_FORECAST), 4)

    def _loss(self, pair: _Pair, step: int) -> float:
        """Root mean square error of the guided velocity, times the length of the step."""
        follow, squares, count = self.follow(pair, step), 0.0, 0
        for image in self._drawn:
            error = self._guided(image, pair, step, follow)
            error = error - self._guided(image, (None, step), step, 0)
            squares += float((error * error).sum(dtype=torch.float64))
            count += error.numel()
        return (self._times[step] - self._times[step + 1]) * math.sqrt(squares / count)

    def _guided(self, image: ImageOnItsWay, pair: _Pair, step: int, follow: float) -> Tensor:
        """(n, Z) velocity at a step, foreseen from a pair; from itself it is what was said."""
        time, there = image.asked[step]
        asked = [image.asked[before] for before in pair if before is not None]
        return image.image.guided(along_line(asked, time, follow)[: len(there)])


def _cheapest(studied: _Studied, allowed: int) -> list[int] | None:
    """The steps to ask at, within a price, that lose least; None where there are none."""
    prices, end = studied.prices, len(studied.prices)
    # By the last two steps that were asked for: price so far -> (loss, steps). Only the cheapest
    # way to each needs to be known, for what follows depends on those two and on the price alone.
    ways: dict[_Pair, dict[int, tuple[float, list[int]]]] = {}
    if prices[0] <= allowed:
        ways[None, 0] = {prices[0]: (0.0, [0])}
    best: tuple[float, list[int]] | None = None
    for last in range(end):
        for pair in [pair for pair in ways if pair[1] == last]:
            for price, (loss, steps) in ways[pair].items():
                for then in range(last + 1, min(last + 1 + MAX_AHEAD, end) + 1):
                    if then > last + 1:
                        if not studied.serves(pair, then - 1):
                            break
                        loss += studied.loss(pair, then - 1)
                    if then == end:
                        best = min(best or (math.inf, []), (loss, steps))
                    elif (total := price + prices[then]) <= allowed:
                        there = ways.setdefault((last, then), {})
                        there[total] = min(there.get(total, (math.inf, [])), (loss, [*steps, then]))
    return best and best[1]


def _foreseen(asked: Sequence[int], num_steps: int) -> Iterator[tuple[_Pair, int]]:
    """Each step that is not asked, with the two that were asked for last."""
    for place, (last, then) in enumerate(zip(asked, [*asked[1:], num_steps], strict=True)):
        before = asked[place - 1] if place else None
        for step in range(last + 1, then):
            yield (before, last), step
