import asyncio
import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict
from serving import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from staged import images
from staged.backends.limiter import Limiter
from staged.backends.lmm import LmmClient
from staged.backends.lmm_types import Failure, LmmRequest, LmmSettings, MemoryLog, Reply
from staged.backends.lmm_wire import data_url, wire_schema


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    colour: str


REQUEST = LmmRequest(
    purpose="colour", prompt_version="1", instructions="Name it.", content=("sky",), answer=Colour
)
SETTINGS = LmmSettings(
    model="m",
    api_key_env=None,
    backoff_s=0.001,
    usd_per_million_input_tokens=1.0,
    usd_per_million_output_tokens=10.0,
)
Script = Callable[[int, dict[str, Any], Request], Any]


class Server:
    """Answers by a script: call number and body -> content, or a whole response."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        route = Route("/v1/chat/completions", self.answer, methods=["POST"])
        self.app = Starlette(routes=[route])

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        result = self.script(len(self.bodies) - 1, body, request)
        if asyncio.iscoroutine(result):
            result = await result
        return result if isinstance(result, Response) else JSONResponse(completion(result))


def completion(content: str | None, finish: str = "stop", refusal: str | None = None) -> Any:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


def ask(
    script: Script, *, requests: tuple[LmmRequest[Any], ...] = (REQUEST,), **settings: Any
) -> tuple[list[Any], Server, MemoryLog]:
    server, log = Server(script), MemoryLog()

    async def go(url: str) -> list[Any]:
        made = replace(SETTINGS, base_url=url, **settings)
        async with LmmClient(made, log=log) as client:
            return await asyncio.gather(*(client.ask(request) for request in requests))

    with serve(server.app) as url:
        return asyncio.run(go(url)), server, log


def outcomes(log: MemoryLog) -> list[str]:
    return [attempt.outcome for attempts in log.by_key.values() for attempt in attempts]


GOOD = json.dumps({"colour": "blue"})


def test_an_answer_is_checked_priced_and_kept() -> None:
    (reply,), server, log = ask(lambda *_: GOOD)
    assert isinstance(reply, Reply) and reply.value == Colour(colour="blue")
    assert reply.usd == pytest.approx(0.001 + 0.001)
    assert outcomes(log) == ["ok"]
    schema = server.bodies[0]["response_format"]["json_schema"]
    assert schema["strict"] is True and schema["schema"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (completion(None, refusal="I won't."), "refusal"),
        (completion(GOOD, finish="content_filter"), "content_filter"),
        (completion(GOOD[:-1], finish="length"), "truncated"),
        (completion(GOOD, finish="length"), "truncated"),
    ],
)
def test_what_would_be_answered_the_same_way_again_is_asked_once(response: Any, kind: str) -> None:
    (failure,), _, log = ask(lambda *_: JSONResponse(response))
    assert isinstance(failure, Failure) and failure.kind == kind
    assert failure.usd > 0
    assert outcomes(log) == [kind]


@pytest.mark.parametrize("bad", ["Sure! {}", '{"color": "blue"}', '{"colour": 3}', "", "[]"])
def test_an_invalid_answer_is_paid_for_and_asked_again_under_another_seed(bad: str) -> None:
    (reply,), server, log = ask(lambda n, *_: GOOD if n else bad)
    assert isinstance(reply, Reply)
    assert outcomes(log) == ["invalid_output", "ok"]
    assert [body["seed"] for body in server.bodies] == [0, 1]
    assert reply.usd == pytest.approx(0.004)


def test_answers_that_stay_invalid_end_as_a_typed_failure() -> None:
    (failure,), server, _ = ask(lambda *_: "no", max_attempts=3)
    assert isinstance(failure, Failure) and failure.kind == "invalid_output"
    assert "'no'" in failure.detail
    assert len(server.bodies) == 3


def test_errors_of_the_service_are_retried_and_counted() -> None:
    def script(n: int, *_: Any) -> Any:
        if n == 0:
            return Response("busy", status_code=429, headers={"Retry-After": "0.01"})
        if n == 1:
            return Response("<html>bad gateway</html>", status_code=502)
        if n == 2:
            return Response("this is no completion", media_type="text/plain")
        return GOOD

    (reply,), server, log = ask(script)
    assert isinstance(reply, Reply)
    assert outcomes(log)[:2] == ["rate_limit", "server_error"]
    assert outcomes(log)[2] in ("server_error", "invalid_output")
    assert [h["x-stainless-retry-count"] for h in server.headers] == ["0", "1", "2", "3"]


def test_retry_after_holds_every_caller_back() -> None:
    now = [100.0]
    limiter = Limiter(concurrency=4, clock=lambda: now[0])

    async def go() -> None:
        limiter.pause(30.0)
        entered = asyncio.ensure_future(limiter.slot(1).__aenter__())
        await asyncio.sleep(0.01)
        assert not entered.done()
        entered.cancel()

    asyncio.run(go())


def test_a_late_answer_is_a_timeout() -> None:
    async def late(*_: Any) -> Any:
        await asyncio.sleep(0.5)

    (failure,), _, log = ask(late, timeout_s=0.1, max_attempts=2)
    assert isinstance(failure, Failure) and failure.kind == "timeout"
    assert outcomes(log) == ["timeout", "timeout"]


def test_no_server_is_a_failed_connection() -> None:
    async def go() -> Any:
        made = replace(SETTINGS, base_url="http://127.0.0.1:9/v1", max_attempts=2)
        async with LmmClient(made) as client:
            return await client.ask(REQUEST)

    failure = asyncio.run(go())
    assert isinstance(failure, Failure) and failure.kind == "connection"


def test_a_bad_request_is_this_requests_failure_only() -> None:
    (failure,), server, _ = ask(lambda *_: Response("too long", status_code=400))
    assert isinstance(failure, Failure) and failure.kind == "bad_request"
    assert len(server.bodies) == 1


def test_a_refused_key_stops_the_job_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-very-secret")

    def script(_: int, __: Any, request: Request) -> Any:
        return Response(f"wrong: {request.headers['authorization']}", status_code=401)

    with pytest.raises(ValueError, match="A_KEY") as error:
        ask(script, api_key_env="A_KEY")
    assert "sk-very-secret" not in str(error.value)


def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(ValueError, match="environment variable A_KEY"):
        LmmClient(replace(SETTINGS, api_key_env="A_KEY"))


def test_equal_requests_at_the_same_time_are_sent_once() -> None:
    async def script(*_: Any) -> Any:
        await asyncio.sleep(0.05)
        return GOOD

    replies, server, _ = ask(script, requests=(REQUEST,) * 5)
    assert len(server.bodies) == 1
    assert [reply.value.colour for reply in replies] == ["blue"] * 5


def test_what_the_log_holds_is_not_asked_again() -> None:
    server, log = Server(lambda *_: GOOD), MemoryLog()

    async def go(url: str, request: LmmRequest[Any]) -> Any:
        async with LmmClient(replace(SETTINGS, base_url=url), log=log) as client:
            return await client.ask(request)

    with serve(server.app) as url:
        first = asyncio.run(go(url, REQUEST))
        second = asyncio.run(go(url, REQUEST))
        assert first == second
        assert len(server.bodies) == 1
        for other in (
            replace(REQUEST, seed=7),
            replace(REQUEST, prompt_version="2"),
            replace(REQUEST, content=("sea",)),
        ):
            asyncio.run(go(url, other))
        assert len(server.bodies) == 4


def test_images_are_sent_as_data_urls_scaled_down() -> None:
    big = images.encode_png(np.full((40, 80, 3), 7, np.uint8))
    _, server, _ = ask(
        lambda *_: GOOD, requests=(replace(REQUEST, content=("look", big)),), max_side_px=20
    )
    part = server.bodies[0]["messages"][1]["content"][1]
    head, _, data = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert sent.size == (20, 10)
    assert data_url(big, max_side_px=80).endswith(base64.b64encode(big).decode("ascii"))


def test_schemas_hold_only_what_strict_structured_output_knows() -> None:
    class Titled(BaseModel):
        model_config = ConfigDict(extra="forbid")
        title: str

    assert wire_schema(Titled) == {
        "additionalProperties": False,
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "type": "object",
    }


def test_the_limiter_spends_no_more_than_its_rates() -> None:
    now = [0.0]
    limiter = Limiter(
        concurrency=10, requests_per_minute=60, tokens_per_minute=600, clock=lambda: now[0]
    )

    async def begins(tokens: int) -> bool:
        slot = limiter.slot(tokens)
        entering = asyncio.ensure_future(slot.__aenter__())
        await asyncio.sleep(0.005)
        if entering.done():
            await slot.__aexit__(None, None, None)
            return True
        entering.cancel()
        return False

    async def go() -> None:
        assert await begins(100)
        assert not await begins(100)  # one request a second
        now[0] += 1
        assert await begins(500)
        now[0] += 1
        assert not await begins(100)  # tokens are used up
        now[0] += 10
        assert await begins(100)

    asyncio.run(go())
