"""Contexts in a cache, and the attention of chunks that are appended to them.

A `Context` is one interleaved sequence. A `CacheBatch` holds several side by side in preallocated
memory while an operation runs over them; text decoding, image appends and flow steps are all
"attend from a chunk to a cache", and differ only in whether the chunk stays.

Letters: B contexts, M slots a context, K key/value heads, D head dim, T tokens of a chunk batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from staged.model.attention import attend_rows
from staged.model.config import TransformerConfig
from staged.model.layout import Layout, visible

_LONG_CHUNK = 512  # tokens from which a kernel call of its own costs less than a mask


@dataclass
class Context:
    """One sequence that has been read.

    Attributes:
        keys: Per layer (n, K, D); rope is applied. Empty before anything is appended.
        values: Per layer (n, K, D).
        position: Next rope position.
        has_images: Whether an image stands in it.
    """

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    position: int = 0
    has_images: bool = False

    @property
    def num_tokens(self) -> int:
        """Tokens in the cache."""
        return len(self.keys[0]) if self.keys else 0

    def fork(self) -> Self:
        """A copy that shares memory until either is appended to; costs nothing."""
        return type(self)(list(self.keys), list(self.values), self.position, self.has_images)


class CacheBatch:
    """Contexts side by side, with room for `extra` more tokens each."""

    def __init__(
        self,
        contexts: Sequence[Context],
        extra: int,
        config: TransformerConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Copy the contexts in."""
        self.contexts = list(contexts)
        self.lengths = [context.num_tokens for context in contexts]
        self.slots = max(self.lengths, default=0) + extra
        shape = (len(contexts), self.slots, config.num_kv_heads, config.head_dim)
        # Zeros, not garbage: masked slots still enter a product with weight 0, and 0 * nan is nan.
        self.keys, self.values = (
            [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
            for _ in range(2)
        )
        for row, context in enumerate(contexts):
            for layer in range(config.num_layers if context.keys else 0):
                self.keys[layer][row, : self.lengths[row]] = context.keys[layer]
                self.values[layer][row, : self.lengths[row]] = context.values[layer]

    def commit(self, layout: Layout) -> None:
        """Keep the chunk that was attended last: its keys and values become part of the cache."""
        for row, (count, position) in enumerate(
            zip(layout.sample_lens, layout.next_positions, strict=True)
        ):
            self.lengths[row] += count
            self.contexts[row].position = position

    def store(self) -> None:
        """Write the caches back into their contexts."""
        for row, (context, length) in enumerate(zip(self.contexts, self.lengths, strict=True)):
            context.keys = [keys[row, :length].clone() for keys in self.keys]
            context.values = [values[row, :length].clone() for values in self.values]


class ChunkAttention:
    """Attention of one appended chunk per context to the cache and to itself.

    The chunk's keys and values are written behind each context's length; unless committed, the
    next chunk overwrites them (flow steps do exactly that).
    """

    def __init__(self, batch: CacheBatch, layout: Layout) -> None:
        """Plan where tokens go; the plan serves every layer, and every step of a flow.

        Args:
            batch: The caches; the layout's samples are its first rows.
            layout: One sample per context, laid out at the contexts' positions.
        """
        self.batch, self.layout = batch, layout
        device = layout.position_ids.device
        lens = layout.sample_lens
        rows, longest = len(lens), max(lens)
        sample = torch.repeat_interleave(torch.arange(rows), torch.tensor(lens))
        starts = torch.tensor([0, *lens]).cumsum(0)[:-1]
        place = torch.arange(sum(lens)) - starts[sample]  # within the chunk
        order = layout.expert_order().cpu()
        sample, place = sample[order], place[order]
        self.lengths = batch.lengths[:rows]
        cached = torch.tensor(self.lengths)
        slots = sample * batch.slots + cached[sample] + place
        self.slots = slots.to(device, non_blocking=True)
        # In the padded query rows.
        self.places = (sample * longest + place).to(device, non_blocking=True)
        self.shape = (rows, longest)
        self.calls = self._calls(layout)

    def _calls(self, layout: Layout) -> list[tuple[slice, int, Tensor | None]]:
        """Rows, number of keys and mask of each call of the kernel.

        A chunk that is one token or one image sees all of its cache and of itself, and without a
        mask the fastest kernels apply. So rows of one length share a call; where lengths differ,
        long chunks get a call each length, and short ones a common mask.
        """
        lens = layout.sample_lens
        used = [length + count for length, count in zip(self.lengths, lens, strict=True)]
        images = [rows * columns + 2 for rows, columns in layout.latent_grids]
        if max(lens) == 1 or list(lens) == images:
            ends = [i for i in range(1, len(used)) if used[i] != used[i - 1]]
            if not ends or max(lens) >= _LONG_CHUNK:
                bounds = pairwise([0, *ends, len(used)])
                return [(slice(a, b), used[a], None) for a, b in bounds]
        keys = max(used)
        return [(slice(0, len(used)), keys, self.mask(keys))]

    def mask(self, num_keys: int) -> Tensor:
        """(rows, 1, longest, num_keys) bool: the layout's rule, over the cache and the chunk."""
        layout, (rows, longest), device = self.layout, self.shape, self.places.device
        lengths = torch.tensor(self.lengths, device=device)
        segment_ids = torch.full((rows, longest), layout.num_tokens, device=device)
        modes = torch.ones_like(segment_ids)
        places = self.places
        order = layout.expert_order()
        segment_ids.view(-1)[places] = layout.segment_ids[order]
        modes.view(-1)[places] = layout.modes[order]
        inside = visible(segment_ids, modes)  # (rows, longest, longest)
        slot = torch.arange(num_keys, device=device).expand(rows, longest, -1)
        offset = slot - lengths[:, None, None]
        chunk = torch.gather(inside, 2, offset.clamp(0, longest - 1))
        own = torch.tensor(layout.sample_lens, device=device)[:, None, None]
        return ((offset < 0) | (chunk & (offset < own)))[:, None]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `staged.model.attention.Attend`."""
        rows, longest = self.shape
        keys, values = self.batch.keys[layer], self.batch.values[layer]
        keys.flatten(0, 1).index_copy_(0, self.slots, key)
        values.flatten(0, 1).index_copy_(0, self.slots, value)
        padded = query.new_zeros(rows * longest, *query.shape[1:])
        padded = padded.index_copy(0, self.places, query).view(rows, longest, *query.shape[1:])
        results = [
            attend_rows(
                padded[part].transpose(1, 2),
                keys[part, :used].transpose(1, 2),
                values[part, :used].transpose(1, 2),
                mask,
            ).transpose(1, 2)
            for part, used, mask in self.calls
        ]
        return torch.cat(results).flatten(0, 1).index_select(0, self.places)
