"""What a BAGEL has read: contexts of trajectories, kept so that each step is read once.

A context is a function of its trajectory alone: a text block stands in it in the tokenizer's own
spelling, a sketch as it is encoded again from its pixels, exactly as in training. So readings are
kept under what was read, and a trajectory may be forked, resumed, or edited anywhere; whatever is
new after the longest known beginning is appended, many trajectories at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.sequence import step_text
from staged.trajectory import (
    ImageRef,
    Plan,
    Refinement,
    Sketch,
    Stop,
    TextStep,
    Thought,
    Trajectory,
)


@dataclass(frozen=True)
class Part:
    """One thing to read: a text block or an image.

    Attributes:
        content: The text of the block, or the image.
        cue: It says what to draw: a prompt, a plan, a refinement. Guidance draws against its
            absence.
        thought: The model thought it before it draws. Guidance over images draws against the
            texts that were given, so without it, as the published model does.
    """

    content: str | ImageRef
    cue: bool = False
    thought: bool = False


Parts = tuple[Part, ...]


@dataclass(frozen=True)
class Reading:
    """Contexts after some parts; they are never changed, only forked.

    Attributes:
        context: Everything.
        without_text: Everything before the last cue.
        texts_only: The texts but for thoughts, where guidance over images is wanted, else None.
        logits: (V,) float32 at the last token, None before anything is read.
    """

    context: Context
    without_text: Context
    texts_only: Context | None
    logits: Tensor | None


def parts_of(trajectory: Trajectory) -> Parts:
    """List what stands in the sequence: the system text, inputs, the prompt, then the steps."""
    steps = [
        Part(step.image) if isinstance(step, Sketch) else as_part(step)
        for step in trajectory.steps
        if not isinstance(step, Stop)
    ]
    system = () if trajectory.system is None else (Part(trajectory.system),)
    inputs = map(Part, trajectory.inputs)
    return (*system, *inputs, Part(trajectory.prompt, cue=True), *steps)


def as_part(step: TextStep) -> Part:
    """Return the part that a text step is."""
    return Part(
        step_text(step),
        cue=isinstance(step, Plan | Refinement),
        thought=isinstance(step, Thought),
    )


class Reader:
    """Reads trajectories into contexts, each new part once, oldest readings forgotten first."""

    def __init__(
        self, engine: Engine, *, texts_only: bool, max_tokens: int, vision_only: bool = False
    ) -> None:
        """Start with nothing read.

        Args:
            engine: Holds the model.
            texts_only: Also keep contexts without images, for guidance over images.
            max_tokens: Tokens kept over all contexts; what exceeds them is read again when it
                is needed. What one call reads is kept in any case.
            vision_only: Read images as ViT copies alone.
        """
        self._vision_only = vision_only
        self._engine, self._max_tokens = engine, max_tokens
        self._nothing = Reading(Context(), Context(), Context() if texts_only else None, None)
        self._known: OrderedDict[Parts, Reading] = OrderedDict()

    def read(self, trajectories: Sequence[Trajectory]) -> list[Reading]:
        """Read trajectories, those that are new together.

        Raises:
            ValueError: an image is not loaded.
        """
        wanted = [parts_of(trajectory) for trajectory in trajectories]
        reached = {parts: self._longest_known(parts) for parts in wanted}
        while behind := {p: n for p, n in reached.items() if n < len(p)}:
            # The same beginning is read once, however many go on from it; the longest way first,
            # so that all arrive together.
            furthest = max(len(parts) - n for parts, n in behind.items())
            ready = [parts[: n + 1] for parts, n in behind.items() if len(parts) - n == furthest]
            self._read_next(list(dict.fromkeys(ready)))
            reached = {p: self._longest_known(p) if p in behind else n for p, n in reached.items()}
        readings = [self._recall(parts) for parts in wanted]
        self._forget(keep=set(wanted))
        return readings

    def keep(
        self, trajectory: Trajectory, step: TextStep, written: Context, logits: Tensor
    ) -> None:
        """Take over a block that the model wrote itself in a fork of a trajectory's context.

        Args:
            trajectory: What had been read before.
            step: What the block says.
            written: The context with the block, in the tokenizer's own spelling.
            logits: (V,) at its closing token.
        """
        before, part = parts_of(trajectory), as_part(step)
        reading = self._recall(before)
        texts_only = reading.texts_only
        if texts_only is not None and not part.thought:
            texts_only = texts_only.fork()
            self._engine.append_text([texts_only], [str(part.content)])
        self._known[(*before, part)] = Reading(
            written, reading.context if part.cue else reading.without_text, texts_only, logits
        )

    def _read_next(self, prefixes: Sequence[Parts]) -> None:
        """Read the last part of each prefix; all before it is known."""
        for kind in (str, ImageRef):
            some = [parts for parts in prefixes if isinstance(parts[-1].content, kind)]
            # Thoughts apart: fewer contexts get them.
            for thought in (False, True):
                if alike := [parts for parts in some if parts[-1].thought is thought]:
                    self._append(alike)

    def _append(self, prefixes: Sequence[Parts]) -> None:
        before = [self._recall(parts[:-1]) for parts in prefixes]
        contexts = [reading.context.fork() for reading in before]
        blind = [reading.texts_only.fork() for reading in before if reading.texts_only is not None]
        contents = [parts[-1].content for parts in prefixes]
        texts = [content for content in contents if isinstance(content, str)]
        if texts:
            told = [] if prefixes[0][-1].thought else blind
            both = [*texts, *texts][: len(contexts) + len(told)]
            logits = self._engine.append_text([*contexts, *told], both)
        else:
            pictures = [content.array() for content in contents if isinstance(content, ImageRef)]
            logits = self._engine.append_images(contexts, pictures, vision_only=self._vision_only)
        for row, (parts, reading) in enumerate(zip(prefixes, before, strict=True)):
            self._known[parts] = Reading(
                contexts[row],
                reading.context if parts[-1].cue else reading.without_text,
                blind[row] if blind else None,
                logits[row],
            )

    def _longest_known(self, parts: Parts) -> int:
        return next((n for n in range(len(parts), 0, -1) if parts[:n] in self._known), 0)

    def _recall(self, parts: Parts) -> Reading:
        if not parts:
            return self._nothing
        self._known.move_to_end(parts)
        return self._known[parts]

    def _forget(self, keep: set[Parts]) -> None:
        total = sum(reading.context.num_tokens for reading in self._known.values())
        for parts in list(self._known):
            if total <= self._max_tokens:
                break
            if parts not in keep:
                total -= self._known.pop(parts).context.num_tokens
