"""Replies that end: no body longer than what was agreed is ever read, of errors neither."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx


class ReplyTooLongError(httpx.TransportError):
    """A reply was longer than allowed.

    Attributes:
        status: Of the reply.
    """

    def __init__(self, status: int, max_bytes: int) -> None:
        """Say how much was allowed."""
        super().__init__(f"a reply of more than {max_bytes} bytes")
        self.status = status


def bound_replies(client: httpx.AsyncClient, max_bytes: int) -> None:
    """Let a client read no more than so many bytes of any reply.

    Whoever uses the client, a library included, gets `ReplyTooLongError` instead of the rest.
    """

    async def bound(response: httpx.Response) -> None:
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # the client is asynchronous
        response.stream = _Bounded(stream, response.status_code, max_bytes)

    client.event_hooks = {
        **client.event_hooks,
        "response": [*client.event_hooks["response"], bound],
    }


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, status: int, max_bytes: int) -> None:
        self._stream, self._status, self._max_bytes = stream, status, max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._max_bytes
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise ReplyTooLongError(self._status, self._max_bytes)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
