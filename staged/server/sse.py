"""Server-sent events: a feed as a stream that a client may leave and take up again.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from staged import strict_json
from staged.server.feed import FeedEvent, FeedReader

HEARTBEAT_S = 15.0
"""Between comments that keep proxies from closing a quiet connection."""

Render = Callable[[FeedEvent], Mapping[str, Any]]


def sse_message(event: FeedEvent, data: Mapping[str, Any]) -> bytes:
    """Write an event; what passes has no id, so that a client goes on after what is kept."""
    number = "" if event.id is None else f"id: {event.id}\n"
    # Canonical JSON has no line ends.
    return f"{number}event: {event.name}\ndata: {strict_json.dumps(data)}\n\n".encode()


async def feed_messages(reader: FeedReader, render: Render) -> AsyncIterator[bytes]:
    """Write all that a reader gets, until its feed ends."""
    # So that whoever loses the connection comes back soon.
    yield b"retry: 1000\n\n"
    while (events := await reader.read(HEARTBEAT_S)) is not None:
        if not events:
            yield b": still here\n\n"
        for event in events:
            yield sse_message(event, render(event))


class EventStream(Response):
    """Sends messages as they come, as long as somebody takes them.

    A client that goes away, or takes nothing for too long, is let go: the messages' source is
    closed, and `on_end` called, whatever the end was.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        messages: AsyncIterator[bytes],
        *,
        write_timeout_s: float,
        on_end: Callable[[], object],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send messages.

        Args:
            messages: What to send.
            write_timeout_s: For the client to take one.
            on_end: Called once nothing more is sent.
            headers: Beside those of a stream.
        """
        # Without a body, so that no length is told of one.
        self.status_code, self.background = 200, None
        self._messages, self._timeout_s, self._on_end = messages, write_timeout_s, on_end
        # nginx would hold events back otherwise.
        quick = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self.init_headers({**quick, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until there is no more, or nobody."""
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            results = await asyncio.gather(sending, leaving, return_exceptions=True)
            self._on_end()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, TimeoutError | OSError):
                raise result

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for message in self._messages:
            body = {"type": "http.response.body", "body": message, "more_body": True}
            # Not `wait_for`, which forgets that it was cancelled if what it waits for is done.
            async with asyncio.timeout(self._timeout_s):
                await send(body)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
