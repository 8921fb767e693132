"""Requests that a page of another site makes in somebody's browser, refused.

A server without keys trusts whoever reaches it. A page anywhere could have the browser of somebody
on the same machine send it requests, in the open or under a name that leads to 127.0.0.1.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from staged.server.access import LOOPBACK
from staged.server.errors import ApiError, error_response


class Origins:
    """Lets requests through that come from no page, from the server's own, or from one allowed."""

    def __init__(self, app: ASGIApp, *, allowed: Collection[str], local: bool) -> None:
        """Stand before an application.

        Args:
            app: Who answers.
            allowed: Origins of other pages that may ask, such as https://draw.example.org.
            local: The server has no keys, so it is to be asked under this machine's own names.
        """
        self._app, self._allowed, self._local = app, allowed, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and (said := self._refuses(scope)):
            error = ApiError(403, said, code="forbidden_origin")
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refuses(self, scope: Scope) -> str | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self._local and host and _name_of(f"//{host}") not in LOOPBACK:
            return "the server has no API keys and is asked under a name that is not this machine's"
        if origin is None or origin in self._allowed:
            return None
        # Pages of files and sandboxes call themselves `null`.
        if origin.partition("://")[2] != host:
            return "pages of other sites may not ask; see `allowed_origins`"
        return None


def _name_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
