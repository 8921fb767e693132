"""Keys and values of many contexts in one piece of memory, page by page.

What a context has read is written once and stays where it is: forks share it, and nothing is moved
or joined to be kept. Where the pages of a context lie side by side, kernels read them in place;
otherwise they are gathered for the length of a call. Either way a kernel gets the same numbers in
the same shape, so nothing that comes out depends on where pages lie, or on their size.

Letters: n tokens of a context, K key/value heads, D head dim.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from staged.device_memory import gib
from staged.engine.pages import PageAllocator, PageTable, pages_at_most
from staged.model.config import TransformerConfig

PAGE_SIZE = {"cpu": 32, "cuda": 256}
"""Tokens of a page by kind of device. What is left of a page is lost to others; kernels that find
pages by a table want them large."""
MAX_CACHED_TOKENS = 1 << 17
"""Tokens that are kept if nobody says how many: of BAGEL-7B in bfloat16 7 GiB."""

Slots = list[slice]
"""Runs of places in a cache, each of one token."""


class PagedCache:
    """Room for keys and values of so many tokens, in all layers."""

    def __init__(
        self,
        config: TransformerConfig,
        num_tokens: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        page_size: int | None = None,
    ) -> None:
        """Plan a cache; its memory is taken, in one piece, when something is first kept.

        Args:
            config: Of the model.
            num_tokens: In whole pages; what is left over is not used.
            dtype: Of keys and values.
            device: Where they are.
            page_size: Tokens of a page; None for what suits the device.

        Raises:
            ValueError: A page holds not one token.
        """
        self.page_size = page_size or PAGE_SIZE.get(device.type, PAGE_SIZE["cuda"])
        if self.page_size < 1:
            raise ValueError(f"page_size is {page_size}; give at least 1 token")
        self.allocator = PageAllocator(num_tokens // self.page_size)
        self._config, self._dtype, self._device = config, dtype, device
        self._kept: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that there is room for."""
        return self.allocator.num_pages * self.page_size

    @property
    def num_free(self) -> int:
        """Tokens of the pages that nobody holds."""
        return self.allocator.num_free * self.page_size

    def at_most(self, num_tokens: int, num_ends: int) -> int:
        """Tokens of the pages that runs of tokens take; see `pages_at_most`."""
        return pages_at_most(num_tokens, num_ends, self.page_size) * self.page_size

    @property
    def num_held(self) -> int:
        """Tokens of the pages that somebody holds."""
        return self.allocator.num_held * self.page_size

    @property
    def kept(self) -> Tensor:
        """(2, layers, num_tokens, K, D): keys, then values.

        Raises:
            ValueError: The device has no room for it.
        """
        if self._kept is None:
            config = self._config
            shape = (2, config.num_layers, self.num_tokens, config.num_kv_heads, config.head_dim)
            try:
                # Not zeros: a CPU's memory is taken as it is written, so what is never used costs
                # nothing.
                self._kept = torch.empty(shape, dtype=self._dtype, device=self._device)
            except RuntimeError as error:
                size = 2 * shape[1] * shape[2] * shape[3] * shape[4] * self._dtype.itemsize
                raise ValueError(
                    f"{self._device} has no room for a cache of {self.num_tokens} tokens, "
                    f"{gib(size)} GiB in one piece; lower the batch size or max_cached_tokens"
                ) from error
        return self._kept

    def table(self) -> PageTable:
        """An empty sequence."""
        return PageTable(self.allocator, self.page_size)

    def grow(self, table: PageTable, count: int) -> None:
        """Make room for more tokens at the end of a sequence.

        Raises:
            OutOfPagesError: There is none; nothing has changed then.
        """
        kept = self.kept
        if (copy := table.grow(count)) is not None:
            source, target = copy.source * self.page_size, copy.target * self.page_size
            kept[:, :, target : target + copy.num_tokens].copy_(
                kept[:, :, source : source + copy.num_tokens]
            )


class CachedSequence:
    """A sequence as one pass through the model sees it: what is kept of it, layer by layer.

    Attributes:
        pages: Where it is kept, in order.
    """

    def __init__(self, cache: PagedCache, table: PageTable) -> None:
        """Look where its pages lie; they stay there as long as the table holds them."""
        self._kept, self._page_size = cache.kept, cache.page_size
        self._num_tokens, self.pages = table.num_tokens, list(table.pages)
        self._runs = _runs(self.pages)
        self._index = None
        if len(self._runs) > 1:
            self._index = torch.tensor(self.pages, device=self._kept.device)

    @property
    def in_place(self) -> bool:
        """Whether its pages lie side by side."""
        return self._index is None

    def read(self, layer: int, num_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of its first tokens, or of all: (n, K, D) each."""
        count = self._num_tokens if num_tokens is None else num_tokens
        kept = self._kept[:, layer]
        if self._index is None:
            first = self.pages[0] * self._page_size if self.pages else 0
            keys, values = kept[:, first : first + count]
        else:
            index = self._index[: -(-count // self._page_size)]
            keys, values = (
                x.unflatten(0, (-1, self._page_size)).index_select(0, index).flatten(0, 1)[:count]
                for x in kept
            )
        return keys, values

    def slots(self, start: int, count: int) -> Slots:
        """Where some of its tokens are kept, the same in every layer."""
        size, found, end = self._page_size, list[slice](), start + count
        for first, last in self._runs:  # places among its pages
            low, high = max(start, first * size), min(end, last * size)
            if low < high:
                begin = (self.pages[first] - first) * size
                found.append(slice(begin + low, begin + high))
        return found

    def write(self, layer: int, slots: Slots, keys: Tensor, values: Tensor) -> None:
        """Keep (T, K, D) keys and values of as many tokens as there are slots."""
        kept, done = self._kept[:, layer], 0
        for run in slots:
            count = run.stop - run.start
            kept[0, run] = keys[done : done + count]
            kept[1, run] = values[done : done + count]
            done += count


def _runs(pages: list[int]) -> list[tuple[int, int]]:
    """Cut pages where one does not lie beside the one before: from which to which of them."""
    cuts = [place for place, (one, other) in enumerate(pairwise(pages), 1) if other != one + 1]
    return list(pairwise([0, *cuts, len(pages)])) if pages else []
