"""Full-size training packs: trajectories of two rounds with everything that one holds."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.parts.harness import Setup
from staged.model.bagel import Inputs
from staged.model.config import BagelConfig
from staged.model.layout import Grids, Layout, Segment, SegmentKind, SpecialTokens, lay_out
from staged.sequence import clean_copies, noised_copy, text_block

SPECIAL = SpecialTokens(text_start=1, text_end=2, image_start=3, image_end=4, stop=5)
"""Any ids do: the weights are random."""


def pack(setup: Setup, num_tokens: int) -> Layout:
    """As many samples as fit into `num_tokens`, and at least one; on the device."""
    if setup.tiny:
        one = sample(Grids(latent=(4, 4), vision=(4, 4)), 6)
    else:
        one = sample(Grids(latent=(32, 32), vision=(36, 36)), 128)
    return repeated(one, num_tokens).to(setup.device)


def repeated(one: list[Segment], num_tokens: int) -> Layout:
    """As many copies of a sample as fit into `num_tokens`, and at least one."""
    length = sum(segment.num_tokens for segment in one)
    return lay_out([one] * max(num_tokens // length, 1), SPECIAL)


def sample(grids: Grids, num_words: int) -> list[Segment]:
    """Prompt, then twice: plan, sketch (noised, clean and ViT copy), inspection."""
    words = range(10, 10 + num_words)
    segments = [text_block(words)]
    for _ in range(2):
        segments += [
            text_block(words, supervised=True),
            noised_copy(grids, supervised=True),
            *clean_copies(grids),
            text_block(words, supervised=True),
        ]
    return segments


def inputs(layout: Layout, config: BagelConfig, dtype: torch.dtype) -> tuple[Inputs, Tensor]:
    """Random image tokens of a pack, and random velocities to aim at."""
    device = layout.position_ids.device
    num_latent, num_vision = len(layout.latent_index), len(layout.vision_index)
    latents, target = (
        torch.randn(num_latent, config.latent_token_dim, device=device) for _ in range(2)
    )
    times = torch.rand(num_latent, device=device) * layout.noised
    patches = torch.rand(num_vision, config.vision.patch_dim, device=device) * 2 - 1
    return Inputs(latents.to(dtype), times, patches.to(dtype)), target


def text_only(num_tokens: int) -> Segment:
    """A text block of that many tokens, markers included."""
    return text_block([10 + i % 200 for i in range(num_tokens - 2)])


def clean_image(grid: tuple[int, int]) -> Segment:
    """A finished image's VAE copy alone."""
    return Segment(kind=SegmentKind.CLEAN, grid=grid)
