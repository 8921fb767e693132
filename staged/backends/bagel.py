"""BAGEL in every role: it plans, sketches, inspects, refines, and decides what comes next.

What comes next is read off the logits at the last closing token, between the openers of the moves
that are legal there. Which text it is, the text itself says. A block that does not parse, or is a
step that may not stand there, is a `RoleError`; asked again, the model samples.

Many trajectories advance together; a step never depends on which others do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch

from staged import protocol
from staged.backends.reading import Reader, Reading
from staged.engine.engine import Engine
from staged.engine.sampling import MAX_TEMPERATURE, Drawing, TextBlock, TextSampling
from staged.model.finite import NotFiniteError
from staged.model.flows import Drawn, Flows, FlowSettings
from staged.ranges import check_range
from staged.roles import Ask, Pixels, Preview, RoleError
from staged.sequence import step_text
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


@dataclass(frozen=True, kw_only=True)
class BagelSettings:
    """How BAGEL writes and draws.

    Attributes:
        flows: Steps, grid and guidance of first sketches, edits and refinements.
        size: Height and width of a sketch in pixels; None takes those of the input image or, with
            none, the largest square.
        vision_only: Read images as ViT copies alone, as the published model does to understand;
            otherwise as VAE copies too.
        max_text_tokens: Tokens of a text block at most.
        temperature: Of text; 0 takes the likeliest token.
        retry_temperature: Of text once an attempt has failed.
        top_p: Nucleus of text.
        preview_every: Flow steps between previews; 0 makes none.
        max_cached_tokens: Bound on what has been read and is kept, over all trajectories.
    """

    flows: Flows = field(default_factory=Flows)
    size: tuple[int, int] | None = None
    vision_only: bool = False
    max_text_tokens: int = 512
    temperature: float = 0.0
    retry_temperature: float = 0.7
    top_p: float = 0.95
    preview_every: int = 0
    max_cached_tokens: int = 1 << 17

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a value is out of range.
        """
        TextSampling(
            max_tokens=self.max_text_tokens, temperature=self.temperature, top_p=self.top_p
        )
        # Not 0: every attempt would fail alike.
        check_range(self, "retry_temperature", minimum=0, maximum=MAX_TEMPERATURE, above=True)
        if self.preview_every < 0 or self.max_cached_tokens < 0:
            raise ValueError(
                f"preview_every {self.preview_every}, max_cached_tokens {self.max_cached_tokens}: "
                "give 0 or more"
            )


class BagelPlayer:
    """All roles over one engine, for many trajectories at once."""

    def __init__(self, engine: Engine, settings: BagelSettings | None = None) -> None:
        """Wrap an engine."""
        self.engine = engine
        self.settings = settings or BagelSettings()
        self._reader = Reader(
            engine,
            texts_only=self.settings.flows.guides_by_images,
            max_tokens=self.settings.max_cached_tokens,
            vision_only=self.settings.vision_only,
        )

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations a sketch, at most."""
        return self.settings.flows.num_flow_steps

    def choose(self, asks: Sequence[Ask]) -> list[tuple[Move, ...] | RoleError]:
        """Choose the likeliest opener of each ask; see `staged.roles.Chooser`."""
        special = self.engine.special
        openers = [special.text_start, special.image_start, special.stop]
        logits = torch.stack([_of_prompt(reading) for reading in self._read(asks)])
        finite = torch.isfinite(logits).all(dim=-1, keepdim=True)
        # One wait for the device, however many ask.
        told = torch.cat([finite, logits[:, openers]], dim=1).tolist()
        return [
            _likeliest(ask.moves, dict(zip(("text", "sketch", "stop"), scores, strict=True)))
            if good
            else _not_finite(NotFiniteError("logits are"))
            for ask, (good, *scores) in zip(asks, told, strict=True)
        ]

    def write(self, asks: Sequence[Ask]) -> list[TextStep | RoleError]:
        """Write one block for each ask; see `staged.roles.Writer`."""
        contexts = [reading.context.fork() for reading in self._read(asks)]
        written = self.engine.write(contexts, [self._sampling(ask) for ask in asks])
        results: list[TextStep | RoleError] = []
        for ask, context, (block, logits) in zip(asks, contexts, written, strict=True):
            try:
                step = self._understand(block, ask)
            except RoleError as error:
                results.append(error)
                continue
            if self.engine.tokenizer.encode(step_text(step)) == block.ids:
                self._reader.keep(ask.trajectory, step, context, logits)
            results.append(step)
        return results

    def draw(
        self, asks: Sequence[Ask], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError]:
        """Draw one image for each ask; see `staged.roles.Illustrator`."""
        readings = self._read(asks)
        sketches: dict[int, Sketch | RoleError] = {}
        # Each kind of drawing has guidance of its own, and a batch has one.
        rows_of: dict[Drawn, list[int]] = {}
        for row, ask in enumerate(asks):
            rows_of.setdefault(_drawn(ask.trajectory), []).append(row)
        for drawn, rows in rows_of.items():
            flow = self.settings.flows.of(drawn)
            drawings = self._draw(
                [asks[row] for row in rows], [readings[row] for row in rows], flow, rows, on_preview
            )
            for row, drawing in zip(rows, drawings, strict=True):
                sketches[row] = (
                    _not_finite(drawing.decoded)
                    if isinstance(drawing.decoded, NotFiniteError)
                    else Sketch(
                        image=ImageRef.from_array(drawing.decoded),
                        seed=asks[row].seed,
                        num_flow_steps=flow.num_flow_steps,
                    )
                )
        return [sketches[row] for row in range(len(asks))]

    def _draw(
        self,
        asks: Sequence[Ask],
        readings: Sequence[Reading],
        flow: FlowSettings,
        rows: Sequence[int],
        on_preview: Preview | None,
    ) -> list[Drawing]:
        """Draw asks of one kind; `rows` are their numbers for whoever watches."""
        sizes = [self._size(ask.trajectory) for ask in asks]

        def preview(step: int, estimate: torch.Tensor) -> None:
            if on_preview is None or step % self.settings.preview_every:
                return
            for place, pixels in self._pictures(estimate, sizes):
                on_preview(rows[place], step, pixels)

        return self.engine.draw(
            [reading.context for reading in readings],
            [reading.without_text for reading in readings],
            [reading.texts_only or reading.context for reading in readings],
            sizes=sizes,
            seeds=[ask.seed for ask in asks],
            settings=flow,
            on_step=preview if on_preview and self.settings.preview_every else None,
        )

    def _read(self, asks: Sequence[Ask]) -> list[Reading]:
        return self._reader.read([ask.trajectory for ask in asks])

    def _sampling(self, ask: Ask) -> TextSampling:
        settings = self.settings
        temperature = settings.temperature
        if ask.attempt:
            temperature = max(temperature, settings.retry_temperature)
        return TextSampling(
            max_tokens=settings.max_text_tokens,
            temperature=temperature,
            top_p=settings.top_p,
            seed=ask.seed,
        )

    def _understand(self, block: TextBlock, ask: Ask) -> TextStep:
        """Parse a block as a step that makes one of the ask's moves.

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
        trajectory = ask.trajectory
        step: TextStep
        try:
            # Free texts: what stands around them says nothing.
            if ask.moves == ("answer",):
                step = protocol.parse_answer(block.text.strip())
            elif ask.moves == ("think",):
                step = protocol.parse_thought(block.text.strip())
            else:
                step = protocol.parse(block.text, target=trajectory.inspection_target)
            move = moves((*trajectory.steps, step))[-1]
        except TrajectoryError as error:
            raise RoleError("illegal", str(error)) from None
        except ValueError as error:
            raise RoleError("protocol", str(error)) from None
        if move not in ask.moves:
            raise RoleError("illegal", f"{move} where {' or '.join(ask.moves)} was wanted")
        return step

    def _size(self, trajectory: Trajectory) -> tuple[int, int]:
        """Height and width of a new sketch in pixels."""
        if self.settings.size is not None:
            return self.settings.size
        engine = self.engine
        if not trajectory.inputs:
            return engine.sizes.latent_max, engine.sizes.latent_max
        rows, columns = engine.grids(*trajectory.inputs[-1].array().shape[:2]).latent
        stride = engine.model.config.pixels_per_latent_token
        return rows * stride, columns * stride

    def _pictures(
        self, tokens: torch.Tensor, sizes: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, Pixels]]:
        """Row and picture of those estimates that are one; the drawing itself tells of others."""
        stride = self.engine.model.config.pixels_per_latent_token
        grids = [(height // stride, width // stride) for height, width in sizes]
        parts = torch.split(tokens, [rows * columns for rows, columns in grids])
        for row, (part, grid) in enumerate(zip(parts, grids, strict=True)):
            with suppress(NotFiniteError):
                yield row, self.engine.decode(part, *grid)


def _of_prompt(reading: Reading) -> torch.Tensor:
    assert reading.logits is not None  # a prompt has been read
    return reading.logits


def _likeliest(legal: tuple[Move, ...], scores: Mapping[str, float]) -> tuple[Move, ...]:
    """Legal moves that the likeliest opener begins, by the logits of the three openers."""
    likeliest = max(map(_opener, legal), key=scores.__getitem__)
    return tuple(move for move in legal if _opener(move) == likeliest)


def _opener(move: Move) -> str:
    return move if move in ("sketch", "stop") else "text"


def _not_finite(error: NotFiniteError) -> RoleError:
    return RoleError(error.reason, str(error))


def _drawn(trajectory: Trajectory) -> Drawn:
    """What the next picture is drawn onto, and why."""
    if trajectory.last_sketch is None and not trajectory.inputs:
        return "first"
    last = trajectory.steps[-1] if trajectory.steps else None
    return "refinement" if isinstance(last, Refinement) else "edit"


class EditingSketcher:
    """Sketches by the abilities of a model that was never taught to work in stages.

    The first sketch is drawn from the plan's description (or the prompt), a later one is an edit
    of the sketch before it by the last plan's or refinement's instruction, with nothing else in
    context.
    """

    def __init__(self, player: BagelPlayer) -> None:
        """Draw with a player."""
        self._player = player

    @property
    def num_flow_steps(self) -> int:
        """Network evaluations a sketch."""
        return self._player.num_flow_steps

    def draw(
        self, asks: Sequence[Ask], on_preview: Preview | None = None
    ) -> list[Sketch | RoleError]:
        """Draw one image for each ask; see `staged.roles.Illustrator`."""
        requests = [replace(ask, trajectory=_as_request(ask.trajectory)) for ask in asks]
        return self._player.draw(requests, on_preview)


def _as_request(trajectory: Trajectory) -> Trajectory:
    """Return the one-shot request or the edit that the last text asks for."""
    last, plan, sketch = trajectory.steps[-1:], trajectory.last_plan, trajectory.last_sketch
    if sketch is None:
        prompt = trajectory.prompt if plan is None else plan.description
        return Trajectory(prompt=prompt, inputs=trajectory.inputs)
    correction = last[0] if isinstance(last[0], Refinement) else plan
    prompt = trajectory.prompt if correction is None else correction.instruction
    return Trajectory(prompt=prompt, inputs=(sketch.image,))
