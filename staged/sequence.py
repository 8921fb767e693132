"""Trajectories as segments: the bridge from what happened to what the model reads.

Order of a sample: the system text, input images, the prompt, then the steps. A supervised sketch is
a noised copy; a sketch that anything follows is also shown as a clean VAE copy and a ViT copy. The
opener of a step (`<|im_start|>`, `<|vision_start|>`, `<|endoftext|>` for stop) is the label on
the closing token before it, whenever that step is supervised: what comes next is a decision of
the step that comes, also after a wrong plan that is itself not to be imitated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from staged import protocol
from staged.model.layout import Grids, Segment, SegmentKind, SpecialTokens
from staged.trajectory import Answer, ImageRef, Inspection, Sketch, Step, Stop, Thought, Trajectory


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """What conditioning one sample goes without; drawn per sample by the trainer.

    Attributes:
        prompt: Leave the prompt out (for guidance against no text).
        plans: Indices of steps whose text is left out; it is then not supervised this time
            either, so the sketch after it learns to be drawn without its last text.
        images: Indices, inputs first and then sketches, whose clean and ViT copies are both left
            out. An image whose inspection is supervised must not be dropped: the model would
            learn to judge what it cannot see (upstream does).
    """

    prompt: bool = False
    plans: frozenset[int] = frozenset()
    images: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Interleaved:
    """Segments and, for each image segment, which image fills it.

    Attributes:
        segments: In order.
        images: For each segment its image's index (inputs first, then sketches), None for text.
        steps: For each segment the index of the step that it is of; None before the first.
        announced: For each segment the index of the step that its closing token announces.
    """

    segments: tuple[Segment, ...]
    images: tuple[int | None, ...]
    steps: tuple[int | None, ...]
    announced: tuple[int | None, ...]

    def steps_of_labels(self) -> list[int]:
        """Index of the step that each label is a decision of, in the order of `lay_out`."""
        found: list[int] = []
        for segment, step, next_step in zip(self.segments, self.steps, self.announced, strict=True):
            if segment.kind is SegmentKind.TEXT and segment.supervised:
                assert step is not None
                found += [step] * (len(segment.ids) + 1)
            if segment.end_label is not None:
                assert next_step is not None
                found.append(next_step)
        return found

    def steps_of_velocities(self) -> list[int]:
        """Index of the step that each supervised latent token is of, in the order of `lay_out`."""
        found: list[int] = []
        for segment, step in zip(self.segments, self.steps, strict=True):
            if segment.kind is SegmentKind.NOISED and segment.supervised:
                assert step is not None
                found += [step] * (segment.num_tokens - 2)
        return found


def clean_copies(grids: Grids, *, dropped: bool = False) -> tuple[Segment, Segment]:
    """The two copies under which a finished image stands in a context: VAE, then ViT."""
    return (
        Segment(kind=SegmentKind.CLEAN, grid=grids.latent, dropped=dropped),
        Segment(kind=SegmentKind.VISION, grid=grids.vision, dropped=dropped),
    )


def noised_copy(grids: Grids, *, supervised: bool = False) -> Segment:
    """The copy that is being drawn."""
    return Segment(kind=SegmentKind.NOISED, grid=grids.latent, supervised=supervised)


def text_block(ids: Sequence[int], *, supervised: bool = False, dropped: bool = False) -> Segment:
    """A text block; its markers are the layout's business."""
    return Segment(kind=SegmentKind.TEXT, ids=tuple(ids), supervised=supervised, dropped=dropped)


def step_text(step: Step) -> str:
    """The text under which a step stands in the sequence."""
    return step.text if isinstance(step, Answer | Thought) else protocol.write(step)


def opener(step: Step, special: SpecialTokens) -> int:
    """The token that announces a step."""
    if isinstance(step, Stop):
        return special.stop
    return special.image_start if isinstance(step, Sketch) else special.text_start


def interleave(
    trajectory: Trajectory,
    encode: Callable[[str], tuple[int, ...]],
    special: SpecialTokens,
    grids_of: Callable[[ImageRef], Grids],
    dropout: Dropout | None = None,
    *,
    noised_copies: int = 1,
) -> Interleaved:
    """Turn a trajectory into the segments of one training sample.

    Args:
        trajectory: Whole, or a legal prefix.
        encode: Text to ids, without markers.
        special: Ids of the framing tokens.
        grids_of: Token grids of an image.
        dropout: What to leave out.
        noised_copies: Noised copies of each supervised sketch. A noised copy is invisible to
            everything else, so several share one context and each learns from its own noise.

    Raises:
        ValueError: A dropped step has no text, or a dropped image is inspected under supervision.
    """
    drop = dropout or Dropout()
    segments: list[Segment] = []
    images: list[int | None] = []
    steps: list[int | None] = []
    announced: list[int | None] = []

    def add(*new: Segment, image: int | None = None, of: int | None = None) -> None:
        segments.extend(new)
        images.extend([image] * len(new))
        steps.extend([of] * len(new))
        announced.extend([None] * len(new))

    def announce(index: int, step: Step) -> None:
        # On the last segment that takes tokens: a dropped one has no closing token.
        if step.loss and segments and not segments[-1].dropped:
            segments[-1] = replace(segments[-1], end_label=opener(step, special))
            announced[-1] = index

    if trajectory.system is not None:
        add(text_block(encode(trajectory.system)))
    for index, ref in enumerate(trajectory.inputs):
        add(*clean_copies(grids_of(ref), dropped=index in drop.images), image=index)
    add(text_block(encode(trajectory.prompt), dropped=drop.prompt))
    image = len(trajectory.inputs)
    for index, step in enumerate(trajectory.steps):
        if index in drop.plans:
            if isinstance(step, Sketch | Stop):
                raise ValueError(f"step {index} is a {type(step).__name__}: it has no text to drop")
            add(text_block(encode(step_text(step)), dropped=True), of=index)
            continue
        announce(index, step)
        if isinstance(step, Stop):
            continue
        if not isinstance(step, Sketch):
            add(text_block(encode(step_text(step)), supervised=step.loss), of=index)
            continue
        grids, later = grids_of(step.image), trajectory.steps[index + 1 :]
        if step.loss:
            add(*[noised_copy(grids, supervised=True)] * noised_copies, image=image, of=index)
        if any(after.loss for after in later):
            if image in drop.images and _is_judged(later):
                raise ValueError(f"image {image} is inspected under supervision: never drop it")
            add(*clean_copies(grids, dropped=image in drop.images), image=image, of=index)
        image += 1
    return Interleaved(tuple(segments), tuple(images), tuple(steps), tuple(announced))


def _is_judged(later: Sequence[Step]) -> bool:
    return bool(later) and isinstance(later[0], Inspection) and later[0].loss
