"""The queue before the scheduler: bounded, and fair to those who wait in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What can wait here."""

    @property
    def client(self) -> str:
        """Whose it is."""
        ...


Item = TypeVar("Item", bound=Queued)


class QueueFull(RuntimeError):
    """There is no room for what was to be added; nothing of it was."""


class FairQueue(Generic[Item]):
    """Whoever has least under way is next; of a client, whatever came first.

    So a client that asks for a hundred pictures delays another's single one by no more than what
    was under way when it came. Not for several threads at once.
    """

    def __init__(self, *, max_items: int, max_per_client: int) -> None:
        """Start empty.

        Args:
            max_items: That wait.
            max_per_client: Of one client, that wait or are under way.
        """
        self._max_items, self._max_per_client = max_items, max_per_client
        self._waiting: dict[str, list[Item]] = {}  # who was served longest ago in front
        self._under_way = Counter[str]()

    def __len__(self) -> int:
        """Items that wait."""
        return sum(map(len, self._waiting.values()))

    def put(self, items: Sequence[Item]) -> None:
        """Add items of one client, all of them or none.

        Raises:
            QueueFull: There is no room for all; says for whom.
        """
        self.check(items[0].client, len(items))
        for item in items:
            self._waiting.setdefault(item.client, []).append(item)

    def check(self, client: str, number: int) -> None:
        """Make sure that there is room for a client's items.

        Raises:
            QueueFull: There is not; says for whom.
        """
        if len(self) + number > self._max_items:
            raise QueueFull(
                f"{len(self)} trajectories wait, of {self._max_items} that may; come again later"
            )
        there = len(self._waiting.get(client, ())) + self._under_way[client]
        if there + number > self._max_per_client:
            raise QueueFull(
                f"{there} of your trajectories wait or are under way, of "
                f"{self._max_per_client} that may; come again later"
            )

    def take(self) -> Item | None:
        """Take out the next; it is under way until it is `done`. None where nobody waits."""
        client = min(self._waiting, key=lambda name: self._under_way[name], default=None)
        if client is None:
            return None
        items = self._waiting.pop(client)
        item = items.pop(0)
        if items:
            self._waiting[client] = items  # behind all others
        self._under_way[client] += 1
        return item

    def done(self, item: Item) -> None:
        """Say that one which was taken has ended."""
        self._under_way[item.client] -= 1
        if not self._under_way[item.client]:
            del self._under_way[item.client]

    def remove(self, item: Item) -> bool:
        """Take one out of turn; False where it does not wait."""
        items = self._waiting.get(item.client, [])
        if item not in items:
            return False
        items.remove(item)
        if not items:
            del self._waiting[item.client]
        return True

    def place(self, item: Item) -> int | None:
        """How many of its client's stand before one that waits; None where it does not."""
        items = self._waiting.get(item.client, [])
        return items.index(item) if item in items else None

    def items(self) -> list[Item]:
        """All that wait, client by client."""
        return [item for items in self._waiting.values() for item in items]
