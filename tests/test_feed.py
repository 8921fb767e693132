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
        for number in (1, 2):
            feed.show("preview", {"number": number})
            [event] = await fast.read(1) or []
            assert event.data == {"number": number} and event.id is None
        assert await fast.read(0.01) == []
        [event] = await slow.read(1) or []
        assert event.data == {"number": 2}

    asyncio.run(read())


def test_the_last_that_passed_of_each_kind_is_seen_in_its_place_however_slow_one_is() -> None:
    async def read() -> None:
        feed = Feed()
        slow, deaf = feed.reader(), feed.reader(watches=False)
        feed.tell("created", {})
        for number in range(9):
            feed.show("text", {"number": number})
        feed.tell("plan", {})
        for number in range(9):
            feed.show("preview", {"number": number})
        feed.tell("sketch", {})
        feed.tell("stop", {}, last=True)
        got = await slow.read(1)
        assert names(got) == ["created", "text", "plan", "preview", "sketch", "stop"]
        assert [event.data["number"] for event in got or [] if event.id is None] == [8, 8]
        assert await slow.read(1) is None
        told = ["created", "plan", "sketch", "stop"]
        assert names(await deaf.read(1)) == told
        # Who comes when all is over is told what was kept, as from the history.
        assert names(await feed.reader().read(1)) == told

    asyncio.run(read())


def test_what_passes_is_wanted_before_the_reader_for_whom_it_is_made_has_come() -> None:
    async def read() -> None:
        feed = Feed(awaited=True)
        assert feed.watched
        feed.show("preview", {})
        assert names(await feed.reader(watches=False).read(0.01)) == []
        assert not feed.watched and not Feed().watched

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
    assert [event.name for event in feed.kept] == ["a"]
