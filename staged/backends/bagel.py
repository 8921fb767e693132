"""BAGEL in every role: it plans, sketches, inspects, refines, and decides what comes next.

What comes next is read off the logits at the last closing token, between the openers of the moves
that are legal there. Which text it is, the text itself says. A block that does not parse, or is a
step that may not stand there, is a `RoleError`; asked again, the model samples.

Many trajectories advance together; a step never depends on which others do, to the bit (see
`staged.engine.engine`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch

from staged import protocol
from staged.backends.bagel_settings import BagelSettings
from staged.backends.easel import Easel, PictureOnItsWay, not_finite
from staged.backends.reading import ContextParts, ContextReader, parts_of, texts_of
from staged.engine.cache import MAX_CACHED_TOKENS
from staged.engine.engine import Engine
from staged.engine.sampling import TextBlock, sample
from staged.engine.text_sampling import Forbidden, TextSampling
from staged.model.finite import NotFiniteError
from staged.model.flows import FlowKind, Flows
from staged.roles import Pixels, Preview, RoleError, StepRequest, TextPreview
from staged.trajectory import (
    Move,
    Refinement,
    Sketch,
    TextStep,
    Trajectory,
    TrajectoryError,
    moves,
)

_NO_TAGS = Forbidden(whole=protocol.RESERVED, begun=protocol.RESERVED_BEGUN)
_NOT_FREE: Final[dict[Move, Forbidden]] = {
    # In an answer no tag is open: one that closes says that the model is done.
    "answer": replace(_NO_TAGS, ends=protocol.CLOSING),
    "think": _NO_TAGS,
}
"""Texts that a model words as it likes, and what one that was taught stages may want in them."""


class BagelPlayer:
    """All roles over one engine, for many trajectories at once."""

    def __init__(
        self,
        engine: Engine,
        settings: BagelSettings | None = None,
        *,
        reader: ContextReader | None = None,
    ) -> None:
        """Wrap an engine.

        Args:
            engine: Holds the model.
            settings: How it writes and draws.
            reader: What has been read, shared with other players of the same engine, its limit
                instead of the settings' `max_cached_tokens`; by default nothing.
        """
        self.engine = engine
        self.settings = settings or BagelSettings()
        if reader is None:
            most = self.settings.max_cached_tokens
            reader = ContextReader(
                engine,
                max_tokens=engine.cacheable_tokens(MAX_CACHED_TOKENS) if most is None else most,
            )
        self._reader, self._easel = reader, Easel(engine, reader)
        # How pictures are drawn is nothing to texts.
        written = replace(
            self.settings, flows=Flows(), size=None, preview_every=0, max_cached_tokens=None
        )
        self._texts = reader, written

    @property
    def texts(self) -> object:
        """What its choices and texts depend on; see `staged.roles.Alike`."""
        return self._texts

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations a sketch, at most."""
        return self.settings.flows.num_evaluations

    @property
    def num_at_once(self) -> int:
        """Sketches that gain from one call."""
        flows, side = self.settings.flows, self.engine.codec.sizes.latent_max
        return self.engine.num_drawn_together(
            *(self.settings.size or (side, side)), flows.num_branches(has_images=True)
        )

    @property
    def pictures(self) -> object:
        """What it has read, with which model; see `staged.roles.DrawingInSteps`."""
        return self._reader

    def release(self, trajectory: Trajectory) -> None:
        """Forget what was read for this trajectory alone; see `staged.roles.Remembering`."""
        parts = self._parts(trajectory)
        for wanted in (parts, texts_of(parts)):
            self._reader.forget(wanted)

    def choose(self, requests: Sequence[StepRequest]) -> list[tuple[Move, ...] | RoleError]:
        """Choose an opener for each request; see `staged.roles.BatchedDirector`."""
        told = [self._openers(request) for request in requests]
        readable = [scores for scores in told if isinstance(scores, torch.Tensor)]
        # One wait for the device, however many ask.
        numbers = iter(torch.stack(readable).tolist() if readable else [])
        return [
            scores if isinstance(scores, RoleError) else self._chosen(request, next(numbers))
            for request, scores in zip(requests, told, strict=True)
        ]

    def _chosen(
        self, request: StepRequest, scores: Sequence[float]
    ) -> tuple[Move, ...] | RoleError:
        """Legal moves that one opener begins, by the logits of text, image and stop."""
        if not all(map(math.isfinite, scores)):
            return not_finite(NotFiniteError("logits are"))
        by_opener = dict(zip(("text", "sketch", "stop"), scores, strict=True))
        legal = list(dict.fromkeys(map(_opener, request.moves)))
        temperature = self.settings.choice_temperature
        if temperature:
            logits = torch.tensor([by_opener[opener] for opener in legal])
            # Not the seed itself: the text that may follow is sampled with that.
            generator = torch.Generator().manual_seed(request.seed + 1)
            chosen = legal[sample(logits, TextSampling(temperature=temperature), generator)]
        else:
            chosen = max(legal, key=by_opener.__getitem__)
        return tuple(move for move in request.moves if _opener(move) == chosen)

    def _openers(self, request: StepRequest) -> torch.Tensor | RoleError:
        """Logits of the openers after all that there is."""
        try:
            [reading] = self._reader.read([self._parts(request.trajectory)])
        except RoleError as error:
            return error
        assert reading.openers is not None  # a prompt has been read
        return reading.openers

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        """Write one block for each request; see `staged.roles.BatchedWriter`."""
        answers: list[TextStep | RoleError] = []

        def on_text_of_run(row: int, text: str) -> None:
            assert on_text is not None
            on_text(len(answers) + row, text)

        wanted = [[self._parts(request.trajectory)] for request in requests]
        for run in self._reader.runs(wanted, self._beside):
            some = requests[run]
            answers += self._write(
                some, self._beside(len(some)), on_text_of_run if on_text else None
            )
        return answers

    def _beside(self, number: int) -> int:
        """Tokens that writing holds beside what is read: a text for as many as write at a time."""
        room = self._reader.cache.at_most(self.settings.max_text_tokens + 1, 2)
        return min(number, self.engine.num_text_slots) * room

    def _write(
        self, requests: Sequence[StepRequest], beside: int, on_text: TextPreview | None
    ) -> list[TextStep | RoleError]:
        """Write for requests that are held at once, with so many tokens beside what is read."""
        try:
            blocks = self._blocks(requests, beside, on_text)
        except RoleError as error:
            return [error] * len(requests)
        return [self._step(block, request) for block, request in zip(blocks, requests, strict=True)]

    def _blocks(
        self, requests: Sequence[StepRequest], beside: int, on_text: TextPreview | None
    ) -> list[TextBlock]:
        # Apart, because what is read should not live longer than this: a failure keeps the frames
        # that it came through, and everything in them.
        readings = self._reader.read(
            [self._parts(request.trajectory) for request in requests], beside=beside
        )
        ids: list[list[int]] = [[] for _ in requests]

        def on_token(row: int, token: int) -> None:
            assert on_text is not None
            ids[row].append(token)
            on_text(row, self.engine.tokenizer.decode(ids[row]))

        return self.engine.write(
            [reading.context for reading in readings],
            [self._sampling(request) for request in requests],
            on_token if on_text else None,
        )

    def draw(
        self, requests: Sequence[StepRequest], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError]:
        """Draw one image for each request; see `staged.roles.BatchedSketcher`."""
        pictures = [self.begin(request) for request in requests]
        try:
            return self._drawn_out(pictures, on_preview)
        finally:
            for picture in pictures:
                self.give_up(picture)

    def _drawn_out(
        self, pictures: Sequence[PictureOnItsWay], on_preview: Preview | None
    ) -> list[Sketch | RoleError]:
        answers: list[Sketch | RoleError | None] = [None] * len(pictures)
        while left := [row for row, answer in enumerate(answers) if answer is None]:

            def on_preview_of_left(
                row: int, step: int, pixels: Pixels, left: Sequence[int] = left
            ) -> None:
                assert on_preview is not None
                on_preview(left[row], step, pixels)

            found = self.step(
                [pictures[row] for row in left], on_preview_of_left if on_preview else None
            )
            for row, answer in zip(left, found, strict=True):
                answers[row] = answer
        return [answer for answer in answers if answer is not None]

    def begin(self, request: StepRequest) -> PictureOnItsWay:
        """Begin one image; see `staged.roles.DrawingInSteps`."""
        trajectory = request.trajectory
        flow = self.settings.flows.of(_drawn(trajectory))
        return self._easel.begin(
            request,
            self._parts(trajectory),
            flow=flow,
            size=self._size(trajectory),
            preview_every=self.settings.preview_every,
        )

    def give_up(self, picture: PictureOnItsWay) -> None:
        """Hold nothing for it any more; see `staged.roles.DrawingInSteps`."""
        picture.hold.released = True

    def step(
        self, pictures: Sequence[PictureOnItsWay], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError | None]:
        """Take images a step on; see `staged.roles.DrawingInSteps`."""
        return self._easel.step(pictures, on_preview)

    def _sampling(self, request: StepRequest) -> TextSampling:
        settings = self.settings
        temperature = settings.temperature
        if request.attempt:
            temperature = max(temperature, settings.retry_temperature)
        return TextSampling(
            max_tokens=settings.max_text_tokens,
            temperature=temperature,
            top_p=settings.top_p,
            seed=request.seed,
            begins=protocol.beginnings(request.moves),
            without=_NOT_FREE.get(request.moves[0]) if len(request.moves) == 1 else None,
        )

    def _step(self, block: TextBlock, request: StepRequest) -> TextStep | RoleError:
        try:
            return self._understand(block, request)
        except RoleError as error:
            return error

    def _understand(self, block: TextBlock, request: StepRequest) -> TextStep:
        """Parse a block as a step that makes one of the request's moves.

        Raises:
            RoleError: `not_finite`, `truncated`, `protocol` or `illegal`.
        """
        if not block.finite:
            raise not_finite(NotFiniteError("logits are"))
        if not block.finished:
            raise RoleError("truncated", f"the block did not end within {len(block.ids)} tokens")
        # Decoding leaves special tokens out; a block that holds one is not what it decodes to.
        if not set(block.ids).isdisjoint(vars(self.engine.special).values()):
            raise RoleError("protocol", f"special token inside {block.text!r:.200}")
        trajectory = request.trajectory
        step: TextStep
        try:
            # Free texts: what stands around them says nothing.
            if request.moves == ("answer",):
                step = protocol.parse_answer(block.text.strip())
            elif request.moves == ("think",):
                step = protocol.parse_thought(block.text.strip())
            else:
                step = protocol.parse(block.text, target=trajectory.inspection_target)
            move = moves((*trajectory.steps, step))[-1]
        except TrajectoryError as error:
            raise RoleError("illegal", str(error)) from None
        except ValueError as error:
            raise RoleError("protocol", str(error)) from None
        if move not in request.moves:
            raise RoleError("illegal", f"{move} where {' or '.join(request.moves)} was wanted")
        return step

    def _parts(self, trajectory: Trajectory) -> ContextParts:
        return parts_of(trajectory, vision_only=self.settings.vision_only)

    def _size(self, trajectory: Trajectory) -> tuple[int, int]:
        """Height and width of a new sketch in pixels."""
        if self.settings.size is not None:
            return self.settings.size
        engine = self.engine
        if not trajectory.inputs:
            return engine.codec.sizes.latent_max, engine.codec.sizes.latent_max
        rows, columns = engine.codec.grids(*trajectory.inputs[-1].array().shape[:2]).latent
        stride = engine.model.config.pixels_per_latent_token
        return rows * stride, columns * stride


def _opener(move: Move) -> str:
    return move if move in ("sketch", "stop") else "text"


def _drawn(trajectory: Trajectory) -> FlowKind:
    """What the next picture is drawn onto, and why."""
    if trajectory.last_sketch is None and not trajectory.inputs:
        return "first"
    last = trajectory.steps[-1] if trajectory.steps else None
    return "refinement" if isinstance(last, Refinement) else "edit"
