"""What a BAGEL has read: contexts of trajectories, kept so that each step is read once.

A context is a function of what stands in it: a text block in the tokenizer's own spelling, a
sketch as it is encoded again from its pixels, exactly as in training, each read in a call of its
own. So readings are kept under what was read, and a trajectory may be forked, resumed, or edited
anywhere: whatever is new after the longest known beginning is read, and what was forgotten is read
again, to the same bits.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from weakref import WeakSet

import torch
from torch import Tensor

from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.engine.pages import OutOfPagesError
from staged.roles import RoleError
from staged.sequence import clean_copies, step_text, text_block
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
class ContextPart:
    """One thing to read: a text block or an image.

    Attributes:
        content: The text of the block, or the image.
        cue: It says what to draw: a prompt, a plan, a refinement. Guidance draws against its
            absence.
        thought: The model thought it before it draws. Guidance over images draws against the
            texts that were given, so without it, as the published model does.
        vision_only: An image is read as its ViT copy alone.
    """

    content: str | ImageRef
    cue: bool = False
    thought: bool = False
    vision_only: bool = False


ContextParts = tuple[ContextPart, ...]


@dataclass(frozen=True)
class Reading:
    """A context after some parts; it is never changed, only forked.

    Attributes:
        context: Everything.
        num_tokens: Of the last part.
        openers: (3,) float32 logits of the start of a text, the start of an image, and the stop,
            at the last token; NaN where any logit is no number. None before anything is read.
    """

    context: Context
    num_tokens: int
    openers: Tensor | None


def parts_of(trajectory: Trajectory, *, vision_only: bool = False) -> ContextParts:
    """List what stands in the sequence: the system text, inputs, the prompt, then the steps.

    Args:
        trajectory: Its images are loaded.
        vision_only: Read images as ViT copies alone.
    """

    def image(ref: ImageRef) -> ContextPart:
        return ContextPart(ref, vision_only=vision_only)

    steps = [
        image(step.image) if isinstance(step, Sketch) else as_part(step)
        for step in trajectory.steps
        if not isinstance(step, Stop)
    ]
    system = () if trajectory.system is None else (ContextPart(trajectory.system),)
    inputs = map(image, trajectory.inputs)
    return (*system, *inputs, ContextPart(trajectory.prompt, cue=True), *steps)


def as_part(step: TextStep) -> ContextPart:
    """Return the part that a text step is."""
    return ContextPart(
        step_text(step),
        cue=isinstance(step, Plan | Refinement),
        thought=isinstance(step, Thought),
    )


def before_last_cue(parts: ContextParts) -> ContextParts:
    """What stands before the last prompt, plan or refinement."""
    last = max((i for i, part in enumerate(parts) if part.cue), default=0)
    return parts[:last]


def texts_of(parts: ContextParts) -> ContextParts:
    """The texts that were given: without images and thoughts."""
    return tuple(part for part in parts if isinstance(part.content, str) and not part.thought)


@dataclass(eq=False)
class Hold:
    """Readings that somebody will go on needing.

    They are not forgotten as long as it is there and not released, but where room is needed.

    Attributes:
        wanted: What is read.
        released: They are needed no longer.
    """

    wanted: Sequence[ContextParts]
    released: bool = False

    @property
    def beginnings(self) -> set[ContextParts]:
        """All that is needed for it."""
        wanted = () if self.released else self.wanted
        return {parts[:end] for parts in wanted for end in range(1, len(parts) + 1)}


class ContextReader:
    """Reads trajectories into contexts, each new part once, oldest readings forgotten first."""

    def __init__(self, engine: Engine, *, max_tokens: int, page_size: int | None = None) -> None:
        """Start with nothing read.

        Args:
            engine: Holds the model.
            max_tokens: Tokens held at any time, over all contexts, in whole pages of the cache;
                what they share counts once.
            page_size: Tokens of a page; None for what suits the device.
        """
        self._engine, self.max_tokens = engine, max_tokens
        self.cache = engine.new_cache(max_tokens, page_size=page_size)
        special = engine.special
        self._openers = torch.tensor([special.text_start, special.image_start, special.stop])
        # Of a reading its beginning is known too, and was used later: the oldest is a leaf, and
        # to forget it frees the pages in which nothing but its last part stands.
        self._known: OrderedDict[ContextParts, Reading] = OrderedDict()
        self._holds = WeakSet[Hold]()

    @property
    def num_tokens(self) -> int:
        """Tokens of the pages that are held."""
        return self.cache.num_held

    def read(self, wanted: Sequence[ContextParts], *, beside: int = 0) -> list[Reading]:
        """Read what is new; all of it is held until the next call.

        Args:
            wanted: What is to be read.
            beside: Tokens that the caller will hold beside the readings.

        Raises:
            RoleError: `memory`: it does not fit in `max_tokens`.
            ValueError: An image is not loaded.
        """
        needed = self.at_most([self.needed(parts) for parts in wanted])
        if needed + beside > self.cache.num_tokens:
            raise RoleError(
                "memory",
                f"what stands after {_prompt(wanted[0])!r:.80} takes {needed} tokens of cache"
                + (f", what may be written {beside} more" if beside else "")
                + f", and max_cached_tokens is {self.max_tokens}; raise it, or lower the limits "
                "on rounds, refinements, text tokens or the size of sketches",
            )
        try:
            self._read(wanted, beside)
        except OutOfPagesError:
            # Pages are half used where several went on from one reading and were forgotten since.
            # Read anew and in order, none is.
            for parts in tuple(self._known):
                self._drop(parts)
            self._read(wanted, beside)
        return [self._recall(parts) for parts in wanted]

    def _read(self, wanted: Sequence[ContextParts], beside: int) -> None:
        held = {parts[:end] for parts in wanted for end in range(1, len(parts) + 1)}
        for parts in wanted:
            self._touch(parts)
        for parts in wanted:
            for end in range(1, len(parts) + 1):
                if parts[:end] not in self._known:
                    self._read_last(parts[:end], beside, held)
            self._touch(parts)
        while self.cache.num_free < beside:
            self._drop_oldest(held)

    def at_most(self, needed: Sequence[Mapping[ContextParts, int]]) -> int:
        """Tokens of the pages that readings take together, at most; see `needed`."""
        tokens = {parts: number for some in needed for parts, number in some.items()}
        going_on = {parts[:-1] for parts in tokens}
        num_leaves = len(tokens.keys() - going_on)
        return self.cache.at_most(sum(tokens.values()), 2 * num_leaves - 1)

    def runs(
        self, wanted: Sequence[Sequence[ContextParts]], beside: Callable[[int], int] = lambda _: 0
    ) -> list[slice]:
        """Cut wishes into runs that can be held at once; one that cannot is a run of its own.

        Args:
            wanted: What is to be read for each wish.
            beside: Tokens that are held beside the readings of so many wishes.
        """
        runs: list[slice] = []
        readings: list[dict[ContextParts, int]] = []
        for place, some in enumerate(wanted):
            own = [self.needed(parts) for parts in some]
            readings += own
            number = place - runs[-1].start + 1 if runs else 1
            if runs and self.at_most(readings) + beside(number) <= self.cache.num_tokens:
                runs[-1] = slice(runs[-1].start, place + 1)
            else:
                runs.append(slice(place, place + 1))
                readings = own
        return runs

    def hold(self, wanted: Sequence[ContextParts]) -> Hold:
        """Say that some parts, read or not yet, will be needed for more than a call."""
        hold = Hold(wanted)
        self._holds.add(hold)
        return hold

    def forget(self, parts: ContextParts) -> None:
        """Forget what was read of a sequence, as far as nothing goes on from it or holds it."""
        going_on = Counter(known[:-1] for known in self._known)
        held = set().union(*(hold.beginnings for hold in self._holds))
        for end in range(len(parts), 0, -1):
            if going_on[parts[:end]] or parts[:end] in held:
                return
            if parts[:end] in self._known:
                self._drop(parts[:end])
                going_on[parts[: end - 1]] -= 1

    def needed(self, parts: ContextParts) -> dict[ContextParts, int]:
        """Tokens that are held when it is read: of the last part of each beginning.

        Raises:
            ValueError: An image is not loaded.
        """
        return {parts[:end]: self._count(parts[:end]) for end in range(1, len(parts) + 1)}

    def _count(self, parts: ContextParts) -> int:
        """Tokens of the last part."""
        if (known := self._known.get(parts)) is not None:
            return known.num_tokens
        content = parts[-1].content
        if isinstance(content, str):
            return text_block(self._engine.tokenizer.encode(content)).num_tokens
        copies = clean_copies(self._engine.codec.grids(*content.array().shape[:2]))
        return sum(copy.num_tokens for copy in copies[1 if parts[-1].vision_only else 0 :])

    def _read_last(self, parts: ContextParts, beside: int, held: AbstractSet[ContextParts]) -> None:
        """Read the last part; all before it is known."""
        count, content = self._count(parts), parts[-1].content
        before = self._recall(parts[:-1]).context
        context = before.fork()
        # Each time from a new fork: what is forgotten may have stood in the page where it goes on.
        while context.cost(count) + beside > self.cache.num_free:
            context.release()
            self._drop_oldest(held)
            context = before.fork()
        try:
            if isinstance(content, str):
                [logits] = self._engine.append_text([context], [content])
            else:
                [logits] = self._engine.append_images(
                    [context], [content.array()], vision_only=parts[-1].vision_only
                )
        except BaseException:
            context.release()
            raise
        openers = logits[self._openers.to(logits.device)]
        openers = openers.masked_fill(~torch.isfinite(logits).all(), torch.nan)
        self._known[parts] = Reading(context, count, openers)
        self._touch(parts)

    def _recall(self, parts: ContextParts) -> Reading:
        return self._known[parts] if parts else Reading(Context(self.cache), 0, None)

    def _touch(self, parts: ContextParts) -> None:
        """Note that a reading is used, and then its beginnings, up to the shortest."""
        for end in range(len(parts), 0, -1):
            if parts[:end] in self._known:
                self._known.move_to_end(parts[:end])

    def _drop_oldest(self, held: AbstractSet[ContextParts]) -> None:
        """Forget the oldest.

        Raises:
            OutOfPagesError: All that is left is to be held.
        """
        oldest = next(iter(self._known), None)
        if oldest is None or oldest in held:
            raise OutOfPagesError("all that is read is needed")
        self._drop(oldest)

    def _drop(self, parts: ContextParts) -> None:
        # Not when the last name of it is gone: a failure keeps the frames that it came through.
        self._known.pop(parts).context.release()


def _prompt(parts: ContextParts) -> str:
    """The first cue, to name what is read."""
    return next((str(part.content) for part in parts if part.cue), "")
