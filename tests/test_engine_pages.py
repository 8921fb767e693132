"""Pages of a cache: nobody loses what it has, nothing is held that nobody has."""

import gc
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staged.engine.pages import OutOfPagesError, PageAllocator, PageTable, pages_at_most


class Sequences:
    """Tables beside what each should hold, and memory in which it is looked up."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.allocator, self.page_size = PageAllocator(num_pages), page_size
        self.memory: dict[tuple[int, int], int] = {}
        self.tables: list[tuple[PageTable, list[int]]] = []
        self.next_token = 0

    def begin(self) -> None:
        self.tables.append((PageTable(self.allocator, self.page_size), []))

    def fork(self, which: int) -> None:
        table, tokens = self.tables[which]
        self.tables.append((table.fork(), list(tokens)))

    def grow(self, which: int, count: int) -> None:
        table, tokens = self.tables[which]
        before, free = list(table.pages), self.allocator.num_free
        cost = table.cost(count)
        try:
            copy = table.grow(count)
        except OutOfPagesError:
            assert cost > free == self.allocator.num_free
            assert table.pages == before and table.num_tokens == len(tokens)
            return
        assert cost <= free
        if copy is not None:
            for place in range(copy.num_tokens):
                self.memory[copy.target, place] = self.memory[copy.source, place]
        for place in range(len(tokens), len(tokens) + count):
            self.memory[table.pages[place // self.page_size], place % self.page_size] = (
                self.next_token
            )
            tokens.append(self.next_token)
            self.next_token += 1

    def shrink(self, which: int, count: int) -> None:
        table, tokens = self.tables[which]
        count = min(count, len(tokens))
        table.shrink(count)
        del tokens[len(tokens) - count :]

    def end(self, which: int, *, by_name: bool) -> None:
        table, _ = self.tables.pop(which)
        if by_name:
            table.release()
            table.release()  # once is enough, twice does no harm

    def check(self) -> None:
        holders: Counter[int] = Counter()
        for table, tokens in self.tables:
            assert table.num_tokens == len(tokens)
            assert len(table.pages) == -(-len(tokens) // self.page_size)
            found = [
                self.memory[table.pages[place // self.page_size], place % self.page_size]
                for place in range(len(tokens))
            ]
            assert found == tokens
            holders.update(table.pages)
        assert self.allocator.num_held == len(holders)
        assert self.allocator.num_held + self.allocator.num_free == self.allocator.num_pages


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_pages=st.integers(0, 40),
    page_size=st.integers(1, 9),
    num_acts=st.integers(1, 60),
)
def test_tables_hold_what_they_should_whatever_happens(
    seed: int, num_pages: int, page_size: int, num_acts: int
) -> None:
    there, chance = Sequences(num_pages, page_size), random.Random(seed)
    for _ in range(num_acts):
        act = chance.choice(("begin", "fork", "grow", "grow", "grow", "shrink", "end"))
        if act == "begin" or not there.tables:
            there.begin()
            continue
        which = chance.randrange(len(there.tables))
        match act:
            case "fork":
                there.fork(which)
            case "grow":
                there.grow(which, chance.randint(1, 3 * page_size))
            case "shrink":
                there.shrink(which, chance.randint(0, 2 * page_size))
            case "end":
                there.end(which, by_name=chance.random() < 0.5)
        there.check()
    there.tables.clear()
    gc.collect()
    assert there.allocator.num_free == num_pages


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), page_size=st.integers(1, 9), num_sequences=st.integers(1, 8))
def test_no_more_pages_are_taken_than_is_said(
    seed: int, page_size: int, num_sequences: int
) -> None:
    """Sequences that go on from one another anywhere, as readings of trajectories do."""
    chance, allocator = random.Random(seed), PageAllocator(10_000)
    nodes = [PageTable(allocator, page_size)]
    parents, total = [-1], 0
    for _ in range(num_sequences):
        place = chance.randrange(len(nodes))
        for _ in range(chance.randint(1, 4)):
            count = chance.randint(1, 2 * page_size)
            nodes.append(nodes[place].fork())
            nodes[-1].grow(count)
            parents.append(place)
            place, total = len(nodes) - 1, total + count
    num_leaves = len(set(range(len(nodes))) - set(parents))
    assert allocator.num_held <= pages_at_most(total, 2 * num_leaves - 1, page_size)
    if page_size == 1:
        assert allocator.num_held == total


def test_the_first_fork_that_goes_on_shares_the_last_page_and_another_copies_it() -> None:
    allocator = PageAllocator(9)
    whole = PageTable(allocator, 4)
    whole.grow(6)
    one, other = whole.fork(), whole.fork()
    assert one.grow(1) is None and one.pages == whole.pages
    copy = other.grow(1)
    assert copy is not None and (copy.source, copy.num_tokens) == (whole.pages[1], 2)
    assert other.pages[0] == whole.pages[0] and other.pages[1] == copy.target != whole.pages[1]
    assert allocator.num_held == 3
    # Whoever is left may write where a fork had.
    one.release()
    again = whole.fork()
    assert again.grow(2) is None and again.pages == whole.pages


def test_what_was_written_after_a_sequence_and_dropped_is_written_over() -> None:
    """Though its beginnings are kept too, which share its last page."""
    allocator = PageAllocator(9)
    prompt = PageTable(allocator, 8)
    prompt.grow(3)
    plan = prompt.fork()
    plan.grow(2)
    for _ in range(3):
        row = plan.fork()
        assert row.grow(9) is None and row.pages[0] == prompt.pages[0]
        row.release()
    sketch = plan.fork()
    assert sketch.grow(20) is None
    assert sketch.pages == [0, 1, 2, 3]
    # The prompt's own next token stands elsewhere: the plan is still there.
    copy = prompt.fork().grow(1)
    assert copy is not None and copy.source == 0


def test_pages_are_free_as_soon_as_nobody_holds_them() -> None:
    allocator = PageAllocator(4)
    table = PageTable(allocator, 2)
    table.grow(7)
    fork = table.fork()
    del table
    assert allocator.num_free == 0
    fork.shrink(4)
    assert allocator.num_free == 2
    fork.release()
    assert allocator.num_free == 4


def test_sequences_that_grow_in_turns_stay_side_by_side() -> None:
    """Kernels read pages in place that lie side by side."""
    allocator = PageAllocator(64)
    tables = [PageTable(allocator, 1) for _ in range(4)]
    for _ in range(8):
        for table in tables:
            table.grow(1)
    for table in tables:
        assert table.pages == list(range(table.pages[0], table.pages[0] + 8))


def test_pages_are_taken_from_wherever_they_are_left() -> None:
    allocator = PageAllocator(6)
    tables = [PageTable(allocator, 1) for _ in range(6)]
    for table in tables:
        table.grow(1)
    for table in tables:
        if table.pages[0] % 2 == 0:
            table.release()
    scattered = PageTable(allocator, 1)
    scattered.grow(3)
    assert sorted(scattered.pages) == [0, 2, 4] and not allocator.num_free
    with pytest.raises(OutOfPagesError, match="1 pages are wanted, 0 are free"):
        scattered.grow(1)
