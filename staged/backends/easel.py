"""Pictures that BAGEL draws, from the request to the sketch, a flow step at a time.

Between any two steps others may be begun or given up. What a picture stands on is read when its
first step comes, and again where it was forgotten in between for want of room, to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from torch import Tensor

from staged.backends.reading import ContextParts, ContextReader, Hold, before_last_cue, texts_of
from staged.engine.context import Context
from staged.engine.drawing import ImageOnItsWay
from staged.engine.engine import Engine
from staged.engine.sampling import Drawing
from staged.model.finite import NotFiniteError
from staged.model.flows import FlowSettings
from staged.roles import Preview, RoleError, StepRequest
from staged.trajectory import ImageRef, Sketch


@dataclass(eq=False, kw_only=True)
class PictureOnItsWay:
    """A picture that is wanted, as far as it is drawn.

    Attributes:
        request: Of whom.
        flow: How it is drawn.
        size: Height and width in pixels.
        preview_every: Flow steps between previews; 0 for none.
        num_branches: That a velocity of it is made of, at most.
        hold: What the branches stand on; of those that are not looked at it is nothing.
        image: It; None before its first step.
    """

    request: StepRequest
    flow: FlowSettings
    size: tuple[int, int]
    preview_every: int
    num_branches: int
    hold: Hold
    image: ImageOnItsWay | None = None

    @property
    def readable(self) -> bool:
        """Whether it was begun, and all that its next step needs is still there."""
        image = self.image
        if image is None:
            return False
        return image.ended or not any(one.released for one in image.image.branches)

    def stand_on(self, contexts: Sequence[Context], engine: Engine) -> None:
        """Begin on what was read, or go on there."""
        if self.image is not None:
            self.image.image = replace(self.image.image, branches=contexts)
            return
        [self.image] = engine.begin(
            *([context] for context in contexts),
            sizes=[self.size],
            seeds=[self.request.seed],
            settings=[self.flow],
        )

    def made(self, drawing: Drawing) -> Sketch | RoleError:
        """Say what became of it."""
        if isinstance(drawing.decoded, NotFiniteError):
            return not_finite(drawing.decoded)
        return Sketch(
            image=ImageRef.from_array(drawing.decoded),
            seed=self.request.seed,
            num_flow_steps=self.flow.num_evaluations,
        )


class Easel:
    """Draws pictures with an engine, over what a reader has read."""

    def __init__(self, engine: Engine, reader: ContextReader) -> None:
        """Draw nothing yet."""
        self._engine, self._reader = engine, reader

    def begin(
        self,
        request: StepRequest,
        parts: ContextParts,
        *,
        flow: FlowSettings,
        size: tuple[int, int],
        preview_every: int,
    ) -> PictureOnItsWay:
        """Begin a picture after some parts; nothing is read or computed yet."""
        has_images = any(not isinstance(part.content, str) for part in parts)
        needed = flow.guidance.num_branches(has_images=has_images)
        branches = (parts, before_last_cue(parts), texts_of(parts))
        return PictureOnItsWay(
            request=request,
            flow=flow,
            size=size,
            preview_every=preview_every,
            num_branches=needed,
            hold=self._reader.hold(
                [branch if number < needed else () for number, branch in enumerate(branches)]
            ),
        )

    def step(
        self, pictures: Sequence[PictureOnItsWay], on_preview: Preview | None
    ) -> list[Sketch | RoleError | None]:
        """Take the first of some pictures a step on, as many as gain from it.

        Returns:
            For each the sketch, or why there is none; None where it is still on its way.
        """
        reasons = [picture.request.interrupt() for picture in pictures]
        answers: dict[int, Sketch | RoleError] = {
            row: RoleError(reason) for row, reason in enumerate(reasons) if reason is not None
        }
        team = self._team({row: p for row, p in enumerate(pictures) if row not in answers})
        try:
            self._read(list(team.values()))
        except RoleError as error:
            answers |= dict.fromkeys(team, error)
        else:
            answers |= self._step(team, on_preview)
        for row in answers:
            pictures[row].hold.released = True
        return [answers.get(row) for row in range(len(pictures))]

    def _team(self, pictures: Mapping[int, PictureOnItsWay]) -> dict[int, PictureOnItsWay]:
        """Of pictures by their rows the first, as many as take a step and can be held at once."""
        rows = list(pictures)[
            : self._engine.num_stepped(
                [picture.size for picture in pictures.values()],
                [picture.num_branches for picture in pictures.values()],
            )
        ]
        if not all(pictures[row].readable for row in rows):
            rows = rows[self._reader.runs([pictures[row].hold.wanted for row in rows])[0]]
        return {row: pictures[row] for row in rows}

    def _read(self, team: Sequence[PictureOnItsWay]) -> None:
        """Read what is not there; what they stand on is all there then.

        Raises:
            RoleError: `memory`: it does not fit.
        """
        if all(picture.readable for picture in team):
            return
        readings = self._reader.read([parts for picture in team for parts in picture.hold.wanted])
        contexts = [reading.context for reading in readings]
        for number, picture in enumerate(team):
            if not picture.readable:
                picture.stand_on(contexts[3 * number : 3 * number + 3], self._engine)

    def _step(
        self, team: Mapping[int, PictureOnItsWay], on_preview: Preview | None
    ) -> dict[int, Sketch | RoleError]:
        """Take pictures that can be read a step on: those that have ended, by their rows."""
        images = dict[int, ImageOnItsWay]()
        for row, picture in team.items():
            assert picture.image is not None, "it was begun as it was read"
            picture.image.number, images[row] = row, picture.image

        def show(row: int, step: int, estimate: Tensor) -> None:
            every = team[row].preview_every
            # An estimate that is no picture is not shown; the drawing itself tells of it.
            if on_preview is not None and every and step % every == 0:
                with suppress(NotFiniteError):
                    grid = images[row].image.grid
                    on_preview(row, step, self._engine.codec.decode(estimate, *grid))

        self._engine.step(list(images.values()), show if on_preview is not None else None)
        return {
            row: team[row].made(self._engine.finished(image))
            for row, image in images.items()
            if image.ended
        }


def not_finite(error: NotFiniteError) -> RoleError:
    """Say it as a player does."""
    return RoleError(error.reason, str(error))
