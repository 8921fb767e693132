"""Least work that the model's mathematics asks for, to set measured times against.

Only products of matrices are counted, two operations a multiply-add. Whatever an implementation
computes beyond that (masked scores, padding, recomputation) is not counted, so shares of a ceiling
come out low rather than high.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from staged.model.config import BagelConfig, TransformerConfig
from staged.model.layout import Layout, SegmentKind


def expert_weights(config: TransformerConfig) -> int:
    """Matrix entries of one expert of one layer."""
    heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    return config.hidden_size * (heads + 3 * config.intermediate_size)


def attention_flops(config: TransformerConfig, num_pairs: int) -> int:
    """Of all layers, forward, for that many visible pairs of a query and a key."""
    return 4 * num_pairs * config.num_heads * config.head_dim * config.num_layers


def linear_flops(config: TransformerConfig, num_tokens: int) -> int:
    """Of all layers, forward."""
    return 2 * num_tokens * expert_weights(config) * config.num_layers


def train_flops(config: BagelConfig, layout: Layout, frozen: Collection[str] = ()) -> int:
    """Of a forward and backward pass over a pack, without recomputation.

    A backward pass is as much as the forward one for what comes in, and as much again for weights.

    Args:
        config: Of the model.
        layout: Of the pack.
        frozen: Parts whose weights have no gradient: `und`, `gen`, `vit`, `connector`, `words`.
            What comes into the decoder has one in any case, for some part before it learns.
    """
    decoder, vision = config.transformer, config.vision
    latents = len(layout.latent_index)

    def passes(part: str) -> int:
        return 2 if part in frozen else 3

    work = passes("und") * linear_flops(decoder, layout.num_tokens - latents)
    work += passes("gen") * linear_flops(decoder, latents)
    work += 3 * attention_flops(decoder, visible_pairs(layout))
    work += passes("words") * 2 * len(layout.labels) * decoder.hidden_size * decoder.vocab_size
    patches = [rows * columns for rows, columns in layout.vision_grids]
    width = vision.hidden_size
    layer = 4 * width**2 + 2 * width * vision.intermediate_size
    tower = 2 * sum(patches) * (vision.num_layers * layer + vision.patch_dim * width)
    tower += 4 * sum(n * n for n in patches) * width * vision.num_layers
    connector = 2 * sum(patches) * (width * decoder.hidden_size + decoder.hidden_size**2)
    # Before a frozen tower there is nothing that learns.
    backward = "vit" not in frozen
    work += (3 if backward else 1) * tower
    return work + (1 + backward + ("connector" not in frozen)) * connector


def visible_pairs(layout: Layout) -> int:
    """Pairs of a query and a key that it may see, over all samples of a pack, as masks have them.

    Counted segment by segment: a mask of a long sample has a thousand million entries.
    """
    pairs = start = 0
    for length in layout.sample_lens:
        place = slice(start, start + length)
        _, sizes = torch.unique_consecutive(layout.segment_ids[place], return_counts=True)
        kinds = layout.modes[place][sizes.cumsum(0) - 1]
        seen = 0
        for size, kind in zip(sizes.tolist(), kinds.tolist(), strict=True):
            within = size * (size + 1) // 2 if kind == SegmentKind.TEXT else size * size
            pairs += size * seen + within
            if kind != SegmentKind.NOISED:
                seen += size
        start += length
    return pairs
