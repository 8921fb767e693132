"""Attention over a pack by torch's flex kernel: a candidate, measured against the one in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from staged.model.layout import Layout, SegmentKind

MaskRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def mask_rule(layout: Layout) -> MaskRule:
    """The layout's attention rule for places in pack order, in the form flex attention takes."""
    segments = layout.segment_ids
    text, hidden = layout.modes == SegmentKind.TEXT, layout.modes == SegmentKind.NOISED
    lengths = torch.tensor(layout.sample_lens)
    samples = torch.arange(len(lengths)).repeat_interleave(lengths).to(segments.device)

    def rule(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        earlier = (segments[key] < segments[query]) & ~hidden[key]
        own = (segments[key] == segments[query]) & (~text[query] | (query >= key))
        return (samples[query] == samples[key]) & (earlier | own)

    return rule


class FlexAttention:
    """`staged.model.attention.Attend` over a whole pack, skipping blocks that nobody may see."""

    def __init__(self, layout: Layout, kernel: Callable[..., Any] = flex_attention) -> None:
        """Plan the blocks.

        Args:
            layout: On the device.
            kernel: `flex_attention`, compiled where it shall be fast.
        """
        self._rows, self._order, self._kernel = layout.expert_rows(), layout.expert_order(), kernel
        size = layout.num_tokens
        self._blocks = create_block_mask(
            mask_rule(layout), None, None, size, size, device=self._rows.device
        )

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        q, k, v = (x[self._rows].transpose(0, 1)[None] for x in (query, key, value))
        out: Tensor = self._kernel(q, k, v, block_mask=self._blocks, enable_gqa=True)
        return out[0].transpose(0, 1)[self._order]
