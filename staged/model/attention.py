"""Attention over packs: how the layout's rule becomes calls of a kernel.

The transformer hands queries, keys and values in expert order to an `Attend`; what it attends to
(a pack, or a cache plus a chunk) is the callable's business.

Letters: T tokens, H query heads, K key/value heads, D head dim, G rows, L padded length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from staged.model.blocks import cut_samples, group, places_in, whole_samples
from staged.model.layout import Layout, Tokens

MAX_SCORED_KEYS = 2048
"""Longest row whose scores are written out."""


class Attend(Protocol):
    """Attention of one layer."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend with (T, H, D) queries to (T, K, D) keys and values; all in expert order.

        Returns:
            (T, H, D) in expert order.
        """
        ...


class PackedAttention:
    """Attention within the samples of a pack, in a few calls of like rows.

    Many short rows in one call beat both a dense mask over the whole pack and a call for each
    sample. Rows are padded to the longest of their group; a padded key is never visible. A CPU gets
    blocks of queries with what they may see, accelerators get whole samples (`blocks.py`).
    """

    def __init__(self, layout: Layout) -> None:
        """Plan the groups; the plan serves every layer of a forward pass."""
        # A few operations a group, none a sample: on an accelerator each costs a launch.
        rows, device = layout.expert_rows(), layout.position_ids.device
        blocks = cut_samples(layout) if device.type == "cpu" else whole_samples(layout)
        self._calls: list[_Call] = []
        gathered, offset = torch.empty(layout.num_tokens, dtype=torch.int64), 0
        for members in group(blocks):
            # A padded query is its block's last once more, so that it sees something.
            first = torch.tensor([block.queries.start for block in members])[:, None]
            count = torch.tensor([len(block.queries) for block in members])[:, None]
            nth = torch.arange(int(count.max()))
            real, queries = nth < count, first + nth.minimum(count - 1)
            results = offset + torch.arange(queries.numel()).view_as(queries)
            gathered[queries[real]] = results[real]
            offset += queries.numel()
            keys = pad_sequence([places_in(block.keys) for block in members], True, -1)
            queries, keys = queries.to(device), keys.to(device)
            inside = keys >= 0
            # A padded key is its block's first once more: what is not finite stays in its sample.
            keys = torch.where(inside, keys, keys[:, :1])
            sees = _tokens(layout, queries).may_see(_tokens(layout, keys)) & inside[:, None]
            self._calls.append(_Call(rows[queries], rows[keys], sees[:, None]))
        # Where each expert row's result lies among those of all calls.
        self._gathered = torch.empty_like(rows).scatter_(0, rows, gathered.to(device))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        results = []
        for call in self._calls:
            if query.device.type == "cpu":
                call.mask = additive(call.mask, query.dtype)  # once for all layers
            q, k, v = (
                x.index_select(0, rows.flatten()).unflatten(0, rows.shape).transpose(1, 2)
                for x, rows in ((query, call.queries), (key, call.keys), (value, call.keys))
            )
            results.append(attend_rows(q, k, v, call.mask).transpose(1, 2).flatten(0, 1))
        return torch.cat(results).index_select(0, self._gathered)


@dataclass
class _Call:
    """A group of blocks: (G, Lq) rows of queries, (G, Lk) of keys, (G, 1, Lq, Lk) mask."""

    queries: Tensor
    keys: Tensor
    mask: Tensor


def attend_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of padded rows, grouped-query.

    On a CPU, by measurement (`benchmarks/cpu_attention.py`): in bfloat16 two matrix products with a
    softmax between them are two to four times as fast as torch's kernel, forward and backward; in
    float32 torch's is a little faster, and needs no room for scores. Where scores would not fit,
    and on accelerators, torch knows best.

    Args:
        query: (G, H, Lq, D).
        key: (G, K, Lk, D); K divides H.
        value: Like `key`.
        mask: (G, 1, Lq, Lk); bool, True where a query may look, or what is added to scores, in
            their dtype. None where every query may look everywhere.

    Returns:
        (G, H, Lq, D).
    """
    if query.device.type != "cpu":
        if mask is not None:
            return _attend_masked(query, key, value, mask)
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    mask = None if mask is None else additive(mask, query.dtype)
    if query.dtype != torch.bfloat16 or key.shape[-2] > MAX_SCORED_KEYS:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    # Queries that share a key head are folded into one longer row of queries. They are scaled, not
    # the scores, of which there are more.
    scaled = query * query.shape[-1] ** -0.5
    folded = rearrange(scaled, "g (k r) q d -> g k (r q) d", k=key.shape[1])
    scores = (folded @ key.transpose(-1, -2)).view(*query.shape[:-1], key.shape[-2])
    weights = (scores if mask is None else scores + mask).softmax(dim=-1)
    attended: Tensor = weights.view(*folded.shape[:-1], -1) @ value
    return rearrange(attended, "g k (r q) d -> g (k r) q d", q=query.shape[2])


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What a mask adds to scores: 0 where a query may look and -inf where not."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, float("-inf"))


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


def _tokens(layout: Layout, places: Tensor) -> Tokens:
    return Tokens(layout.segment_ids[places], layout.modes[places], places)
