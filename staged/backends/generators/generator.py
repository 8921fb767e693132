"""What a generator is: something that draws samples, each by its seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from staged.roles import Pixels
from staged.trajectory import Trajectory


class Prompted(Protocol):
    """What one image is drawn from."""

    @property
    def prompt(self) -> str:
        """What is to be drawn."""
        ...

    @property
    def seed(self) -> int:
        """Of its noise."""
        ...


Request = TypeVar("Request", bound=Prompted)


@dataclass(frozen=True, kw_only=True)
class DrawnImage:
    """An image.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        cost: Unit (`flow_steps`, `text_tokens`, `usd`) to amount.
        note: Why it is less than was meant, as of a trajectory that broke off; mostly empty.
        trajectory: The steps that led to it, where they are known.
        search: What it was chosen among, as plain JSON data, where there were others.
    """

    pixels: Pixels
    cost: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    trajectory: Trajectory | None = None
    search: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class NoImage:
    """No image; the sample is unscored.

    Attributes:
        reason: Short and countable.
        detail: What is known of it.
        final: It would fail again, or cost again: it is not tried a second time.
        cost: As of an image.
        trajectory: The steps until then, where they are known.
    """

    reason: str
    detail: str = ""
    final: bool = False
    cost: Mapping[str, float] = field(default_factory=dict)
    trajectory: Trajectory | None = None


DrawOutcome = DrawnImage | NoImage


class Generator(Protocol[Request]):
    """Draws samples."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    @property
    def alone(self) -> bool:
        """Whether an image is the same to the last bit whatever is drawn along with it.

        Such a generator is given all samples at once and yields them as they come; others get the
        same batches again and again, however the work is shared or interrupted.
        """
        ...

    def identity(self) -> Mapping[str, Any]:
        """What decides every image, as plain JSON data; it may take a while to compute."""
        ...

    def draw(self, samples: Sequence[Request]) -> Iterator[tuple[Request, DrawOutcome]]:
        """Draw each sample once, in any order.

        Raises:
            ValueError: something is wrong with all of them, not with one.
        """
        ...
