"""Who holds which pages of a cache, and which are free: bookkeeping without tensors.

Tokens of a sequence are kept in pages of one size. Forks share the pages they have in common. The
last of them is often half full, and the first fork that goes on fills it up, for the others look
no further than their own last token; another that goes on takes a copy.

Pages side by side can be read where they lie, others must be gathered. So whoever grows gets the
pages after its own where they are free, and whoever begins does so where there is most room.
"""

from __future__ import annotations

import re
import weakref
from dataclasses import dataclass

_RUN = re.compile(rb"\x01+")


class OutOfPagesError(RuntimeError):
    """There are not so many free pages."""


class PageAllocator:
    """Pages by number, each free or held by some tables, of which each looks so far into it."""

    def __init__(self, num_pages: int) -> None:
        """Begin with all pages free."""
        self.num_pages = self.num_free = num_pages
        self._free = bytearray(b"\x01" * num_pages)
        self._ends: list[list[int]] = [[] for _ in range(num_pages)]

    @property
    def num_held(self) -> int:
        """Pages that somebody holds."""
        return self.num_pages - self.num_free

    def take(self, count: int, after: int | None = None) -> list[int]:
        """Take free pages, side by side where there are such.

        Args:
            count: How many.
            after: The page that they go on from.

        Raises:
            OutOfPagesError: There are not so many; none is taken then.
        """
        if count > self.num_free:
            raise OutOfPagesError(f"{count} pages are wanted, {self.num_free} are free")
        taken: list[int] = []
        while len(taken) < count:
            start, stop = self._run(count - len(taken), after)
            self._free[start:stop] = bytes(stop - start)
            taken += range(start, stop)
            after = None
        self.num_free -= count
        return taken

    def hold(self, page: int, end: int) -> None:
        """Let one more hold a page that is not free, of which it looks at the first tokens."""
        assert not self._free[page], f"page {page} is free"
        self._ends[page].append(end)

    def let_go(self, page: int, end: int) -> None:
        """Undo `hold`; a page that nobody holds is free at once."""
        ends = self._ends[page]
        ends.remove(end)
        if not ends:
            self._free[page] = 1
            self.num_free += 1

    def may_write(self, page: int, end: int) -> bool:
        """Whether what comes after some tokens of a page is nothing to anybody."""
        return max(self._ends[page]) <= end

    def _run(self, count: int, after: int | None) -> tuple[int, int]:
        """First and end of free pages side by side, at most so many."""
        if after is not None and after + 1 < self.num_pages and self._free[after + 1]:
            run = _RUN.match(self._free, after + 1, after + 1 + count)
            assert run is not None
            return run.span()
        start, end = max(
            (run.span() for run in _RUN.finditer(self._free)), key=lambda span: span[1] - span[0]
        )
        # In the middle, so that who stands before it has room to grow as well.
        start += max(end - start - count, 0) // 2 if start else 0
        return start, min(start + count, end)


@dataclass(frozen=True)
class PageCopy:
    """The first tokens of a page that must be copied before a table is written to."""

    source: int
    target: int
    num_tokens: int


class PageTable:
    """The pages of one sequence, in order. Dropped or released, it holds them no longer."""

    def __init__(self, allocator: PageAllocator, page_size: int) -> None:
        """Begin an empty sequence.

        Args:
            allocator: Where pages come from.
            page_size: Tokens of a page.
        """
        self._allocator, self.page_size = allocator, page_size
        # Apart, for it is let go of when the table is no more.
        self._held = _Held(allocator, page_size)
        self._release = weakref.finalize(self, self._held.resize, 0)
        self._release.atexit = False

    @property
    def pages(self) -> list[int]:
        """Numbers of its pages."""
        return self._held.pages

    @property
    def num_tokens(self) -> int:
        """Tokens that it has room for, all of them in use."""
        return self._held.num_tokens

    def fork(self) -> PageTable:
        """Another table of the same tokens."""
        other = PageTable(self._allocator, self.page_size)
        other._held.pages += self.pages
        other._held.resize(self.num_tokens)
        return other

    def cost(self, count: int) -> int:
        """Pages that growing by so many tokens takes now."""
        whole = -(-(self.num_tokens + count) // self.page_size)
        return whole - len(self.pages) + self._must_copy()

    def grow(self, count: int) -> PageCopy | None:
        """Make room for more tokens.

        Args:
            count: How many.

        Returns:
            What must be copied before they are written.

        Raises:
            OutOfPagesError: There are too few pages; nothing has changed then.
        """
        assert self._release.alive, "a table that was released"
        assert count > 0, f"growing by {count} tokens"
        end, offset = self.num_tokens + count, self.num_tokens % self.page_size
        fresh = self._allocator.take(self.cost(count), after=self.pages[-1] if self.pages else None)
        copy = None
        if self._must_copy():
            copy = PageCopy(self.pages[-1], fresh[0], offset)
            self._held.resize(self.num_tokens - offset)
        self._held.pages += fresh
        self._held.resize(end)
        return copy

    def shrink(self, count: int) -> None:
        """Take tokens off the end, with the pages that only they stood in."""
        self._held.resize(self.num_tokens - count)

    def release(self) -> None:
        """Hold no pages any more; the table is of no use then."""
        self._release()

    @property
    def released(self) -> bool:
        """Whether it was."""
        return not self._release.alive

    def _must_copy(self) -> bool:
        """Whether others use what comes after its last token in the page of that."""
        offset = self.num_tokens % self.page_size
        return bool(offset) and not self._allocator.may_write(self.pages[-1], offset)


class _Held:
    """Pages that are held, and how many tokens of them."""

    def __init__(self, allocator: PageAllocator, page_size: int) -> None:
        self._allocator, self._page_size = allocator, page_size
        self.pages: list[int] = []
        self.num_tokens = 0

    def resize(self, num_tokens: int) -> None:
        """Hold so many tokens: all the pages, or those in which they stand."""
        size, before = self._page_size, self.num_tokens
        # What is whole before and after stays as it is.
        same = min(before, num_tokens) // size
        ends = [
            [min(total - place * size, size) for place in range(same, -(-total // size))]
            for total in (before, num_tokens)
        ]
        held = self.pages[same : same + len(ends[0])]
        # First: a page must not fall free in between.
        for page, end in zip(self.pages[same:], ends[1], strict=False):
            self._allocator.hold(page, end)
        for page, end in zip(held, ends[0], strict=True):
            self._allocator.let_go(page, end)
        del self.pages[same + len(ends[1]) :]
        self.num_tokens = num_tokens


def pages_at_most(num_tokens: int, num_ends: int, page_size: int) -> int:
    """Pages in which runs of tokens stand, wherever in a page they begin and end.

    Args:
        num_tokens: Of all runs.
        num_ends: Beginnings and ends of runs that may lie within a page. Sequences that share their
            beginnings are as many runs as there are last tokens; the first begins with a page.
        page_size: Tokens of a page.
    """
    return (num_tokens + num_ends * (page_size - 1)) // page_size
