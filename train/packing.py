"""Samples to a pack: dropout, times and noise are drawn, segments laid out, pixels prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from staged.model.bagel import Inputs
from staged.model.flow import interpolate, shift_time, velocity_target
from staged.model.layout import Layout, Segment, SegmentKind, SpecialTokens, lay_out
from staged.sequence import Dropout, interleave
from staged.trajectory import Inspection, Plan, Refinement, Sketch, Stop, Trajectory
from train.examples import Examples
from train.randomness import SampleRandom
from train.settings import ConditionDropout

_UND_MULTIPLE = 128
MAX_FILLER = _UND_MULTIPLE + 1
"""Tokens that the filler of a pack takes at most."""


@dataclass(frozen=True)
class Pack:
    """One forward pass.

    Attributes:
        layout: Of all samples.
        inputs: Float32 latents and patches, float32 times.
        target: (num_latent, Z) float32 velocity; only supervised rows mean anything.
        tasks: Task of each sample, for losses by task.
        velocity_weights: (num_velocity,) float32, what each supervised latent counts; what labels
            count is the layout's.
    """

    layout: Layout
    inputs: Inputs
    target: Tensor
    tasks: tuple[str, ...]
    velocity_weights: Tensor

    def to(self, device: torch.device) -> Pack:
        """The same pack on `device`."""
        inputs = Inputs(*(t.to(device, non_blocking=True) for t in vars(self.inputs).values()))
        target = self.target.to(device, non_blocking=True)
        weights = self.velocity_weights.to(device, non_blocking=True)
        return Pack(self.layout.to(device), inputs, target, self.tasks, weights)


def build_pack(
    examples: Examples,
    samples: Sequence[int],
    randoms: Sequence[SampleRandom],
    *,
    special: SpecialTokens,
    dropout: ConditionDropout,
    timestep_shift: float,
    noised_copies: int = 1,
    pack_tokens: int | None = None,
) -> Pack:
    """Draw and assemble one pack; the same arguments give the same pack.

    Args:
        examples: Where the samples are.
        samples: Their numbers.
        randoms: One for each, new: dropout, times and noise.
        special: Ids that frame texts and images.
        dropout: Conditioning dropout.
        timestep_shift: Bias of times toward noise.
        noised_copies: Of each supervised sketch.
        pack_tokens: The pack is not filled up where it would become longer than that.
    """
    segments: list[tuple[Segment, ...]] = []
    tasks: list[str] = []
    latents, noises, times, patches = [], [], [], []
    for sample, random in zip(samples, randoms, strict=True):
        trajectory = examples.trajectory(sample)
        interleaved = interleave(
            trajectory,
            examples.encode,
            special,
            examples.grids_of,
            draw_dropout(trajectory, dropout, random),
            noised_copies=noised_copies,
        )
        segments.append(interleaved.segments)
        tasks.append(trajectory.task or "none")
        logits: list[float] = []
        for segment, image in zip(interleaved.segments, interleaved.images, strict=True):
            if image is None or segment.dropped:
                continue
            if segment.kind is SegmentKind.VISION:
                patches.append(examples.patches(sample, trajectory, image))
                continue
            clean = examples.latents(sample, trajectory, image)
            latents.append(clean)
            if segment.kind is SegmentKind.NOISED:
                noises.append(random.noise(*clean.shape))
                # Copies of one image follow one another: the first draws the times of all.
                logits = logits or random.timestep_logits(noised_copies).tolist()
                t = shift_time(torch.tensor(logits.pop()).sigmoid(), timestep_shift)
            else:
                # A clean copy is its own x_t at time 0, so that one interpolation serves all.
                noises.append(torch.zeros_like(clean))
                t = torch.tensor(0.0)
            times.append(t.expand(len(clean)))
    clean = _rows(latents, examples.latent_dim)
    noise, t = _rows(noises, examples.latent_dim), torch.cat([torch.empty(0), *times])
    filler = _filler(segments)
    tokens = sum(segment.num_tokens for sample in (*segments, filler) for segment in sample)
    if pack_tokens is None or tokens <= pack_tokens:
        segments.append(filler)
    layout, velocity_weights = _weighted(
        lay_out(segments, special), [examples.loss_weights(sample) for sample in samples]
    )
    return Pack(
        layout=layout,
        inputs=Inputs(interpolate(clean, noise, t), t, _rows(patches, examples.patch_dim)),
        target=velocity_target(clean, noise),
        tasks=tuple(tasks),
        velocity_weights=velocity_weights,
    )


def _weighted(layout: Layout, weights: Sequence[tuple[float, float]]) -> tuple[Layout, Tensor]:
    """Let labels and supervised latents count as their samples' data sets say; filler has none."""
    filler = [(1.0, 1.0)] * (len(layout.sample_lens) - len(weights))
    of_sample = torch.tensor([*weights, *filler], dtype=torch.float32).reshape(-1, 2)
    of_place = of_sample[layout.sample_ids()]
    words, latents = of_place[layout.ce_index, 0], of_place[layout.latent_index, 1]
    layout = replace(layout, ce_weights=layout.ce_weights * words)
    return layout, latents[layout.velocity_rows]


def _filler(samples: Sequence[Sequence[Segment]]) -> tuple[Segment, ...]:
    """An unsupervised sample that rounds the und expert's tokens up.

    Kernels are prepared once for each shape of their operands: with a different number of tokens
    in every pack, preparing them took a good part of a CPU's step.
    """
    num_und = 0
    for segment in (segment for segments in samples for segment in segments):
        in_gen = segment.kind in (SegmentKind.NOISED, SegmentKind.CLEAN)
        num_und += min(segment.num_tokens, 2) if in_gen else segment.num_tokens
    missing = 2 + (-num_und - 2) % _UND_MULTIPLE
    # Any id will do: nobody sees a sample of its own, and nothing in it is supervised.
    return (Segment(kind=SegmentKind.TEXT, ids=(0,) * (missing - 2)),)


def draw_dropout(
    trajectory: Trajectory, probabilities: ConditionDropout, random: SampleRandom
) -> Dropout:
    """Draw what a sample goes without.

    Words to be predicted keep what they answer to: where any are supervised, the prompt and the
    input images stay (guidance without them is learned from samples that only draw), and so does
    a sketch whose inspection is supervised. The plan or refinement that a supervised sketch draws
    may be dropped, with its inspections and their loss, so that guidance "without the last text"
    meets a condition seen in training; before a sketch that is only looked at it stays.
    """
    steps = trajectory.steps
    speaks = any(step.loss and not isinstance(step, Sketch | Stop) for step in steps)
    plans: set[int] = set()
    images: set[int] = set()
    image = len(trajectory.inputs)
    for index in range(image):
        if random.chance(probabilities.image) and not speaks:
            images.add(index)
    prompt = random.chance(probabilities.text) and not speaks
    for index, step in enumerate(steps):
        if not isinstance(step, Sketch):
            continue
        asked = index - 1  # what the sketch draws, under the inspections of it
        while asked >= 0 and isinstance(steps[asked], Inspection):
            asked -= 1
        has_text = asked >= 0 and isinstance(steps[asked], Plan | Refinement)
        if has_text and random.chance(probabilities.text) and step.loss:
            plans.update(range(asked, index))
        after = steps[index + 1] if index + 1 < len(steps) else None
        judged = isinstance(after, Inspection) and after.loss
        if random.chance(probabilities.image) and not judged:
            images.add(image)
        image += 1
    return Dropout(prompt=prompt, plans=frozenset(plans), images=frozenset(images))


def _rows(parts: list[Tensor], columns: int) -> Tensor:
    return torch.cat([torch.empty(0, columns), *parts])
