"""Events of a trajectory, for readers that come, go, and are slow."""

import asyncio
import threading

from staged.server.feed import Feed, FeedEvent


def names(events: list[FeedEvent] | None) -> list[str]:
    assert events is not None
    return [event.name for event in events]


def test_a_reader_gets_what_it_has_not_seen_in_order_and_then_the_end() -> None:
    async def read() -> None:
        feed = Feed()
        feed.tell("a", {})
        feed.tell("b", {})
        late = feed.reader(after=1)
        [event] = await late.read(1) or []
        assert (event.id, event.name) == (2, "b")
        assert await late.read(0.01) == []
        feed.tell("c", {}, last=True)
        assert names(await late.read(1)) == ["c"]
        assert await late.read(1) is None
        assert names(await feed.reader().read(1)) == ["a", "b", "c"]
        assert await feed.reader(after=99).read(1) is None

    asyncio.run(read())


def test_what_passes_is_seen_once_and_only_the_newest() -> None:
    async def read() -> None:
        feed = Feed()
        fast, slow = feed.reader(), feed.reader()
        feed.show("p1", {})
        assert names(await fast.read(1)) == ["p1"]
        feed.show("p2", {})
        assert names(await fast.read(1)) == ["p2"]
        assert await fast.read(0.01) == []
        [event] = await slow.read(1) or []
        assert event.name == "p2" and event.id is None
        feed.show("p3", {})
        feed.tell("done", {})  # what was passing is over
        assert names(await slow.read(1)) == ["done"]

    asyncio.run(read())


def test_another_thread_wakes_readers() -> None:
    async def read() -> list[str]:
        feed = Feed()
        reader = feed.reader()

        def tell() -> None:
            for number in range(200):
                feed.tell(str(number), {}, last=number == 199)

        thread = threading.Thread(target=tell)
        thread.start()
        got: list[str] = []
        while (events := await reader.read(5)) is not None:
            assert events, "nothing came"
            got += names(events)
        thread.join()
        return got

    assert asyncio.run(read()) == [str(number) for number in range(200)]


def test_it_knows_who_reads() -> None:
    async def read() -> None:
        feed = Feed()
        assert feed.num_readers == 0
        one, two = feed.reader(), feed.reader()
        assert feed.num_readers == 2
        one.close()
        one.close()
        assert feed.num_readers == 1
        two.close()
        assert feed.num_readers == 0

    asyncio.run(read())


def test_a_reader_whose_loop_is_gone_hurts_nobody() -> None:
    feed = Feed()

    async def come() -> None:
        feed.reader()

    asyncio.run(come())
    feed.tell("a", {})
