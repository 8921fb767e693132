"""Connections to one service, in several pools.

httpcore looks at every connection of a pool several times for each request, and compares each idle
one with all others. With sixty-four in one pool that took more of the processor than all else that
a request does (`benchmarks/data_jobs.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import httpx

KEPT_S: Final = 2.0
"""How long an idle connection is kept. uvicorn, which vLLM and others serve with, closes it after
five seconds; httpx keeps it as long, so a request now and then met a connection that was closing,
and was an attempt in vain."""
_NUM_POOLS: Final = 16
_LIMITS: Final = httpx.Limits(
    max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEPT_S
)
"""How many are open is the limiter's to say."""


class Pools(httpx.AsyncBaseTransport):
    """Takes a request to one pool after the other.

    Args:
        pools: At least one.
    """

    def __init__(self, pools: Sequence[httpx.AsyncBaseTransport]) -> None:
        """Begin with the first."""
        self._pools = tuple(pools)
        self._next = itertools.cycle(self._pools)

    @classmethod
    def to_the_network(cls) -> Pools:
        """Open pools of plain connections, past any proxy."""
        trusted = httpx.create_ssl_context()  # reading certificates takes a while: once
        return cls(
            [httpx.AsyncHTTPTransport(verify=trusted, limits=_LIMITS) for _ in range(_NUM_POOLS)]
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request over a connection of the next pool."""
        return await next(self._next).handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()
