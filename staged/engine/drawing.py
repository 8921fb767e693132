"""Images, step by step, side by side where that changes no bit of any.

Images of any size, time grid and guidance take their steps together, whenever each was begun: what
is row by row in the model is one call for all, attention one for each branch. A CPU loses as much
to the small operations between products as to the products, and that is what is shared.

Letters: n latent tokens, Z numbers a latent token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from torch import Tensor

from staged.engine.company import Company, Shape
from staged.engine.graphs import Graphs
from staged.engine.velocity import GuidedImage, Velocities
from staged.model.bagel import Bagel
from staged.model.flow import euler_step
from staged.model.layout import SpecialTokens

ROWS_TOGETHER = {"cpu": 2048}
"""Rows of a call that images share, by kind of device: beyond it nothing is gained, and larger
images are drawn one at a time. On a GPU all are: one fills it, and kernels there go by shapes."""


OnStep = Callable[[int, int, Tensor], None]
"""Called with (number of the image, steps done, (n, Z) estimate of the finished latents)."""


@dataclass(eq=False, kw_only=True)
class ImageOnItsWay:
    """An image that is drawn.

    Attributes:
        number: Names it to whoever is told of steps.
        image: What it is drawn by.
        times: Falling, from 1 to 0.
        x_t: (n, Z) float32 whatever the model computes in: a step adds a fiftieth of a velocity, of
            which bfloat16 would keep some two bits. Noise at first.
        forecast: See `FlowSettings.forecast`.
        num_steps: Done so far.
        asked: Times and (branches, n, Z) velocities that the network gave last.
        num_kept: Of those, at most.
    """

    number: int
    image: GuidedImage
    times: Sequence[float]
    x_t: Tensor
    forecast: Sequence[float | None] = ()
    num_steps: int = 0
    asked: list[tuple[float, Tensor]] = field(default_factory=list)
    num_kept: int = 2

    @property
    def time(self) -> float:
        """Of `x_t`."""
        return self.times[self.num_steps]

    @property
    def ended(self) -> bool:
        """Whether no step follows."""
        return self.num_steps == len(self.times) - 1

    @property
    def shape(self) -> Shape:
        """By which calls differ."""
        return self.image.grid, self.image.num_branches(self.time)

    @property
    def num_rows(self) -> int:
        """Of a call, at most: with all branches, and two markers beside the tokens of each."""
        rows, columns = self.image.grid
        return self.image.max_branches * (rows * columns + 2)

    def foreseen(self) -> Tensor | None:
        """Foresee the velocities of this step from those that were asked for last.

        Where a step needs branches that were not asked for last, the network is asked.

        Returns:
            (branches, n, Z); None where the network is to be asked.
        """
        follow = self.forecast[self.num_steps] if self.forecast else None
        needed = self.image.num_branches(self.time)
        if follow is None or any(len(velocities) < needed for _, velocities in self.asked[-2:]):
            return None
        return along_line(self.asked[-2:], self.time, follow)[:needed]

    def hear(self, velocities: Tensor, on_step: OnStep | None) -> None:
        """Go on by a step with what the network said, (branches, n, Z)."""
        self.asked = [*self.asked, (self.time, velocities)][-self.num_kept :]
        self.take(velocities, on_step)

    def take(self, velocities: Tensor, on_step: OnStep | None) -> None:
        """Go on by a step with (branches, n, Z) velocities."""
        velocity = self.image.guided(velocities)
        now, then = self.times[self.num_steps : self.num_steps + 2]
        estimate = None if on_step is None else self.x_t - now * velocity
        self.x_t = euler_step(self.x_t, velocity, now, then)
        self.num_steps += 1
        if on_step is not None and estimate is not None:
            on_step(self.number, self.num_steps, estimate)


def along_line(asked: Sequence[tuple[float, Tensor]], time: float, follow: float) -> Tensor:
    """Follow the line through velocities, branch by branch.

    Forecasting of features that change smoothly from step to step, as in TaylorSeer
    (arXiv:2503.06923) at first order; velocities are linear in the model's last features.

    Args:
        asked: One or two, (time, (branches, n, Z)), the last last. One is taken as it is.
        time: Where to.
        follow: Times the way there.

    Returns:
        (branches, n, Z), with as many branches as both have.
    """
    (last_time, last), *before = asked[::-1]
    if not before:
        return last
    [(first_time, first)] = before
    shared = min(len(first), len(last))
    slope = (last[:shared] - first[:shared]) / (last_time - first_time)
    return last[:shared] + slope * (follow * (time - last_time))


class Drawer:
    """Takes images on, step by step."""

    def __init__(self, model: Bagel, special: SpecialTokens, *, shares_calls: bool = True) -> None:
        """Draw with a model; images take their steps one by one where they share no calls."""
        device = model.embed_tokens.weight.device
        # Of a model that is cut among ranks a call waits for theirs, and is none to record.
        self.graphs = Graphs.on(device) if shares_calls else Graphs(None)
        self._velocities = Velocities(model, special, self.graphs)
        self._company = Company(model, special)
        self._most = ROWS_TOGETHER.get(device.type, 0) if shares_calls else 0

    def step(self, images: Sequence[ImageOnItsWay], on_step: OnStep | None) -> None:
        """Ask the network once for the first of some images, for as many as are of use.

        Steps that are foreseen are taken too, up to the one that is asked for. Nothing that an
        image becomes depends on which others there are.
        """
        images = [image for image in images if not image.ended]
        team = images[: self.num_first([image.num_rows for image in images])]
        asking = [image for image in team if self._must_ask(image, on_step)]
        # In order of their shapes, so that what was tried is met again.
        asking.sort(key=lambda image: image.shape)
        for some in self._sharing(asking):
            found = self._velocities(
                [image.image for image in some],
                [image.x_t for image in some],
                [image.time for image in some],
            )
            for image, heard in zip(some, found, strict=True):
                image.hear(heard, on_step)

    def num_together(self, num_rows: int) -> int:
        """Images of so many rows that gain from a common step."""
        return max(self._most // num_rows, 1)

    def num_first(self, rows: Sequence[int]) -> int:
        """Of images with so many rows each, those that gain from a common step, from the first."""
        return max(sum(end <= self._most for end in accumulate(rows)), 1)

    def _must_ask(self, image: ImageOnItsWay, on_step: OnStep | None) -> bool:
        """Let an image take the steps that are foreseen; whether it then needs the network."""
        while not image.ended and (foreseen := image.foreseen()) is not None:
            image.take(foreseen, on_step)
        return not image.ended

    def _sharing(self, images: list[ImageOnItsWay]) -> Iterator[list[ImageOnItsWay]]:
        """Cut images into those whose calls may be one."""
        if not images:
            return
        if self._company.changes_nothing([image.shape for image in images]):
            yield images
            return
        half = len(images) // 2
        yield from self._sharing(images[:half])
        yield from self._sharing(images[half:])
