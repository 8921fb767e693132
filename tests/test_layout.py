"""One layout: a trajectory packed for training and read step by step into a cache are the same.

The packed side is what the trainer runs (`interleave`, `lay_out`, `PackedAttention`), the other
is what the engine runs (contexts). Keys and values of every layer are compared, so every hidden
state below the last is too; the last shows in logits and velocities.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from tiny import editing_trajectory, engine, one_shot_trajectory, staged_trajectory
from torch import Tensor

from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.model.attention import PackedAttention
from staged.model.bagel import Inputs
from staged.model.blocks import segments_of
from staged.model.flex import mask_rule
from staged.model.flows import FlowSettings, Guidance
from staged.model.layout import Grids, Layout, Segment, SegmentKind, lay_out
from staged.sequence import Dropout, Interleaved, interleave, opener
from staged.trajectory import ImageRef, Trajectory

ENGINE = engine()
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}
ONE_STEP = FlowSettings(
    num_flow_steps=1, timestep_shift=1.0, guidance=Guidance(text_scale=1, image_scale=1)
)


@dataclass
class Watched:
    """Attention that keeps the keys and values it is given."""

    inner: PackedAttention
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.keys.append(key)
        self.values.append(value)
        return self.inner(layer, query, key, value)


@dataclass(frozen=True)
class Packed:
    """A training forward; tensors in pack order, (num_latent, Z) for velocities."""

    layout: Layout
    samples: list[Interleaved]
    keys: list[Tensor]
    values: list[Tensor]
    logits: Tensor
    velocity: Tensor

    def starts(self, sample: int) -> list[int]:
        """First place of each segment of a sample."""
        place = sum(self.layout.sample_lens[:sample])
        starts = []
        for segment in self.samples[sample].segments:
            starts.append(place)
            place += segment.num_tokens
        return starts


def grids_of(ref: ImageRef) -> Grids:
    return ENGINE.codec.grids(*ref.array().shape[:2])


@torch.inference_mode()
def packed(trajectories: Sequence[Trajectory], dropouts: Sequence[Dropout]) -> Packed:
    """All noised copies stand at time 1 with the engine's noise of seed 0."""
    samples = [
        interleave(t, ENGINE.tokenizer.encode, ENGINE.special, grids_of, d)
        for t, d in zip(trajectories, dropouts, strict=True)
    ]
    latents, times, patches = [], [], []
    for trajectory, sample in zip(trajectories, samples, strict=True):
        for segment, image in zip(sample.segments, sample.images, strict=True):
            if image is None or segment.dropped:
                continue
            pixels = trajectory.images[image].array()
            if segment.kind is SegmentKind.VISION:
                patches.append(ENGINE.codec.to_patches(pixels))
                continue
            noised = segment.kind is SegmentKind.NOISED
            clean = ENGINE.codec.to_latents(pixels)
            latents.append(ENGINE.noise(0, len(clean)) if noised else clean)
            times.append(torch.full((len(clean),), float(noised)))
    layout = lay_out([sample.segments for sample in samples], ENGINE.special)
    inputs = Inputs(
        torch.cat(latents),
        torch.cat(times),
        torch.cat([torch.empty(0, ENGINE.model.config.vision.patch_dim), *patches]),
    )
    watched = Watched(PackedAttention(layout))
    hidden = ENGINE.model(layout, inputs, watched)
    rows = layout.expert_rows()
    logits = torch.zeros(layout.num_tokens, ENGINE.model.config.transformer.vocab_size)
    und = layout.expert_order()[: layout.num_und]
    logits[und] = ENGINE.model.logits(hidden.und)
    return Packed(
        layout=layout,
        samples=samples,
        keys=[keys[rows] for keys in watched.keys],
        values=[values[rows] for values in watched.values],
        logits=logits,
        velocity=ENGINE.model.velocity(hidden.gen),
    )


def check(trajectories: Sequence[Trajectory], dropouts: Sequence[Dropout] | None = None) -> Packed:
    dropouts = dropouts or [Dropout()] * len(trajectories)
    pack = packed(trajectories, dropouts)
    latent_rows = 0
    for index, trajectory in enumerate(trajectories):
        sample, starts = pack.samples[index], pack.starts(index)
        context, waiting, kept = Context(), [], []
        for number, (segment, image) in enumerate(zip(sample.segments, sample.images, strict=True)):
            start, end = starts[number], starts[number] + segment.num_tokens
            if segment.kind is SegmentKind.NOISED:
                velocity = drawn_velocity(ENGINE, context, waiting, segment.grid)
                rows = slice(latent_rows, latent_rows + len(velocity))
                torch.testing.assert_close(velocity, pack.velocity[rows], **TOLERANCE)
                assert set(pack.layout.position_ids[start:end].tolist()) == {
                    position_after(context, waiting)
                }
                latent_rows += len(velocity)
                continue
            if segment.kind is SegmentKind.CLEAN and not segment.dropped:
                latent_rows += segment.num_tokens - 2
            kept += range(start, end)
            waiting.append((segment, image))
            if segment.dropped:
                continue
            if segment.kind is SegmentKind.CLEAN:
                continue  # its ViT copy follows; the engine appends both at once
            logits = append(ENGINE, context, waiting, trajectory)
            waiting = []
            torch.testing.assert_close(logits, pack.logits[end - 1], **TOLERANCE)
        assert context.num_tokens == len(kept)
        for layer, (keys, values) in enumerate(zip(context.keys, context.values, strict=True)):
            torch.testing.assert_close(keys, pack.keys[layer][kept], **TOLERANCE)
            torch.testing.assert_close(values, pack.values[layer][kept], **TOLERANCE)
        assert position_after(context, waiting) == pack.layout.next_positions[index]
    assert latent_rows == len(pack.velocity)
    return pack


Waiting = list[tuple[Segment, int | None]]


def append(engine: Engine, context: Context, waiting: Waiting, trajectory: Trajectory) -> Tensor:
    """Append through the call that generation uses, unless something was dropped before it."""
    segments = [segment for segment, _ in waiting]
    image = waiting[-1][1]
    if image is None and len(segments) == 1:
        return engine.append_text([context], [engine.tokenizer.decode(segments[0].ids)])[0]
    if image is not None and len(segments) == 2:
        return engine.append_images([context], [trajectory.images[image].array()])[0]
    empty = Inputs(
        torch.empty(0, engine.model.config.latent_token_dim),
        torch.empty(0),
        torch.empty(0, engine.model.config.vision.patch_dim),
    )
    if image is not None:
        pixels = trajectory.images[image].array()
        clean = engine.codec.to_latents(pixels)
        empty = Inputs(clean, torch.zeros(len(clean)), engine.codec.to_patches(pixels))
    return engine.append([context], [segments], [empty])[0]


def position_after(context: Context, waiting: Waiting) -> int:
    """A dropped image advances the position, dropped text does not."""
    return context.position + sum(segment.kind is not SegmentKind.TEXT for segment, _ in waiting)


def drawn_velocity(
    engine: Engine, context: Context, waiting: Waiting, grid: tuple[int, int]
) -> Tensor:
    """One Euler step from time 1 to 0 is the noise minus the velocity."""
    stride = engine.model.config.pixels_per_latent_token
    size = grid[0] * stride, grid[1] * stride
    shifted = context.fork()
    shifted.position = position_after(context, waiting)
    [drawing] = engine.draw(
        [shifted], [shifted], [shifted], sizes=[size], seeds=[0], settings=[ONE_STEP]
    )
    return engine.noise(0, len(drawing.latents)) - drawing.latents


def test_every_kind_of_step_reads_the_same_both_ways() -> None:
    trajectory = staged_trajectory()
    layout = check([trajectory]).layout
    # What is predicted at closing tokens is the opener of the next step, step after step.
    special = ENGINE.special
    openers = [special.text_start, special.image_start, special.stop]
    learned = [label for label in layout.labels.tolist() if label in openers]
    assert learned == [opener(step, special) for step in trajectory.steps if step.loss]


def test_an_edit_of_an_input_image_reads_the_same_both_ways() -> None:
    check([editing_trajectory()])


def test_several_trajectories_in_one_pack_do_not_see_one_another() -> None:
    check([one_shot_trajectory(), staged_trajectory(), editing_trajectory(), one_shot_trajectory()])


def test_a_legal_prefix_reads_the_same_both_ways() -> None:
    whole = staged_trajectory()
    check([Trajectory(prompt=whole.prompt, steps=whole.steps[:6])])


@pytest.mark.parametrize(
    "dropout",
    [
        Dropout(plans=frozenset({7})),
        Dropout(plans=frozenset({3, 10})),
        Dropout(plans=frozenset({7}), images=frozenset({1})),
    ],
    ids=["a plan", "a plan and a refinement", "a plan and an unjudged image"],
)
def test_dropped_conditions_read_the_same_both_ways(dropout: Dropout) -> None:
    trajectory = staged_trajectory()
    steps = list(trajectory.steps)
    if dropout.images:  # only an image whose inspection is not supervised may be dropped
        steps[9] = replace(steps[9], loss=False)
    check([replace(trajectory, steps=tuple(steps))], [dropout])


def test_a_dropped_prompt_and_a_dropped_input_read_the_same_both_ways() -> None:
    dropped = Dropout(prompt=True)
    blind = Dropout(images=frozenset({0}))
    edit = editing_trajectory()
    check(
        [one_shot_trajectory(), edit, edit, edit],
        [dropped, dropped, blind, replace(blind, prompt=True)],
    )


def test_an_empty_pack_has_no_tokens_of_any_sample() -> None:
    """As a rank has it that others leave nothing to."""
    layout = lay_out([], engine().special)
    owners = layout.sample_ids()
    assert owners.dtype == torch.int64 and owners.shape == (layout.num_tokens,) == (0,)
    assert list(segments_of(layout)) == []
    places = torch.arange(2)
    seen = mask_rule(layout, 2)(None, None, places[:, None], places[None])
    assert torch.equal(seen, torch.eye(2, dtype=torch.bool)), "filling sees itself alone"
    assert lay_out([[], []], engine().special).sample_ids().shape == (0,)
