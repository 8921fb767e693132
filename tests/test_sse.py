"""Streams of events: readers that stop taking, that leave, and what is called in the end."""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.types import Message

from staged.server.feed import Feed
from staged.server.sse import EventStream, feed_messages

SCOPE = {"type": "http"}


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def stream(messages: AsyncIterator[bytes], ends: list[bool], timeout_s: float = 5) -> EventStream:
    return EventStream(messages, write_timeout_s=timeout_s, on_end=lambda: ends.append(True))


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x"


def test_a_feed_is_written_by_the_standard_to_its_end() -> None:
    async def run() -> bytes:
        feed, sent, ends = Feed(), list[Message](), list[bool]()
        feed.tell("plan", {"text": "two\nlines é"})
        feed.tell("stop", {}, last=True)

        async def send(message: Message) -> None:
            sent.append(message)

        messages = feed_messages(feed.reader(), lambda event: event.data)
        await stream(messages, ends)(SCOPE, never, send)
        assert ends == [True] and sent[-1]["more_body"] is False
        assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
        assert b"content-length" not in dict(sent[0]["headers"])
        return b"".join(message.get("body", b"") for message in sent)

    blocks = asyncio.run(run()).decode().split("\n\n")
    assert blocks[0] == "retry: 1000" and blocks[-1] == ""
    lines = blocks[1].split("\n")
    assert lines[:2] == ["id: 1", "event: plan"] and len(lines) == 3
    assert json.loads(lines[2].removeprefix("data: ")) == {"text": "two\nlines é"}


def test_who_takes_nothing_is_let_go() -> None:
    async def run() -> None:
        ends = list[bool]()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        await asyncio.wait_for(stream(endless(), ends, 0.05)(SCOPE, never, send), 5)
        assert ends == [True]

    asyncio.run(run())


def test_who_leaves_is_noticed_between_events() -> None:
    async def run() -> None:
        feed, ends = Feed(), list[bool]()
        leaving = asyncio.Event()

        async def receive() -> Message:
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            leaving.set()

        messages = feed_messages(feed.reader(), lambda event: event.data)
        await asyncio.wait_for(stream(messages, ends)(SCOPE, receive, send), 5)
        assert ends == [True]

    asyncio.run(run())


def test_a_mistake_in_a_stream_is_not_hidden() -> None:
    async def run() -> str:
        ends = list[bool]()

        async def broken() -> AsyncIterator[bytes]:
            yield b"x"
            raise KeyError("a mistake")

        async def send(message: Message) -> None:
            pass

        try:
            await stream(broken(), ends)(SCOPE, never, send)
        except KeyError as error:
            assert ends == [True]
            return str(error)
        return "hidden"

    assert asyncio.run(run()) == "'a mistake'"
