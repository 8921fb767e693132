"""Attention over packs: how the layout's rule becomes calls of a kernel.

The transformer hands queries, keys and values in expert order to an `Attend`; what it attends to
(a pack, or a cache plus a chunk) is the callable's business.

Letters: T tokens, H query heads, K key/value heads, D head dim, G rows, L padded length.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from staged.model.layout import Layout, visible

_MAX_PADDING = 1.15  # padded over real tokens in a group
_MAX_SCORED_KEYS = 2048  # longest row whose scores are written out
_MAX_GROUP_TOKENS = 1 << 15  # keeps a group's masks and scores within cache and memory


class Attend(Protocol):
    """Attention of one layer."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend with (T, H, D) queries to (T, K, D) keys and values; all in expert order.

        Returns:
            (T, H, D) in expert order.
        """
        ...


class PackedAttention:
    """Attention within the samples of a pack, samples of like length side by side.

    Many short samples in one call beat both a dense mask over the whole pack and a call for
    each sample. Rows are padded to the longest of their group; a padded key is never visible.
    """

    def __init__(self, layout: Layout) -> None:
        """Plan the groups; the plan serves every layer of a forward pass."""
        # A few operations a group, none a sample: on an accelerator each costs a launch.
        rows, device = layout.expert_rows(), layout.position_ids.device
        lengths = torch.tensor(layout.sample_lens)
        starts = lengths.cumsum(0) - lengths
        shifts = torch.zeros_like(starts)  # from places in the pack to places in the output
        self._groups: list[tuple[Tensor, Tensor, tuple[int, int]]] = []
        offset = 0
        for members in _group_by_length(layout.sample_lens):
            longest = layout.sample_lens[members[0]]
            shifts[members] = offset + longest * torch.arange(len(members)) - starts[members]
            offset += longest * len(members)
            place = torch.arange(longest)
            real = (place < lengths[members, None]).to(device)
            window = (starts[members, None] + place).clamp(max=layout.num_tokens - 1).to(device)
            # Padding is a segment of its own, full within.
            segment_ids = layout.segment_ids[window].where(real, layout.num_tokens)
            modes = layout.modes[window].where(real, 1)
            index = rows[window].where(real, 0).flatten()
            mask = visible(segment_ids, modes)[:, None]
            self._groups.append((index, mask, (len(members), longest)))
        places = torch.arange(layout.num_tokens) + shifts.repeat_interleave(lengths)
        # Where each expert row's result lies in the output.
        self._gathered = torch.empty_like(rows).scatter_(0, rows, places.to(device))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        results = []
        for index, mask, (rows, longest) in self._groups:
            q, k, v = (
                x.index_select(0, index).view(rows, longest, *x.shape[1:]).transpose(1, 2)
                for x in (query, key, value)
            )
            out = attend_rows(q, k, v, mask)
            results.append(out.transpose(1, 2).reshape(rows * longest, *query.shape[1:]))
        return torch.cat(results).index_select(0, self._gathered)


def attend_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of padded rows, grouped-query.

    On a CPU, torch's bf16 kernel is over ten times slower than two matrix products with a
    softmax between them (short rows, forward and backward); elsewhere, and where the whole score
    matrix would not fit, torch knows best.

    Args:
        query: (G, H, Lq, D).
        key: (G, K, Lk, D); K divides H.
        value: Like `key`.
        mask: (G, 1, Lq, Lk) bool, True where a query may look; None where it may everywhere.

    Returns:
        (G, H, Lq, D).
    """
    on_cpu = query.device.type == "cpu"
    if mask is not None and not on_cpu:
        return _attend_masked(query, key, value, mask)
    if not on_cpu or key.shape[-2] > _MAX_SCORED_KEYS or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    # Queries that share a key head are folded into one longer row of queries.
    folded = rearrange(query, "g (k r) q d -> g k (r q) d", k=key.shape[1])
    scores = rearrange(folded @ key.transpose(-1, -2), "g k (r q) s -> g k r q s", q=query.shape[2])
    scores = scores * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, :, None], float("-inf"))
    attended: Tensor = scores.softmax(dim=-1).flatten(2, 3) @ value
    return rearrange(attended, "g k (r q) d -> g (k r) q d", q=query.shape[2])


def _attend_masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """`attend_rows` for accelerators, in a form that a fused kernel takes.

    None of torch's takes a mask together with shared key heads; asked for both, it writes all
    scores out in float32, tens of GB where a few thousand tokens meet a few thousand keys.
    """
    shared = query.shape[1] // key.shape[1]
    if query.shape[-2] == 1:
        # A token being written: its heads that share a key head become rows of queries, so that
        # the cache is not copied.
        folded = rearrange(query, "g (k r) 1 d -> g k r d", r=shared)
        out = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask)
        return rearrange(out, "g k r d -> g (k r) 1 d")
    key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _group_by_length(lengths: tuple[int, ...]) -> list[list[int]]:
    """Split samples into runs of similar length with bounded padding."""
    order = sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i])
    groups: list[list[int]] = []
    real = 0
    for sample in order:
        if groups:
            longest = lengths[groups[-1][0]]
            padded = longest * (len(groups[-1]) + 1)
            if padded <= _MAX_GROUP_TOKENS and padded <= _MAX_PADDING * (real + lengths[sample]):
                groups[-1].append(sample)
                real += lengths[sample]
                continue
        groups.append([sample])
        real = lengths[sample]
    return groups
