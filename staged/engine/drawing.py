"""Images, step by step, side by side where that changes no bit of any.

Images of any size, time grid and guidance take their steps together: what is row by row in the
model is one call for all, attention one for each branch. A CPU loses as much to the small
operations between products as to the products, and that is what is shared.

Letters: n latent tokens, Z numbers a latent token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from staged.engine.company import Company, Shape
from staged.engine.velocity import GuidedImage, Velocities
from staged.model.bagel import Bagel
from staged.model.flow import euler_step
from staged.model.layout import SpecialTokens

ROWS_TOGETHER = {"cpu": 2048}
"""Rows of a call that images share, by kind of device: beyond it nothing is gained, and larger
images are drawn one at a time. On a GPU all are: one fills it, and kernels there go by shapes."""


class GivenUpError(RuntimeError):
    """An image is not wanted any more; the message says why."""


OnStep = Callable[[int, int, Tensor], None]
"""Called with (number of the image, steps done, (n, Z) estimate of the finished latents)."""


@dataclass(eq=False, kw_only=True)
class ImageOnItsWay:
    """An image that is drawn.

    Attributes:
        number: Names it.
        image: What it is drawn by.
        times: Falling, from 1 to 0.
        x_t: (n, Z) float32 whatever the model computes in: a step adds a fiftieth of a velocity, of
            which bfloat16 would keep some two bits. Noise at first.
        num_steps: Done so far.
        given_up: Why it was, if it was.
    """

    number: int
    image: GuidedImage
    times: Sequence[float]
    x_t: Tensor
    num_steps: int = 0
    given_up: GivenUpError | None = None

    @property
    def time(self) -> float:
        """Of `x_t`."""
        return self.times[self.num_steps]

    @property
    def ended(self) -> bool:
        """Whether no step follows."""
        return self.given_up is not None or self.num_steps == len(self.times) - 1

    @property
    def shape(self) -> Shape:
        """By which calls differ."""
        return self.image.grid, self.image.num_branches(self.time)

    @property
    def num_rows(self) -> int:
        """Of a call, at most: with all branches, and two markers beside the tokens of each."""
        rows, columns = self.image.grid
        return self.image.max_branches * (rows * columns + 2)

    def take(self, velocity: Tensor, on_step: OnStep | None) -> None:
        """Go on by a step."""
        now, then = self.times[self.num_steps : self.num_steps + 2]
        estimate = None if on_step is None else self.x_t - now * velocity
        self.x_t = euler_step(self.x_t, velocity, now, then)
        self.num_steps += 1
        if on_step is not None and estimate is not None:
            try:
                on_step(self.number, self.num_steps, estimate)
            except GivenUpError as error:
                self.given_up = error


class Drawer:
    """Takes images to their end."""

    def __init__(self, model: Bagel, special: SpecialTokens) -> None:
        """Draw with a model."""
        self._model, self._special = model, special
        self._company = Company(model, special)
        self._most = ROWS_TOGETHER.get(model.embed_tokens.weight.device.type, 0)

    def draw(self, images: Sequence[ImageOnItsWay], on_step: OnStep | None) -> None:
        """Draw images, as many at a time as are of use; none depends on which."""
        for some in self._teams(images):
            self._draw(some, on_step)

    def num_together(self, num_rows: int) -> int:
        """Images of so many rows that gain from being drawn at a time."""
        return max(self._most // num_rows, 1)

    def _teams(self, images: Sequence[ImageOnItsWay]) -> Iterator[list[ImageOnItsWay]]:
        team, rows = list[ImageOnItsWay](), 0
        for image in images:
            if team and rows + image.num_rows > self._most:
                yield team
                team, rows = [], 0
            team.append(image)
            rows += image.num_rows
        if team:
            yield team

    def _draw(self, images: list[ImageOnItsWay], on_step: OnStep | None) -> None:
        velocities = Velocities(self._model, self._special)
        while images:
            # In order of their shapes, so that what was tried is met again.
            images.sort(key=lambda image: image.shape)
            if not self._company.changes_nothing([image.shape for image in images]):
                for image in images:
                    self._draw([image], on_step)
                return
            found = velocities(
                [image.image for image in images],
                [image.x_t for image in images],
                [image.time for image in images],
            )
            for image, velocity in zip(images, found, strict=True):
                image.take(velocity, on_step)
            images = [image for image in images if not image.ended]
