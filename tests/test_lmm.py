import asyncio
import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict
from serving import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from staged import images
from staged.backends.http.limiter import Limiter
from staged.backends.http.replies import retry_after_s
from staged.backends.lmm.attempts import MemoryLog
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.request import Failure, LmmRequest, Reply
from staged.backends.lmm.request_key import request_key
from staged.backends.lmm.settings import LmmSettings
from staged.backends.lmm.wire import data_url, wire_schema


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


def test_an_invalid_answer_is_asked_again_with_what_was_wrong_with_it() -> None:
    """The same words brought the same mistake, for rules that no schema holds."""
    answers = ['{"colour": 3}', Response("busy", status_code=503), "Sure!", GOOD]
    (reply,), server, log = ask(lambda n, *_: answers[n], max_attempts=5)
    assert isinstance(reply, Reply)
    assert outcomes(log) == ["invalid_output", "server_error", "invalid_output", "ok"]
    first, *later = (body["messages"][0]["content"] for body in server.bodies)
    assert "not valid" not in first
    assert ["(colour: " in text for text in later] == [True, True, False]
    assert all(text.startswith(first.split("\n")[0]) and "Sure!" not in text for text in later)
    assert len({str(body["messages"][1:]) for body in server.bodies}) == 1
    assert reply.key == request_key(SETTINGS, REQUEST)


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
    told = {name for headers in server.headers for name in headers if "stainless" in name}
    assert told == {"x-stainless-retry-count", "x-stainless-read-timeout"}, "nothing of the machine"
    # What broke on the way is asked for again as it was, or the network would decide the answer.
    assert [body["seed"] for body in server.bodies[:3]] == [0, 0, 0]


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


# --- what is in a reply is not trusted -----------------------------------------------------------


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "free",
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "12", "completion_tokens": -3},
        {"prompt_tokens": True, "completion_tokens": 1.5},
        {"prompt_tokens": {"text": 3}, "completion_tokens": 10**400},
    ],
)
def test_usage_that_is_no_count_is_no_tokens_and_loses_no_answer(usage: Any) -> None:
    body = {**completion(GOOD), "usage": usage}
    (reply,), server, log = ask(lambda *_: JSONResponse(body))
    assert isinstance(reply, Reply) and reply.usd == 0
    assert outcomes(log) == ["ok"] and len(server.bodies) == 1


def test_usage_is_read_under_both_names_and_where_there_is_none_at_all() -> None:
    body = {**completion(GOOD), "usage": {"input_tokens": 1e6, "output_tokens": 0}}
    (reply,), _, _ = ask(lambda *_: JSONResponse(body))
    assert reply.usd == pytest.approx(1.0)
    del body["usage"]
    (reply,), _, _ = ask(lambda *_: JSONResponse(body))
    assert reply.usd == 0


def test_an_attempt_is_paid_for_before_it_is_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise TypeError("a mistake of ours")

    monkeypatch.setattr("staged.backends.lmm.client.outcome", broken)
    log = MemoryLog()

    async def go(url: str) -> Any:
        async with LmmClient(replace(SETTINGS, base_url=url), log=log) as client:
            await client.ask(REQUEST)

    with serve(Server(lambda *_: GOOD).app) as url, pytest.raises(TypeError):
        asyncio.run(go(url))
    [[attempt]] = log.by_key.values()
    assert attempt.usd > 0 and attempt.paid


def test_what_is_being_answered_when_the_job_stops_is_kept() -> None:
    log, stopped = MemoryLog(), asyncio.Event()

    async def script(n: int, body: dict[str, Any], _: Request) -> Any:
        if body["seed"] == 1:
            await asyncio.wait_for(stopped.wait(), 10)
            return GOOD
        if body["seed"] == 2:
            asyncio.get_running_loop().call_later(0.1, stopped.set)
            return Response("who are you?", status_code=401)
        return GOOD

    async def go(url: str) -> None:
        async with LmmClient(replace(SETTINGS, base_url=url), log=log) as client:
            await client.ask(REQUEST)
            async with asyncio.TaskGroup() as group:
                for seed in (1, 2):
                    group.create_task(client.ask(replace(REQUEST, seed=seed)))

    with serve(Server(script).app) as url, pytest.raises(ExceptionGroup):
        asyncio.run(go(url))
    assert outcomes(log) == ["ok", "ok"]


MESSAGES = [
    {"content": f"Sure!\n```json\n{GOOD}\n```\nHope it helps."},
    {"content": f"```\n{GOOD}```"},
    {"content": f"<think>Is it {{}}?\n```json\n{{}}\n```</think>\n{GOOD}"},
    {"content": f"<think>blue</think> ```json\n{GOOD}\n```"},
    {"content": f"so far\n```json\n{{}}\n```\nso:\n```json\n{GOOD}\n```"},
    {"content": None, "reasoning_content": GOOD},
    {"content": "", "reasoning": f"hm</think>{GOOD}"},
    {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": GOOD}]},
    {"content": GOOD, "refusal": "", "tool_calls": 7},
]


@pytest.mark.parametrize("message", MESSAGES)
def test_an_answer_is_found_where_models_put_it(message: dict[str, Any]) -> None:
    body = {"choices": [{"finish_reason": "stop", "message": message}]}
    (reply,), server, log = ask(lambda *_: JSONResponse(body))
    assert isinstance(reply, Reply) and reply.value.colour == "blue"
    assert len(server.bodies) == 1
    assert Colour.model_validate_json(next(iter(log.by_key.values()))[0].text) == reply.value


@pytest.mark.parametrize(
    "content",
    [
        f"I could say {GOOD} but will not",
        f"<think>{GOOD}</think>",
        f"<think>perhaps\n```json\n{GOOD}\n```\nor not",
        "```json\n" * 50_000,
        '{"colour": "\ud800"',
        "[" * 100_000,
        7,
        {"colour": "blue"},
    ],
)
def test_what_only_looks_like_an_answer_is_none_and_breaks_nothing(content: Any) -> None:
    body = {"choices": [{"message": {"content": content}}], "usage": {"prompt_tokens": 10**6}}
    (failure,), _, log = ask(lambda *_: Response(json.dumps(body)), max_attempts=1)
    assert isinstance(failure, Failure) and failure.kind == "invalid_output"
    assert failure.usd == pytest.approx(1.0)
    failure.detail.encode()
    assert outcomes(log) == ["invalid_output"]


@pytest.mark.parametrize(
    "body",
    [
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "blue"}]},
        {"choices": [{"message": {}}]},
        {"choices": {"0": {}}},
        {"choices": [{"finish_reason": 3, "message": {"content": None}}]},
        {},
    ],
)
def test_a_reply_without_a_message_is_an_invalid_one(body: Any) -> None:
    (failure,), _, _ = ask(lambda *_: JSONResponse(body), max_attempts=1)
    assert isinstance(failure, Failure) and failure.kind == "invalid_output"


ERRORS = [
    ({"error": {"message": "slow down", "code": 429}}, "rate_limit", "429: slow down"),
    ({"error": {"message": "slow down", "type": "rate_limit_exceeded"}}, "rate_limit", "slow down"),
    ({"error": "the model crashed"}, "server_error", "the model crashed"),
    ({"object": "error", "message": "too long", "code": 400}, "bad_request", "400: too long"),
    ([{"error": {"code": 503, "message": "overloaded"}}], "server_error", "503: overloaded"),
    ({"detail": "upstream is gone"}, "server_error", "upstream is gone"),
    ({"error": {"message": "flagged", "code": 403, "metadata": {"reasons": ["x"]}}},
     "content_filter", "flagged"),
    ({"error": {"message": "no", "code": "content_filter"}, "choices": []}, "content_filter", "no"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "kind", "text"), ERRORS)
def test_an_error_under_status_200_has_its_kind_and_its_text(
    body: Any, kind: str, text: str
) -> None:
    (failure,), _, _ = ask(lambda *_: JSONResponse(body), max_attempts=1)
    assert isinstance(failure, Failure) and failure.kind == kind and text in failure.detail


def test_an_error_inside_a_choice_is_tried_again() -> None:
    broke = {"finish_reason": "error", "error": {"message": "gone"}, "message": {"content": "{"}}
    script = lambda n, *_: GOOD if n else JSONResponse({"choices": [broke]})  # noqa: E731
    (reply,), _, log = ask(script)
    assert isinstance(reply, Reply) and outcomes(log) == ["server_error", "ok"]


STOPS = [
    JSONResponse({"error": {"message": "no such key"}}, 401),
    JSONResponse({"error": {"message": "pay first"}}, 402),
    JSONResponse({"error": {"message": "not in your country"}}, 403),
    JSONResponse({"error": {"message": "no model m"}}, 404),
    JSONResponse({"error": {"message": "no quota", "code": "insufficient_quota"}}, 429),
    JSONResponse({"error": {"message": "no key", "type": "authentication_error"}}, 200),
    JSONResponse({"error": {"message": "pay first", "code": 402}}, 200),
]


@pytest.mark.parametrize("response", STOPS)
def test_a_refused_key_or_an_empty_account_stops_everything_at_once(response: Response) -> None:
    said = json.loads(response.body)["error"]["message"]
    requests = tuple(replace(REQUEST, seed=seed) for seed in range(20))
    with pytest.raises(ValueError, match=said):
        ask(lambda *_: response, requests=requests)
    server = Server(lambda *_: response)

    async def go(url: str) -> list[Any]:
        async with LmmClient(replace(SETTINGS, base_url=url)) as client:
            return await asyncio.gather(*map(client.ask, requests), return_exceptions=True)

    with serve(server.app) as url:
        errors = asyncio.run(go(url))
    assert len(server.bodies) == 1 and {type(error).__name__ for error in errors} == {
        "ServiceError"
    }


def test_a_request_that_is_always_refused_stops_the_job_with_the_servers_sentence() -> None:
    refusal = JSONResponse({"error": {"message": "Unknown parameter: 'chat'"}}, 400)
    requests = tuple(replace(REQUEST, seed=seed) for seed in range(20))
    with pytest.raises(
        ValueError, match=r"\(colour\) and gave no answer: 400: Unknown parameter: 'ch"
    ):
        ask(lambda *_: refusal, requests=requests, concurrency=1)

    def other(n: int, *_: Any) -> Any:
        return Response(f"you said {n} words", status_code=422)

    with pytest.raises(ValueError, match="was asked 8 times"):
        ask(other, requests=requests, concurrency=1)

    with pytest.raises(ValueError, match="cut off at max_output_tokens 2048; raise it"):
        cut = JSONResponse(completion("", finish="length"))
        ask(lambda *_: cut, requests=requests, concurrency=1)

    with pytest.raises(ValueError, match=r"was asked 8 times \(colour\) .*'no schema for me"):
        ask(
            lambda n, *_: f"no schema for me, {n}", requests=requests, concurrency=1, max_attempts=2
        )

    def mostly(n: int, body: Any, _: Request) -> Any:
        return refusal if body["seed"] else GOOD

    answers, _, _ = ask(mostly, requests=requests, concurrency=1)
    assert [type(answer) for answer in answers] == [Reply, *[Failure] * 19]


def test_a_service_that_is_down_stops_the_job_and_one_that_stumbles_does_not() -> None:
    down = Response("<html>bad gateway</html>", status_code=502)

    def one_by_one(script: Script) -> tuple[list[Any], Server]:
        server = Server(script)

        async def go(url: str) -> list[Any]:
            async with LmmClient(replace(SETTINGS, base_url=url, max_attempts=2)) as client:
                return [await client.ask(replace(REQUEST, seed=100 * i)) for i in range(12)]

        with serve(server.app) as url:
            return asyncio.run(go(url)), server

    answers, _ = one_by_one(lambda _, body, __: GOOD if body["seed"] % 300 == 0 else down)
    assert [isinstance(answer, Reply) for answer in answers] == [i % 3 == 0 for i in range(12)]
    calls: list[int] = []

    def script(n: int, *_: Any) -> Any:
        calls.append(n)
        return down if n else GOOD

    with pytest.raises(ValueError, match=r"does not answer: 502: <html>bad gateway.* 3 requests"):
        one_by_one(script)
    assert len(calls) == 7  # an answer, and three requests of two attempts


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "20"}, 0.02),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT"}, 10),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:10 -0000"}, 10),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT",
          "date": "Wed, 21 Oct 2015 07:28:06 GMT"}, 4),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:10 GMT"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "Wed, 99 Oct 99999 07:27:10 GMT"}, 0),
        ({"retry-after": "soon"}, 0),
        ({}, 0),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(headers: dict[str, str], seconds: float) -> None:
    now = datetime(2015, 10, 21, 7, 28, 0, tzinfo=UTC)
    assert retry_after_s(headers, now) == pytest.approx(seconds)


@pytest.mark.parametrize("status", [429, 503])
def test_a_date_to_wait_for_is_obeyed_by_every_caller(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(Limiter, "pause", lambda _, seconds: pauses.append(seconds))
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    busy = Response("busy", status_code=status, headers={"Retry-After": in_an_hour})
    (reply,), _, _ = ask(lambda n, *_: GOOD if n else busy, max_backoff_s=20)
    assert isinstance(reply, Reply) and max(pauses) == 20


def test_a_reply_is_read_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("staged.backends.lmm.client.MAX_REPLY_BYTES", 2000)
    huge = completion(json.dumps({"colour": "b" * 3000}))
    (failure,), server, _ = ask(lambda *_: JSONResponse(huge), max_attempts=1)
    assert isinstance(failure, Failure) and failure.kind == "invalid_output"
    assert "more than 2000 bytes" in failure.detail and len(server.bodies) == 1
    (failure,), _, _ = ask(lambda *_: Response("x" * 3000, status_code=500), max_attempts=1)
    assert "more than 2000 bytes" in failure.detail


def test_a_server_that_sends_a_byte_now_and_then_is_a_timeout() -> None:
    async def drip() -> Any:
        for _ in range(200):
            yield b" "
            await asyncio.sleep(0.05)

    (failure,), _, _ = ask(lambda *_: StreamingResponse(drip()), timeout_s=0.4, max_attempts=1)
    assert isinstance(failure, Failure) and failure.kind == "timeout"


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"<html>ok</html>", b"[" * 200_000, b"", b"null", b"7"]
)
def test_a_body_that_is_no_reply_at_all_is_a_failure_of_the_server(text: bytes) -> None:
    (failure,), _, _ = ask(lambda *_: Response(text), max_attempts=1)
    assert isinstance(failure, Failure) and failure.kind == "server_error"


# --- what an endpoint takes is found out ----------------------------------------------------------


def refusing(*fields: str, status: int = 400, say: str = "Unsupported: {}") -> Script:
    """A server that takes none of some fields: by name, or `field=value` as it stands in JSON."""

    def script(_: int, body: dict[str, Any], __: Request) -> Any:
        for field in fields:
            name, _, value = field.partition("=")
            if name in body and value in json.dumps(body[name]):
                return JSONResponse({"error": {"message": say.format(name)}}, status)
        return GOOD

    return script


MANY = tuple(replace(REQUEST, seed=seed) for seed in range(12))


@pytest.mark.parametrize(
    ("script", "refused", "last"),
    [
        (refusing("temperature"), 1, {"temperature": None}),
        (refusing("seed", status=422), 1, {"seed": None}),
        (refusing("max_completion_tokens"), 1, {"max_completion_tokens": None, "max_tokens": 2048}),
        (refusing("response_format=json_schema"), 1, {"response_format": {"type": "json_object"}}),
        (refusing("response_format"), 2, {"response_format": None}),
        (refusing("response_format", status=500, say="no grammar"), 2, {"response_format": None}),
        (
            refusing("temperature", "response_format", "seed"),
            4,
            {"seed": None, "temperature": None},
        ),
    ],
)
def test_a_field_that_is_refused_is_left_out_after_one_refusal(
    script: Script, refused: int, last: dict[str, Any]
) -> None:
    answers, server, log = ask(script, requests=MANY, max_attempts=1)
    assert all(isinstance(answer, Reply) for answer in answers)
    assert outcomes(log).count("unsupported") == refused
    assert len(server.bodies) == len(MANY) + refused
    assert {name: server.bodies[-1].get(name) for name in last} == last
    told = '"colour"' in str(server.bodies[-1]["messages"][0]["content"])
    assert told == (server.bodies[-1].get("response_format", {}).get("type") != "json_schema")


def test_what_the_settings_ask_for_is_not_given_up() -> None:
    for field, settings in (
        ("temperature", {"temperature": 0.0}),
        ("response_format", {"structured_output": "json_schema"}),
        ("seed", {"extra_body": {"seed": 5}}),
    ):
        with pytest.raises(ValueError, match=f"Unsupported: {field}"):
            ask(refusing(field), requests=MANY, concurrency=1, **settings)


def test_a_number_that_is_too_large_is_no_field_that_is_unknown() -> None:
    say = "'{}' is too large: the model's maximum context length is not supported"
    with pytest.raises(ValueError, match="too large"):
        ask(refusing("max_completion_tokens", say=say), requests=MANY, concurrency=1)


def test_a_server_that_ignores_the_schema_is_told_it_in_words() -> None:
    def script(_: int, body: dict[str, Any], __: Request) -> Any:
        return GOOD if "JSON schema" in body["messages"][0]["content"] else "It is blue."

    answers, server, log = ask(script, requests=MANY, concurrency=1)
    assert all(isinstance(answer, Reply) for answer in answers)
    assert outcomes(log).count("invalid_output") == 1 and len(server.bodies) == len(MANY) + 1


def test_answers_of_earlier_logs_are_found_under_the_new_defaults() -> None:
    keys = [
        request_key(replace(SETTINGS, **settings), REQUEST)
        for settings in ({}, {"temperature": 0.0}, {"structured_output": "text"})
    ]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("key", ["sk-a b", "sk-\u00e9", "sk-\x00"])
def test_a_key_that_no_header_carries_is_refused_unseen(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"A_KEY": key})
    with pytest.raises(ValueError, match="A_KEY holds no key") as error:
        LmmClient(replace(SETTINGS, api_key_env="A_KEY"))
    assert key not in str(error.value)


def test_an_address_without_http_is_refused() -> None:
    with pytest.raises(ValueError, match=r"base_url is 'localhost:8000/v1'; expected one such as"):
        LmmClient(replace(SETTINGS, base_url="localhost:8000/v1"))


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
