"""Contexts in a cache, and the attention of chunks that are appended to them.

A `Context` is one interleaved sequence, kept as blocks that forks share. Text decoding, image
appends and flow steps are all "attend from a chunk to a cache", and differ only in whether the
chunk stays.

Each context attends in a call of its own, over exactly its own keys. Rows side by side would need
common lengths, and how far a row is padded changes in which order a kernel sums: a context would
be what it is by what stood beside it.

Letters: n tokens of a context, K key/value heads, D head dim, T tokens of a chunk batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from staged.model.attention import attend_rows
from staged.model.layout import Layout


@dataclass(frozen=True, eq=False)  # by identity: forks share it
class KVBlock:
    """Keys and values of tokens that were read together; forks share it, and nobody changes it.

    Attributes:
        keys: Per layer (n, K, D); rope is applied.
        values: Per layer (n, K, D).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens in it."""
        return len(self.keys[0])


@dataclass
class Context:
    """One sequence that has been read.

    Attributes:
        blocks: What was read, in order.
        position: Next rope position.
        has_images: Whether an image stands in it.
    """

    blocks: tuple[KVBlock, ...] = ()
    position: int = 0
    has_images: bool = False

    @property
    def num_tokens(self) -> int:
        """Tokens in the cache."""
        return sum(block.num_tokens for block in self.blocks)

    @property
    def keys(self) -> list[Tensor]:
        """Per layer (n, K, D), copied together. Empty before anything is appended."""
        return [torch.cat(parts) for parts in zip(*(b.keys for b in self.blocks), strict=True)]

    @property
    def values(self) -> list[Tensor]:
        """Per layer (n, K, D), copied together."""
        return [torch.cat(parts) for parts in zip(*(b.values for b in self.blocks), strict=True)]

    def fork(self) -> Self:
        """Another context that goes on from the same blocks; costs nothing."""
        return type(self)(self.blocks, self.position, self.has_images)


class ChunkAttention:
    """Attention of one chunk per context to the context and to itself.

    The contexts stay as they are; with `keep`, what the chunks add is there as `blocks`.
    """

    def __init__(self, contexts: Sequence[Context], layout: Layout, *, keep: bool = False) -> None:
        """Plan where tokens go; the plan serves every layer, and every step of a flow.

        Args:
            contexts: What is attended to.
            layout: One sample per context, laid out at the contexts' positions.
            keep: Remember the chunks' keys and values.
        """
        self._contexts, self._order = list(contexts), layout.expert_order()
        self._rows = torch.split(layout.expert_rows(), list(layout.sample_lens))
        self._masks = [
            None if alone else _mask(layout, row, context.num_tokens)
            for row, (context, alone) in enumerate(zip(contexts, _alone(layout), strict=True))
        ]
        self._keep = keep
        self._kept: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in contexts]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `staged.model.attention.Attend`."""
        attended = []
        for row, (context, rows) in enumerate(zip(self._contexts, self._rows, strict=True)):
            q, k, v = (x.index_select(0, rows) for x in (query, key, value))
            if self._keep:
                self._kept[row][0].append(k)
                self._kept[row][1].append(v)
            # Together for this call only: kernels want keys in one piece, and a context that kept
            # them so could share none of them with its forks.
            k = torch.cat([*(block.keys[layer] for block in context.blocks), k])
            v = torch.cat([*(block.values[layer] for block in context.blocks), v])
            attended.append(attend_one(q, k, v, self._masks[row]))
        return torch.cat(attended).index_select(0, self._order)

    def blocks(self) -> list[KVBlock]:
        """What each chunk adds to its context, once every layer has attended."""
        assert self._keep, "the chunks are not kept"
        return [KVBlock(tuple(keys), tuple(values)) for keys, values in self._kept]


def attend_one(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of one context: (T, H, D) queries to (n, K, D) keys and values.

    Args:
        query: Of a chunk.
        key: Of the cache and the chunk.
        value: Like `key`.
        mask: (T, n) bool, True where a query may look; None where it may everywhere.

    Returns:
        (T, H, D).
    """
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    out = attend_rows(q, k, v, None if mask is None else mask[None, None])
    return out[0].transpose(0, 1)


def _alone(layout: Layout) -> list[bool]:
    """Of each chunk, whether it is one token or one image: it sees all there is, unmasked."""
    images = [rows * columns + 2 for rows, columns in layout.latent_grids]
    if list(layout.sample_lens) == images:
        return [True] * len(images)
    return [length == 1 for length in layout.sample_lens]


def _mask(layout: Layout, sample: int, num_cached: int) -> Tensor:
    """(T, n) bool: the layout's rule, over the cache and the chunk."""
    inside = layout.mask(sample)
    return torch.cat([inside.new_ones(len(inside), num_cached), inside], dim=1)
