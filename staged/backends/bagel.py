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
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

import torch

from staged import protocol
from staged.backends.bagel_settings import BagelSettings
from staged.backends.reading import ContextParts, ContextReader, before_last_cue, parts_of, texts_of
from staged.engine.cache import MAX_CACHED_TOKENS
from staged.engine.drawing import GivenUpError
from staged.engine.engine import Engine
from staged.engine.sampling import Drawing, TextBlock, sample
from staged.engine.text_sampling import TextSampling
from staged.model.finite import NotFiniteError
from staged.model.flows import FlowKind, Flows, FlowSettings
from staged.roles import BatchedSketcher, Pixels, Preview, RoleError, StepRequest, TextPreview
from staged.trajectory import (
    ImageRef,
    Move,
    Refinement,
    Sketch,
    TextStep,
    Trajectory,
    TrajectoryError,
    moves,
)


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
        self._reader = reader
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
        """What it has read, with which model; see `staged.roles.DrawingForOthers`."""
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
            return _not_finite(NotFiniteError("logits are"))
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
        return self.draw_for([self] * len(requests), requests, on_preview)

    def draw_for(
        self,
        sketchers: Sequence[BatchedSketcher],
        requests: Sequence[StepRequest],
        on_preview: Preview | None = None,
    ) -> list[Sketch | RoleError]:
        """Draw one image for each request, as its player does; see `DrawingForOthers`."""
        wishes = [
            _Wish.of(sketcher, request)
            for sketcher, request in zip(sketchers, requests, strict=True)
            if isinstance(sketcher, BagelPlayer)
        ]
        assert len(wishes) == len(requests), "a sketcher that reads with nobody else"
        answers: list[Sketch | RoleError] = []

        def on_preview_of_run(row: int, step: int, pixels: Pixels) -> None:
            assert on_preview is not None
            on_preview(len(answers) + row, step, pixels)

        for run in self._reader.runs([wish.branches for wish in wishes]):
            answers += self._draw(wishes[run], on_preview_of_run if on_preview else None)
        return answers

    def _draw(
        self, wishes: Sequence[_Wish], on_preview: Preview | None
    ) -> list[Sketch | RoleError]:
        def look_up(row: int, step: int, estimate: torch.Tensor) -> None:
            wish = wishes[row]
            if (reason := wish.request.interrupt()) is not None:
                raise GivenUpError(reason)
            # An estimate that is no picture is not shown; the drawing itself tells of it.
            if on_preview is not None and wish.preview_every and step % wish.preview_every == 0:
                with suppress(NotFiniteError):
                    stride = self.engine.model.config.pixels_per_latent_token
                    grid = wish.size[0] // stride, wish.size[1] // stride
                    on_preview(row, step, self.engine.codec.decode(estimate, *grid))

        try:
            readings = self._reader.read([parts for wish in wishes for parts in wish.branches])
        except RoleError as error:
            return [error] * len(wishes)
        contexts = [reading.context for reading in readings]
        drawings = self.engine.draw(
            *(contexts[branch::3] for branch in range(3)),
            sizes=[wish.size for wish in wishes],
            seeds=[wish.request.seed for wish in wishes],
            settings=[wish.flow for wish in wishes],
            on_step=look_up,
        )
        return [wish.drawn(drawing) for wish, drawing in zip(wishes, drawings, strict=True)]

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
            raise _not_finite(NotFiniteError("logits are"))
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


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """A picture that is wanted.

    Attributes:
        request: Of whom.
        flow: How it is drawn.
        size: Height and width in pixels.
        branches: What the three branches of guidance stand on.
        preview_every: Flow steps between previews; 0 for none.
    """

    request: StepRequest
    flow: FlowSettings
    size: tuple[int, int]
    branches: Sequence[ContextParts]
    preview_every: int

    @classmethod
    def of(cls, player: BagelPlayer, request: StepRequest) -> Self:
        """What a player is to draw."""
        flow = player.settings.flows.of(_drawn(request.trajectory))
        return cls(
            request=request,
            flow=flow,
            size=player._size(request.trajectory),
            branches=_branches(player._parts(request.trajectory), flow),
            preview_every=player.settings.preview_every,
        )

    def drawn(self, drawing: Drawing) -> Sketch | RoleError:
        """Say what became of it."""
        if isinstance(drawing.decoded, NotFiniteError):
            return _not_finite(drawing.decoded)
        if isinstance(drawing.decoded, GivenUpError):
            return RoleError(str(drawing.decoded))
        return Sketch(
            image=ImageRef.from_array(drawing.decoded),
            seed=self.request.seed,
            num_flow_steps=self.flow.num_evaluations,
        )


def _branches(parts: ContextParts, flow: FlowSettings) -> list[ContextParts]:
    """What the three branches of guidance stand on; what is not looked at is empty."""
    has_images = any(not isinstance(part.content, str) for part in parts)
    needed = flow.guidance.num_branches(has_images=has_images)
    branches = (parts, before_last_cue(parts), texts_of(parts))
    return [branch if number < needed else () for number, branch in enumerate(branches)]


def _opener(move: Move) -> str:
    return move if move in ("sketch", "stop") else "text"


def _not_finite(error: NotFiniteError) -> RoleError:
    return RoleError(error.reason, str(error))


def _drawn(trajectory: Trajectory) -> FlowKind:
    """What the next picture is drawn onto, and why."""
    if trajectory.last_sketch is None and not trajectory.inputs:
        return "first"
    last = trajectory.steps[-1] if trajectory.steps else None
    return "refinement" if isinstance(last, Refinement) else "edit"
