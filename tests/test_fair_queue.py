"""The queue before the scheduler: bounds, and whose turn it is."""

from dataclasses import dataclass

import pytest

from staged.server.fair_queue import FairQueue, QueueFull


@dataclass(frozen=True)
class Item:
    client: str
    number: int


def queue(max_items: int = 100, max_per_client: int = 100) -> FairQueue[Item]:
    return FairQueue(max_items=max_items, max_per_client=max_per_client)


def taken(waiting: FairQueue[Item], number: int) -> list[str]:
    names = []
    for _ in range(number):
        item = waiting.take()
        assert item is not None
        names.append(f"{item.client}{item.number}")
    return names


def test_who_has_least_under_way_is_next() -> None:
    waiting = queue()
    waiting.put([Item("a", n) for n in range(5)])
    assert taken(waiting, 2) == ["a0", "a1"]
    waiting.put([Item("b", 0), Item("b", 1)])
    waiting.put([Item("c", 0)])
    # Two of a are under way: b and c catch up, one after the other.
    assert taken(waiting, 3) == ["b0", "c0", "b1"]
    waiting.done(Item("a", 0))
    waiting.done(Item("a", 1))
    assert taken(waiting, 3) == ["a2", "a3", "a4"]
    assert waiting.take() is None and len(waiting) == 0


def test_of_two_that_have_as_much_the_one_served_longer_ago_is_next() -> None:
    waiting = queue()
    waiting.put([Item("a", n) for n in range(3)])
    waiting.put([Item("b", n) for n in range(3)])
    order = []
    for _ in range(6):
        item = waiting.take()
        assert item is not None
        order.append(item.client)
        waiting.done(item)
    assert order == list("ababab")


def test_all_or_none_find_room() -> None:
    waiting = queue(max_items=3, max_per_client=2)
    waiting.put([Item("a", 0), Item("a", 1)])
    with pytest.raises(QueueFull, match="2 of your trajectories wait or are under way, of 2"):
        waiting.put([Item("a", 2)])
    with pytest.raises(QueueFull, match="2 trajectories wait, of 3 that may"):
        waiting.put([Item("b", 0), Item("b", 1)])
    assert len(waiting) == 2
    waiting.put([Item("b", 0)])
    # What is under way counts for its client until it is done.
    first = waiting.take()
    assert first is not None
    with pytest.raises(QueueFull, match="of your trajectories"):
        waiting.put([Item("a", 2)])
    waiting.done(first)
    waiting.put([Item("a", 2)])


def test_one_may_leave_before_its_turn() -> None:
    waiting = queue()
    waiting.put([Item("a", 0), Item("a", 1)])
    assert waiting.place(Item("a", 1)) == 1
    assert waiting.remove(Item("a", 0)) and not waiting.remove(Item("a", 0))
    assert waiting.place(Item("a", 1)) == 0 and waiting.place(Item("a", 0)) is None
    assert waiting.remove(Item("a", 1)) and waiting.take() is None
    assert waiting.items() == []
