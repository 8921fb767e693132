"""Which queries of a pack meet which keys in one call of a kernel.

A noised copy is invisible to all but itself, so of all pairs of a query and a key of a sample as
few as a quarter count. A CPU computes what it is given: there a sample is cut into blocks of
queries that stand side by side, and each meets only the keys that one of them may see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from staged.model.layout import Layout, SegmentKind

_BLOCK = 96  # queries; of fewer, the calls cost more than the pairs that they leave out. Measured
# with the miniature's sketches of 38 tokens: 64 is 10% better in float32 and 15% worse in bfloat16.
_MAX_PADDING = 1.2  # padded over real pairs of a query and a key in a group
_MAX_GROUP_KEYS = 1 << 15  # keeps a group's masks and scores within cache and memory


@dataclass(frozen=True, kw_only=True)
class QueryBlock:
    """Queries of one sample that stand side by side, and the keys that they meet.

    Attributes:
        queries: Their places in the pack.
        keys: Runs of places in the pack, in order.
    """

    queries: range
    keys: tuple[range, ...]

    @property
    def num_keys(self) -> int:
        """Keys in all runs."""
        return sum(map(len, self.keys))


def whole_samples(layout: Layout) -> list[QueryBlock]:
    """Every sample in one block: fused kernels want few and long rows."""
    return [QueryBlock(queries=run, keys=(run,)) for run in _runs(layout.sample_lens) if run]


def cut_samples(layout: Layout) -> list[QueryBlock]:
    """Cut samples into blocks of some queries, at the ends of segments where there are any."""
    return [block for segments in segments_of(layout) for block in _cut(segments)]


def group(blocks: Sequence[QueryBlock]) -> list[list[QueryBlock]]:
    """Put blocks of like numbers of queries and keys together, with bounded padding."""
    groups: list[list[QueryBlock]] = []
    pairs = most_queries = 0
    for block in sorted(blocks, key=lambda block: (-block.num_keys, -len(block.queries))):
        own = len(block.queries) * block.num_keys
        if groups:
            num_keys, size = groups[-1][0].num_keys, len(groups[-1]) + 1
            widest = max(most_queries, len(block.queries))
            padded = widest * num_keys * size
            if num_keys * size <= _MAX_GROUP_KEYS and padded <= _MAX_PADDING * (pairs + own):
                groups[-1].append(block)
                pairs, most_queries = pairs + own, widest
                continue
        groups.append([block])
        pairs, most_queries = own, len(block.queries)
    return groups


@dataclass(frozen=True)
class PlacedSegment:
    """A segment that has tokens.

    Attributes:
        places: Of its tokens in the pack.
        kind: What it holds.
    """

    places: range
    kind: SegmentKind


def places_in(runs: Iterable[range]) -> Tensor:
    """(n,) int64 places of at least one run, one run after another."""
    return torch.cat([torch.arange(run.start, run.stop) for run in runs])


def segments_of(layout: Layout) -> Iterator[list[PlacedSegment]]:
    """The segments of each sample that has any."""
    owners = torch.stack([layout.sample_ids(), layout.segment_ids.cpu()])
    counts = torch.unique_consecutive(owners, dim=1, return_counts=True)[1]
    kinds = layout.modes.cpu()[counts.cumsum(0) - 1].tolist()
    runs = iter(zip(_runs(counts.tolist()), kinds, strict=True))
    for sample in filter(None, _runs(layout.sample_lens)):
        found: list[PlacedSegment] = []
        while not found or found[-1].places.stop < sample.stop:
            places, kind = next(runs)
            found.append(PlacedSegment(places, SegmentKind(kind)))
        yield found


def _cut(segments: Sequence[PlacedSegment]) -> Iterator[QueryBlock]:
    """Cut one sample.

    A block's keys are what is before it and visible to all that follows, and what is side by side
    from the beginning of its first segment to the last key that its last query may see.
    """
    start = stop = own = seen = segments[0].places.start
    earlier: list[range] = []  # seen by all later segments
    inside: list[range] = []  # of these, what ended within the open block
    for segment in segments:
        for piece in _pieces(segment.places):
            if start < stop and piece.stop - start > _BLOCK:
                yield QueryBlock(queries=range(start, stop), keys=(*earlier, range(own, seen)))
                earlier, inside = earlier + inside, []
                start, own = piece.start, segment.places.start
            stop = piece.stop
            seen = stop if segment.kind is SegmentKind.TEXT else segment.places.stop
        if segment.kind is not SegmentKind.NOISED:
            inside.append(segment.places)
    yield QueryBlock(queries=range(start, stop), keys=(*earlier, range(own, seen)))


def _pieces(places: range) -> Iterator[range]:
    """Cut a long segment."""
    for first in range(places.start, places.stop, _BLOCK):
        yield range(first, min(first + _BLOCK, places.stop))


def _runs(lengths: Sequence[int]) -> list[range]:
    """Places of things of these lengths that stand one after another."""
    return [range(end - n, end) for end, n in zip(accumulate(lengths), lengths, strict=True)]
