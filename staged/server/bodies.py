"""Bodies of requests, bounded in size and in time before anything reads them."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from staged.server.errors import ApiError, error_response


class BodyLimits:
    """Refuses a body that is too long (413) or too slow (408)."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float) -> None:
        """Stand before an application.

        Args:
            app: Who gets what passes.
            max_bytes: Of a body.
            timeout_s: From the first byte of the request to the last.
        """
        self._app, self._max_bytes, self._timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except ApiError as error:
            response = error_response(error)
            # What is still to come of the body is not read.
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        if body is None:
            return
        given = False

        async def receive_body() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_body, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Read a whole body; None where the client has gone.

        Raises:
            ApiError: It is too long or too slow.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self._max_bytes:
                raise self._too_long()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self._max_bytes:
                        raise self._too_long()
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            said = f"the body did not arrive within {self._timeout_s:g} seconds"
            raise ApiError(408, said, code="body_timeout") from None

    def _too_long(self) -> ApiError:
        return ApiError(413, f"the body exceeds {self._max_bytes} bytes", code="body_too_long")
