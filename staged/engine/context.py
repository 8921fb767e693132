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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from staged.model.attention import attend_rows
from staged.model.layout import Layout, SegmentKind, Tokens


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
        self._pieces = [
            list(_pieces(layout, row, context.num_tokens)) for row, context in enumerate(contexts)
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
            for piece in self._pieces[row]:
                keys, values = k[: piece.num_keys], v[: piece.num_keys]
                attended.append(attend_one(q[piece.queries], keys, values, piece.mask))
        return torch.cat(attended).index_select(0, self._order)

    def blocks(self) -> list[KVBlock]:
        """What each chunk adds to its context, once every layer has attended."""
        assert self._keep, "the chunks are not kept"
        return [KVBlock(tuple(keys), tuple(values)) for keys, values in self._kept]


@dataclass(frozen=True)
class _Piece:
    """A segment of a chunk: queries that attend in one call.

    Attributes:
        queries: Their places in the chunk.
        num_keys: Of the cache and the chunk, so many they meet, from the first.
        mask: (queries, num_keys) bool, True where a query may look; None where each may everywhere.
    """

    queries: slice
    num_keys: int
    mask: Tensor | None


def _pieces(layout: Layout, sample: int, num_cached: int) -> Iterator[_Piece]:
    """Cut a chunk at the ends of its segments.

    So the two copies of an image need no mask: each sees all that there is by then. A mask over
    both would have a row for each of their thousands of tokens and a column for each cached one.
    """
    window = slice(sum(layout.sample_lens[:sample]), sum(layout.sample_lens[: sample + 1]))
    ids, modes = layout.segment_ids[window], layout.modes[window]
    lengths = torch.unique_consecutive(ids, return_counts=True)[1].tolist()
    places = torch.arange(len(ids), device=ids.device)
    start, has_noised = 0, False
    for length in lengths:
        end = start + length
        kind, mask = int(modes[start]), None
        if has_noised or (kind == SegmentKind.TEXT and length > 1):
            tokens, keys = (
                Tokens(ids[some], modes[some], places[some])
                for some in (slice(start, end), slice(end))
            )
            inside = tokens.may_see(keys)
            mask = torch.cat([inside.new_ones(length, num_cached), inside], dim=1)
        yield _Piece(slice(start, end), num_cached + end, mask)
        start, has_noised = end, has_noised or kind == SegmentKind.NOISED


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
