"""The events of one trajectory, for readers of any speed that come, go and come again.

What happened is kept in order and numbered from 1, so a reader goes on after the last number that
it has seen. What passes, a preview or half a text, is not kept: only the newest of each kind is
there, in its place among the others, and a slow reader misses those before it. Nobody is waited
for, and no reader holds anything but a place.

Written by the scheduler's thread, read by coroutines.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True)
class FeedEvent:
    """Something that a trajectory tells.

    Attributes:
        id: Its number; None for what passes.
        name: Its kind.
        data: Plain data.
    """

    id: int | None
    name: str
    data: Mapping[str, Any]


class _Passing(NamedTuple):
    """What passes: behind so many kept events, and of all that passed the how-manieth."""

    place: int
    number: int
    event: FeedEvent


class Feed:
    """What was told so far, and whether there is more to come.

    Args:
        awaited: Somebody is about to read who wants what passes: it is wanted from the start.
    """

    def __init__(self, *, awaited: bool = False) -> None:
        """Start with nothing."""
        self._lock = threading.Lock()
        self._kept: list[FeedEvent] = []
        self._passing: dict[str, _Passing] = {}  # by kind
        self._passed = 0  # counts what passed, so that a reader knows what is new
        self._closed = False
        self._readers: set[FeedReader] = set()
        self._awaited = awaited

    @property
    def kept(self) -> list[FeedEvent]:
        """What happened so far."""
        with self._lock:
            return list(self._kept)

    @property
    def num_kept(self) -> int:
        """How much happened so far: the number of the last event."""
        return len(self._kept)

    @property
    def closed(self) -> bool:
        """Whether nothing more comes."""
        return self._closed

    @property
    def num_readers(self) -> int:
        """How many read."""
        return len(self._readers)

    @property
    def watched(self) -> bool:
        """Whether anybody wants what passes."""
        return self._awaited or any(reader.watches for reader in list(self._readers))

    def tell(self, name: str, data: Mapping[str, Any], *, last: bool = False) -> FeedEvent:
        """Keep an event.

        Args:
            name: Its kind.
            data: Plain data; not changed afterwards.
            last: Nothing comes after it.
        """
        with self._lock:
            event = FeedEvent(id=len(self._kept) + 1, name=name, data=data)
            self._kept.append(event)
            self._closed = last
            self._wake()
        return event

    def show(self, name: str, data: Mapping[str, Any]) -> None:
        """Let an event pass."""
        with self._lock:
            self._passed += 1
            event = FeedEvent(id=None, name=name, data=data)
            self._passing[name] = _Passing(len(self._kept), self._passed, event)
            self._wake()

    def reader(self, after: int = 0, *, watches: bool = True) -> FeedReader:
        """Read what comes after an event's number; to be called where its coroutine runs.

        Args:
            after: The number; 0 for everything.
            watches: Whether it wants what passes, too.
        """
        with self._lock:
            # Of what has ended only what was kept is told.
            reader = FeedReader(
                self, after, watches=watches, passed=self._passed if self._closed else 0
            )
            self._readers.add(reader)
            self._awaited = False
        return reader

    def _leave(self, reader: FeedReader) -> None:
        with self._lock:
            self._readers.discard(reader)

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()

    def _after(self, place: int, passed: int, watches: bool) -> tuple[list[FeedEvent], int, bool]:
        """What a reader has not seen, how much has passed, and whether that is all."""
        with self._lock:
            new = self._kept[place:]
            if watches:
                there = sorted(self._passing.values(), key=lambda event: event.number, reverse=True)
                for event in there:
                    if event.number > passed and event.place >= place:
                        new.insert(event.place - place, event.event)
            return new, self._passed, self._closed


class FeedReader:
    """A reader's place in a feed."""

    def __init__(self, feed: Feed, after: int, *, watches: bool, passed: int = 0) -> None:
        """Begin behind an event's number, and what passed."""
        self.watches = watches
        self._feed, self._place, self._passed = feed, max(after, 0), passed
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()

    def wake(self) -> None:
        """Say that there is something new; from any thread."""
        # Its loop may be closed already where a server ends.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def read(self, timeout_s: float) -> list[FeedEvent] | None:
        """Wait for what is new.

        Returns:
            Events in order; none where nothing came in that time. None after the last one.
        """
        while True:
            self._news.clear()
            new, self._passed, closed = self._feed._after(self._place, self._passed, self.watches)
            self._place += sum(event.id is not None for event in new)
            if new:
                return new
            if closed:
                return None
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return []

    def close(self) -> None:
        """Read no more."""
        self._feed._leave(self)
