"""Every request: its id, a line in the log, and its place in the metrics."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from staged.server.metrics import ServerMetrics

_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_UNKNOWN: Final = "other"
"""Route of what no route was found for: its path is anybody's words."""
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_log = logging.getLogger(__name__)


class Observing:
    """Gives each request an id, or keeps the one that it came with as `X-Request-Id`."""

    def __init__(self, app: ASGIApp, *, metrics: ServerMetrics) -> None:
        """Stand before an application.

        Args:
            app: Who answers.
            metrics: Where requests are counted.
        """
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, id, status = time.monotonic(), _id_of(scope), 0
        scope.setdefault("state", {})["request_id"] = id

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = id
            await send(message)

        try:
            await self._app(scope, receive, observe)
        except Exception:
            status = status or 500
            raise
        finally:
            self._note(scope, id, status or 499, time.monotonic() - began)

    def _note(self, scope: Scope, id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNKNOWN)
        method = scope["method"] if scope["method"] in _METHODS else _UNKNOWN
        self._metrics.request(method, route, status, seconds)
        facts: dict[str, Any] = {
            "request": id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "client": scope["state"].get("client"),
        }
        _log.info("request", extra={"facts": facts})


def _id_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value.decode("ascii"))
    return secrets.token_hex(8)
