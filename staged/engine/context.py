"""Contexts in a cache, and the attention of chunks that are appended to them.

A `Context` is one interleaved sequence in a cache whose pages forks share. Text decoding, image
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

import torch
from torch import Tensor

from staged.engine.cache import CachedSequence, PagedCache, Slots
from staged.engine.pages import PageTable
from staged.model.attention import attend_rows
from staged.model.layout import Layout, SegmentKind, Tokens


class Context:
    """One sequence that has been read.

    Attributes:
        position: Next rope position.
        has_images: Whether an image stands in it.
    """

    def __init__(self, cache: PagedCache | None = None) -> None:
        """Begin an empty one.

        Args:
            cache: Where it is kept; None for that of the engine that first appends to it.
        """
        self.position, self.has_images = 0, False
        self._cache, self._table = cache, None if cache is None else cache.table()

    @property
    def num_tokens(self) -> int:
        """Tokens in the cache."""
        return 0 if self._table is None else self._table.num_tokens

    @property
    def keys(self) -> list[Tensor]:
        """Per layer (n, K, D), copied. Empty before anything is appended."""
        return self._copied(0)

    @property
    def values(self) -> list[Tensor]:
        """Per layer (n, K, D), copied."""
        return self._copied(1)

    def fork(self) -> Context:
        """Another context that goes on from the same tokens; costs nothing."""
        other = Context()
        other.position, other.has_images = self.position, self.has_images
        other._cache = self._cache
        other._table = None if self._table is None else self._table.fork()
        return other

    def keep_in(self, cache: PagedCache) -> None:
        """Say where it is kept, unless that is settled."""
        if self._cache is None:
            self._cache, self._table = cache, cache.table()

    def grow(self, count: int) -> None:
        """Make room for more tokens at its end; they are nothing until they are written.

        Raises:
            OutOfPagesError: There is none; nothing has changed then.
        """
        cache, table = self._where()
        cache.grow(table, count)

    def cost(self, count: int) -> int:
        """Tokens of the pages that growing by so many takes now."""
        cache, table = self._where()
        return table.cost(count) * cache.page_size

    def shrink(self, count: int) -> None:
        """Take tokens off its end."""
        self._where()[1].shrink(count)

    def release(self) -> None:
        """Free at once what no other holds; it is of no use then."""
        if self._table is not None:
            self._table.release()

    @property
    def released(self) -> bool:
        """Whether what it held may be another's by now."""
        return self._table is not None and self._table.released

    def sequence(self) -> CachedSequence | None:
        """What is kept of it, to be read in passes through the model; None where nothing is."""
        return CachedSequence(*self._where()) if self.num_tokens else None

    def _where(self) -> tuple[PagedCache, PageTable]:
        assert self._cache is not None and self._table is not None, "it is kept nowhere"
        return self._cache, self._table

    def _copied(self, which: int) -> list[Tensor]:
        sequence = self.sequence()
        if sequence is None or self._cache is None:
            return []
        layers = range(self._cache.kept.shape[1])
        return [sequence.read(layer)[which].clone() for layer in layers]


class ChunkAttention:
    """Attention of one chunk per context to the context and to itself.

    The contexts stay as they are, unless they have room for the chunks: then these are kept there.
    """

    def __init__(self, contexts: Sequence[Context], layout: Layout, *, keep: bool = False) -> None:
        """Plan where tokens go; the plan serves every layer, and every step of a flow.

        Args:
            contexts: What is attended to.
            layout: One sample per context, laid out at the contexts' positions.
            keep: The contexts have grown by their chunks, which are to be kept there.
        """
        self._order, self._rows = layout.expert_order(), layout.expert_rows()
        self._lengths = list(layout.sample_lens)
        self._chunks = [
            _Chunk(context, layout, sample, keep) for sample, context in enumerate(contexts)
        ]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `staged.model.attention.Attend`."""
        attended = []
        by_chunk = (x.index_select(0, self._rows).split(self._lengths) for x in (query, key, value))
        for chunk, q, k, v in zip(self._chunks, *by_chunk, strict=True):
            k, v = chunk.keys(layer, k, v)
            for piece in chunk.pieces:
                keys, values = k[: piece.num_keys], v[: piece.num_keys]
                attended.append(attend_one(q[piece.queries], keys, values, piece.mask))
        return torch.cat(attended).index_select(0, self._order)


class _Chunk:
    """A context, and what attends to it."""

    def __init__(self, context: Context, layout: Layout, sample: int, keep: bool) -> None:
        self._keep, count = keep, layout.sample_lens[sample]
        self._num_cached = context.num_tokens - (count if keep else 0)
        self._sequence = context.sequence()
        self._slots: Slots = []
        if self._sequence is not None and keep:
            self._slots = self._sequence.slots(self._num_cached, count)
        self.pieces = list(_pieces(layout, sample, self._num_cached))

    def keys(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the context and, after them, those of the chunk."""
        if self._sequence is None:
            return keys, values
        if self._keep:
            self._sequence.write(layer, self._slots, keys, values)
            return self._sequence.read(layer)
        # Together for this call only: kernels want keys in one piece.
        cached = self._sequence.read(layer)
        return torch.cat([cached[0], keys]), torch.cat([cached[1], values])


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
