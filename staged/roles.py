"""The roles of the loops, and the services that can play them.

A role is played by anything: BAGEL in all of them, a language model as planner or inspector over
BAGEL, or the miniature world. So loops hold no model code, and players know nothing of loops.

A stage role gets the trajectory so far and returns the next step; it may ask
`trajectory.legal_next()`, `last_plan`, `last_sketch`. Images are encoded bytes inside trajectories
(`ImageRef`) and uint8 arrays (h, w, 3), RGB, at the services below; `ImageRef.from_array` and
`ImageRef.array` lead from one to the other. A player fails with `RoleError` when it cannot answer;
the loop then retries, counts and reports, and never invents a step. A player of many trajectories
says so for each; where it raises instead, the loop asks for one at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from staged.trajectory import (
    Inspection,
    Move,
    Plan,
    Refinement,
    Sketch,
    Target,
    TextStep,
    Trajectory,
)

Pixels = NDArray[np.uint8]
"""(h, w, 3) RGB, 0-255."""


class RoleError(RuntimeError):
    """A player could not answer.

    Attributes:
        reason: Short and countable: `refusal`, `truncated`, `protocol`, `timeout`, …
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Keep the reason; the detail only helps the message."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Planner(Protocol):
    """Writes what to change next."""

    def plan(self, trajectory: Trajectory, *, seed: int) -> Plan:
        """Write the next plan; after a refinement, the corrected one."""
        ...


class Inspector(Protocol):
    """Looks for conflicts; what is not drawn yet is none."""

    def inspect(self, trajectory: Trajectory, target: Target, *, seed: int) -> Inspection:
        """Check the last plan against the prompt, or the last sketch against its plan."""
        ...


class Refiner(Protocol):
    """Says how to correct what the last inspection refused."""

    def refine(self, trajectory: Trajectory, *, seed: int) -> Refinement:
        """Write the correction."""
        ...


class Director(Protocol):
    """Decides what comes next, where that is learned or scripted apart from the stages."""

    def next_move(self, trajectory: Trajectory) -> Move:
        """Choose one of `trajectory.legal_next()`."""
        ...


Interrupt = Callable[[], str | None]
"""Asked for a reason to give a trajectory up before its time, such as `cancelled`; cheap, and free
to be asked by any thread."""


def never() -> None:
    """The `Interrupt` that has no reason."""


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """What is wanted next for one trajectory among many that advance together.

    Attributes:
        trajectory: The steps so far.
        moves: What may come next; a subset of `trajectory.legal_next()`, not empty.
        seed: Of this step and attempt.
        attempt: 0 at first; a player that is asked again may try differently.
        interrupt: Asked by players whose work takes long, as often as they can; where it has a
            reason they break off and fail with it.
    """

    trajectory: Trajectory
    moves: tuple[Move, ...]
    seed: int
    attempt: int = 0
    interrupt: Interrupt = field(default=never, compare=False, repr=False)


Preview = Callable[[int, int, Pixels], None]
"""Called while drawing with (index of the request, flow steps done, estimate of the picture)."""


TextPreview = Callable[[int, str], None]
"""Called while writing with (index of the request, the text so far)."""


class BatchedDirector(Protocol):
    """Directs many trajectories at once."""

    def choose(self, requests: Sequence[StepRequest]) -> Sequence[tuple[Move, ...] | RoleError]:
        """Narrow each request to one move, or to several texts between which the text tells.

        Or say why not; the loop asks again, with another seed.
        """
        ...


class BatchedWriter(Protocol):
    """Plans, inspects, refines or answers for many trajectories at once."""

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        """Write for each request one step that makes one of its moves, or say why not."""
        ...


class BatchedSketcher(Protocol):
    """Sketches for many trajectories at once."""

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations a sketch."""
        ...

    @property
    def num_at_once(self) -> int:
        """Sketches that gain from being drawn in one call; others wait for the next."""
        ...

    def draw(
        self, requests: Sequence[StepRequest], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError]:
        """Draw for each request, or say why not."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A player that keeps something for a trajectory from one step to the next."""

    def release(self, trajectory: Trajectory) -> None:
        """Give up what is kept for this trajectory alone: nobody will ask about it any more."""
        ...


@runtime_checkable
class Alike(Protocol):
    """A director and writer of which there may be several that choose and write the same.

    Attributes:
        texts: What choices and texts depend on. Of players where these are equal any may be asked
            for all, in one call.
    """

    @property
    def texts(self) -> object:
        """See the class."""
        ...


@runtime_checkable
class DrawingInSteps(BatchedSketcher, Protocol):
    """A sketcher whose pictures may be begun and given up while others are half drawn.

    There may be several that draw in the same calls, each in its own way.

    Attributes:
        pictures: Of sketchers where these are equal any may take the pictures of all a step on.
    """

    @property
    def pictures(self) -> object:
        """See the class."""
        ...

    def begin(self, request: StepRequest) -> Any:
        """Begin a picture; it costs nothing yet."""
        ...

    def give_up(self, picture: Any) -> None:
        """Hold nothing for a picture any more, at whatever step it is.

        It is said, and not left to the last name of it: a failure keeps the frames that it came
        through, and the pictures in them.
        """
        ...

    def step(
        self, pictures: Sequence[Any], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError | None]:
        """Take the first of some pictures a step on, as many as gain from a common call.

        Args:
            pictures: As `begin` gave them, of this sketcher or of others like it.
            on_preview: As of `draw`; told the place among `pictures`.

        Returns:
            For each the sketch, or why there is none; None where it is still on its way.
        """
        ...


class ImageEditor(Protocol):
    """A model that draws an instruction onto an image."""

    @property
    def name(self) -> str:
        """What to write into provenance."""
        ...

    @property
    def licence(self) -> str:
        """The terms that its outputs carry."""
        ...

    def edit(
        self, image: Pixels | None, instruction: str, *, width: int, height: int, seed: int
    ) -> Pixels:
        """Draw; without an image, on an empty canvas. Returns (height, width, 3)."""
        ...


@runtime_checkable
class LatentEditor(ImageEditor, Protocol):
    """An image editor that hands on what a picture was before it became pixels."""

    def edit_latents(
        self,
        image: Pixels | None,
        latents: bytes | None,
        instruction: str,
        *,
        width: int,
        height: int,
        seed: int,
    ) -> tuple[Pixels, bytes]:
        """Draw, onto latents that an earlier call returned with the image where there are any.

        Returns:
            (height, width, 3), and the latents that it was decoded from.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One object found in an image.

    Attributes:
        class_name: What it is.
        box: Left, top, right, bottom in pixels.
        score: Confidence in [0, 1].
        color: Its colour, where the detector tells it.
        mask: (h, w) bool over the whole image, where the detector tells it.
    """

    class_name: str
    box: tuple[float, float, float, float]
    score: float
    color: str | None = None
    mask: NDArray[np.bool_] | None = None


class Detector(Protocol):
    """Finds objects by looking at pixels."""

    def detect(self, image: Pixels) -> tuple[Detection, ...]:
        """Find objects, best score first."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What a picture got.

    Attributes:
        value: Finite; None where it could not be rated.
        reason: Why not.
    """

    value: float | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Rated:
    """A picture to be rated.

    Attributes:
        prompt: What it is to show.
        pixels: (h, w, 3) uint8 RGB.
    """

    prompt: str
    pixels: Pixels


class Verifier(Protocol):
    """Rates pictures."""

    @property
    def name(self) -> str:
        """Models and weights, as the result of a judge of the same kind says them."""
        ...

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        """Rate each; a rating depends on nothing but its picture."""
        ...
