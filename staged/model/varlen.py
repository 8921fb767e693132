"""Attention over packs by flash attention's kernel for rows of any length, for CUDA.

The kernel knows two rules, "all keys" and "causal, the last query beside the last key". A
segment's queries follow one of them where its keys are what it may see of earlier segments, and
then itself: an image sees all of that, a text sees its own tokens up to each. So a pack takes two
calls, one for all its images and one for all its texts, and no score is computed in vain; keys that
several segments see are copied for each.

Letters: n queries or keys of all rows, H query heads, K key/value heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor

from staged.model.blocks import places_in, segments_of
from staged.model.layout import Layout, SegmentKind

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int, bool], Tensor]
"""(n, H, D) queries, (n, K, D) keys and values, (rows + 1) int32 ends of queries and of keys, the
most of each in a row, whether it is causal; gives (n, H, D)."""


class VarlenAttention:
    """`staged.model.attention.Attend` over a whole pack."""

    def __init__(self, layout: Layout, kernel: Kernel) -> None:
        """Plan both calls; the plan serves every layer of a forward pass.

        Args:
            layout: On the device.
            kernel: Of `installed_kernel`.
        """
        self._kernel = kernel
        rows, device = layout.expert_rows(), layout.position_ids.device
        texts: list[_Row] = []
        images: list[_Row] = []
        for segments in segments_of(layout):
            earlier: list[range] = []
            for segment in segments:
                row = _Row(segment.places, (*earlier, segment.places))
                (texts if segment.kind is SegmentKind.TEXT else images).append(row)
                if segment.kind is not SegmentKind.NOISED:
                    earlier.append(segment.places)
        self._calls = [
            _Call.of(members, rows, causal=members is texts)
            for members in (images, texts)
            if members
        ]
        asked = places_in(row.queries for row in (*images, *texts)).to(device)
        # Where each expert row's result lies among those of both calls.
        self._gathered = torch.empty_like(rows).scatter_(
            0, rows[asked], torch.arange(len(asked), device=device)
        )

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        results = []
        for call in self._calls:
            q = query.index_select(0, call.queries)
            k, v = (x.index_select(0, call.keys) for x in (key, value))
            results.append(
                self._kernel(
                    *(q, k, v, call.query_ends, call.key_ends),
                    *(call.most_queries, call.most_keys, call.causal),
                )
            )
        return torch.cat(results).index_select(0, self._gathered)


def installed_kernel() -> Kernel:
    """Of flash-attn where that is installed, otherwise torch's own.

    Raises:
        ImportError: There is neither.
    """
    if find_spec("flash_attn") is not None:
        from flash_attn import flash_attn_varlen_func

        def of_package(*tensors_and_sizes: Any) -> Tensor:
            *arguments, causal = tensors_and_sizes
            # torch's own asks that itself.
            repeats = torch.are_deterministic_algorithms_enabled()
            attended: Tensor = flash_attn_varlen_func(
                *arguments, causal=causal, deterministic=repeats
            )
            return attended

        return of_package
    from torch.nn.attention.varlen import varlen_attn

    def of_torch(*tensors_and_sizes: Any) -> Tensor:
        *arguments, causal = tensors_and_sizes
        window = (-1, 0 if causal else -1)
        attended: Any = varlen_attn(*arguments, window_size=window, enable_gqa=True)
        return cast(Tensor, attended)

    return of_torch


@dataclass(frozen=True)
class _Row:
    """Places in the pack of the queries of a segment, and of the keys that they meet, in order."""

    queries: range
    keys: tuple[range, ...]


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What a call takes beside queries, keys and values of expert rows."""

    queries: Tensor
    keys: Tensor
    query_ends: Tensor
    key_ends: Tensor
    most_queries: int
    most_keys: int
    causal: bool

    @classmethod
    def of(cls, members: Sequence[_Row], rows: Tensor, *, causal: bool) -> _Call:
        """Put rows side by side; `rows` are expert rows of places."""
        num_queries = [len(member.queries) for member in members]
        num_keys = [sum(map(len, member.keys)) for member in members]
        return cls(
            queries=rows[places_in(member.queries for member in members).to(rows.device)],
            keys=rows[places_in(run for member in members for run in member.keys).to(rows.device)],
            query_ends=_ends(num_queries, rows.device),
            key_ends=_ends(num_keys, rows.device),
            most_queries=max(num_queries),
            most_keys=max(num_keys),
            causal=causal,
        )


def _ends(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
