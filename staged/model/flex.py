"""Attention over packs by torch's flex kernel, for CUDA: what nobody may see is not computed.

The kernel works in square blocks of scores. Blocks in which no query may see a key are left out,
blocks in which every one may see all are computed without a mask.

Letters: T tokens, N blocks along a side, H query heads, K key/value heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from staged.model.layout import Layout, SegmentKind

BLOCK = 128
"""Queries and keys of a block."""
_ROWS = 16 * BLOCK  # of the mask that stand at a time: all of a long pack would be gigabytes

MaskRule = Callable[[Tensor | None, Tensor | None, Tensor, Tensor], Tensor]


class FlexAttention:
    """`staged.model.attention.Attend` over a whole pack."""

    def __init__(
        self, layout: Layout, kernel: Callable[..., Any] = flex_attention, *, room: int = 0
    ) -> None:
        """Plan the blocks; the plan serves every layer of a forward pass.

        Args:
            layout: On the device.
            kernel: `flex_attention`, compiled where it shall be fast.
            room: Tokens that a pack is filled up to, so that packs of any length are of one shape,
                for which the kernel is compiled once.
        """
        self._order, self._kernel = layout.expert_order(), kernel
        size = -(-max(layout.num_tokens, room) // BLOCK) * BLOCK
        # Tokens that fill up are copies of the first one, whose results nobody asks for.
        self._rows = F.pad(layout.expert_rows(), (0, size - layout.num_tokens))
        self._blocks = block_mask(layout, size)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        q, k, v = (x.index_select(0, self._rows).transpose(0, 1)[None] for x in (query, key, value))
        out: Tensor = self._kernel(q, k, v, block_mask=self._blocks, enable_gqa=True)
        return out[0].transpose(0, 1).index_select(0, self._order)


def mask_rule(layout: Layout, size: int) -> MaskRule:
    """The layout's attention rule for places in pack order, in the form that flex attention takes.

    Args:
        layout: Of T tokens.
        size: At least T. Whatever is beyond T sees itself alone: a row that sees nothing would
            have no softmax.
    """
    more = size - layout.num_tokens
    device = layout.segment_ids.device
    own_sample = -1 - torch.arange(more)
    samples = torch.cat([layout.sample_ids(), own_sample]).to(device)
    segments = F.pad(layout.segment_ids, (0, more))
    modes = F.pad(layout.modes, (0, more), value=int(SegmentKind.NOISED))
    text, hidden = modes == SegmentKind.TEXT, modes == SegmentKind.NOISED

    def rule(_batch: Tensor | None, _head: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
        earlier = (segments[key] < segments[query]) & ~hidden[key]
        own = (segments[key] == segments[query]) & (~text[query] | (query >= key))
        return (samples[query] == samples[key]) & (earlier | own)

    return rule


def block_mask(layout: Layout, size: int) -> BlockMask:
    """Which blocks hold a pair that may see one another, and which hold no other.

    As `create_block_mask`, which needs all (T, T) pairs at once: over 33,000 tokens some 5 GB.

    Args:
        layout: Of T tokens.
        size: At least T; a multiple of `BLOCK`.
    """
    rule, places = mask_rule(layout, size), torch.arange(size, device=layout.segment_ids.device)
    some, all_of_it = [], []
    for queries in places.split(_ROWS):
        sees = rule(None, None, queries[:, None], places).view(-1, BLOCK, size // BLOCK, BLOCK)
        some.append(sees.any(dim=3).any(dim=1))
        all_of_it.append(sees.all(dim=3).all(dim=1))
    whole = torch.cat(all_of_it)
    return BlockMask.from_kv_blocks(
        *_listed(torch.cat(some) & ~whole), *_listed(whole), BLOCK_SIZE=BLOCK, mask_mod=rule
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(1, 1, N) numbers of blocks a row, and (1, 1, N, N) which they are, those first."""
    numbers = blocks.int()
    which = numbers.argsort(dim=-1, descending=True, stable=True)
    return numbers.sum(dim=-1, dtype=torch.int32)[None, None], which.int()[None, None]
