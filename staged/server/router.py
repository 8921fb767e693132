"""One address for several servers of the same model: each keeps what it drew, and is found again.

What begins a trajectory goes to the replica with the fewest requests under way; where that has no
room, to the next. What names a trajectory goes to the replica that has it, which is looked for once
and then remembered. Lists and metrics are those of all. The rest is the replicas' own: keys,
limits, errors and streams pass through as they are, and a client that hangs up is gone for its
replica too.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

import httpx
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from staged.backends.http.pools import KEPT_S
from staged.server.bodies import BodyLimits
from staged.server.errors import busy, error_response
from staged.server.metrics import CONTENT_TYPE
from staged.server.settings import ServerLimits

_HOP: Final = frozenset(
    ("connection", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Headers that concern one connection alone."""
_LIST: Final = "/v1/trajectories"
_NEW: Final = (_LIST, "/v1/images/generations", "/v1/images/edits", "/v1/chat/completions")
_FULL: Final = (429, 503)
_MAX_KNOWN: Final = 100_000
_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

Addresses = Callable[[], Sequence[str | None]]
"""Where each replica is now, such as http://127.0.0.1:40001; None where it is not."""


def create_router(addresses: Addresses, limits: ServerLimits) -> Starlette:
    """Build the ASGI application that passes requests on.

    Args:
        addresses: Asked at each request.
        limits: Of bodies.
    """
    router = _Router(addresses)
    app = Starlette(
        routes=[
            Route("/health", router.health),
            Route("/ready", router.ready),
            Route("/metrics", router.metrics),
            Route(_LIST, router.newest, methods=["GET"]),
            Route("/v1/pictures", router.read_picture, methods=["POST"]),
            Route(_LIST + "/{id}{rest:path}", router.named, methods=_METHODS),
            Route("/{path:path}", router.any, methods=_METHODS),
        ],
        exception_handlers={ClientDisconnect: _gone},
    )
    app.add_middleware(BodyLimits, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
    return app


class _Router:
    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        # Replicas have timeouts of their own, and a proxy is for the world outside.
        self._client = httpx.AsyncClient(
            timeout=None,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEPT_S),
        )
        self._under_way, self._begun = Counter[int](), Counter[int]()
        self._owners: OrderedDict[str, int] = OrderedDict()

    # --- routes ------------------------------------------------------------------------------

    async def any(self, request: Request) -> Response:
        """Let whoever has least to do answer."""
        new = request.method == "POST" and request.url.path in _NEW
        refused: Response | None = None
        for number in sorted(self._there(), key=lambda n: (self._under_way[n], self._begun[n])):
            if (answer := await self._ask(number, request)) is None:
                continue
            if new and answer.status in _FULL:
                refused = await answer.whole()
                continue
            self._begun[number] += new
            if (id := answer.headers.get("x-trajectory-id")) is not None:
                self._remember(id, number)
            return answer.streamed()
        return refused or _nobody()

    async def named(self, request: Request) -> Response:
        """Let the replica answer that has the trajectory."""
        id, there = request.path_params["id"], self._there()
        known = self._owners.get(id)
        if known is not None and known not in there:
            return _nobody()
        last: Response | None = None
        for number in sorted(there, key=lambda number: number != known):
            if (answer := await self._ask(number, request)) is None:
                return _nobody()
            if answer.status == 404:
                last = await answer.whole()
                continue
            if answer.status < 400:
                self._remember(id, number)
            return answer.streamed()
        # One that is being started may have it.
        return last if last and len(there) == len(self._addresses()) else _nobody()

    async def newest(self, request: Request) -> Response:
        """List the newest of all."""
        answers = await self._all(request)
        refused = [answer for answer in answers if answer.status_code >= 400]
        if refused or not answers:
            return refused[0] if refused else _nobody()
        pages = [json.loads(bytes(answer.body)) for answer in answers]
        data = sorted(
            (one for page in pages for one in page["data"]), key=lambda one: one["created"]
        )
        shown = data[::-1][: int(request.query_params.get("limit", 20))]
        more = len(data) > len(shown) or any(page["next_before"] is not None for page in pages)
        before = shown[-1]["created"] if shown and more else None
        return JSONResponse({**pages[0], "data": shown, "next_before": before})

    async def read_picture(self, request: Request) -> Response:
        """Say of a picture what the replica says that drew it, or any."""
        answers = await self._all(request)
        drawn = [
            a for a in answers if a.status_code < 400 and json.loads(bytes(a.body))["trajectory"]
        ]
        return next(iter([*drawn, *answers]), _nobody())

    async def metrics(self, request: Request) -> Response:
        """Counters of all, each under the number of its replica."""
        registry, texts = CollectorRegistry(), dict[int, str]()
        for number in self._there():
            if (answer := await self._ask(number, request)) is not None:
                response = await answer.whole()
                if response.status_code >= 400:
                    return response
                texts[number] = bytes(response.body).decode()
        registry.register(_OfAll(texts))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE)

    async def health(self, _: Request) -> Response:
        """Whether the router lives; it starts replicas again by itself."""
        return JSONResponse({"status": "ok", "replicas": len(self._there())})

    async def ready(self, request: Request) -> Response:
        """Whether one takes requests."""
        number = sum(answer.status_code == 200 for answer in await self._all(request))
        state = {"status": "ready" if number else "loading", "replicas": number}
        return JSONResponse(state, status_code=200 if number else 503)

    # --- asking ------------------------------------------------------------------------------

    def _there(self) -> list[int]:
        return [n for n, address in enumerate(self._addresses()) if address is not None]

    async def _ask(self, number: int, request: Request) -> _Answer | None:
        """Pass a request on; None where the replica has just gone."""
        address = self._addresses()[number]
        if address is None:
            return None
        query = f"?{request.url.query}" if request.url.query else ""
        path = request.scope.get("raw_path") or request.url.path.encode()
        passed = self._client.build_request(
            request.method,
            f"{address}{path.decode('latin-1')}{query}",
            headers=[(n, v) for n, v in request.headers.items() if n not in _HOP],
            content=await request.body(),
        )
        self._under_way[number] += 1
        try:
            answer = await _unless_gone(request, self._client.send(passed, stream=True))
        except BaseException as error:
            self._under_way[number] -= 1
            if isinstance(error, httpx.TransportError):
                return None
            raise
        return _Answer(answer, lambda: self._under_way.subtract([number]))

    async def _all(self, request: Request) -> list[Response]:
        """Ask all who are there, and read their answers."""
        answers = [await self._ask(number, request) for number in self._there()]
        return [await answer.whole() for answer in answers if answer is not None]

    def _remember(self, id: str, number: int) -> None:
        self._owners[id] = number
        self._owners.move_to_end(id)
        if len(self._owners) > _MAX_KNOWN:
            self._owners.popitem(last=False)


class _Answer:
    """What a replica answers; under way until it is `whole` or was `streamed`."""

    def __init__(self, answer: httpx.Response, ended: Callable[[], object]) -> None:
        self._answer, self._ended = answer, ended
        self.status, self.headers = answer.status_code, answer.headers

    async def whole(self) -> Response:
        """Read it to its end."""
        try:
            content = await self._answer.aread()
        finally:
            await self.close()
        response = Response(content, self.status)
        # What was encoded is not any more.
        response.raw_headers = [
            *self._passed(but=("content-encoding", "content-length")),
            (b"content-length", str(len(content)).encode()),
        ]
        return response

    def streamed(self) -> Response:
        """Pass on what comes, as it comes."""
        response = _Streamed(self)
        response.raw_headers = self._passed()
        return response

    async def parts(self) -> AsyncIterator[bytes]:
        """Its bytes, encoded as they are."""
        async for part in self._answer.aiter_raw():
            yield part

    async def close(self) -> None:
        """Read no further."""
        self._ended()
        await self._answer.aclose()

    def _passed(self, but: Sequence[str] = ()) -> list[tuple[bytes, bytes]]:
        named = ((name.lower(), value) for name, value in self.headers.raw)
        beside = _HOP.union(but)
        return [(name, value) for name, value in named if name.decode("latin-1") not in beside]


class _Streamed(StreamingResponse):
    def __init__(self, answer: _Answer) -> None:
        super().__init__(answer.parts(), answer.status)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and tell the replica where its reader has gone."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._answer.close()


class _OfAll(Collector):
    """Metrics of replicas, as one exposition."""

    def __init__(self, texts: dict[int, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        merged = dict[str, Metric]()
        for number, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                into = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "replica": str(number)}
                    into.add_sample(sample.name, labels, sample.value)
        yield from merged.values()


async def _unless_gone(
    request: Request, sending: Coroutine[Any, Any, httpx.Response]
) -> httpx.Response:
    """Wait for an answer as long as the client does.

    Raises:
        ClientDisconnect: It went away.
    """
    answer = asyncio.ensure_future(sending)
    # Its body was read: what comes next is that it has gone.
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(gone, return_exceptions=True)


async def _gone(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody gets it


def _nobody() -> Response:
    said = "the replica that was asked for is being started"
    return error_response(busy(said, status=503, code="starting", after_s=5))
