"""The miniature world's language model, behind the interface that real ones are served through.

It answers `POST /v1/chat/completions` with structured output, alone or in batches, either inside
this process, through `connect`, or over the network like any other server (pip install
staged[serve]):

    uvicorn --factory staged.shapes.players.lmm:create_app --port 8000

What it says is exact (see `answers`, `judging`, `exploring`) unless it is told to misbehave.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from staged.backends.lmm.attempts import AttemptLog
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.settings import LmmSettings
from staged.data_urls import from_base64
from staged.shapes.players.answers import ANSWERS
from staged.shapes.players.batches import BatchDesk, error_body
from staged.shapes.players.exploring import EXPLORING
from staged.shapes.players.judging import JUDGEMENTS
from staged.shapes.players.misbehaviour import SHAPES_LMM, Misbehaviour, Misdeed

_ANSWERS = ANSWERS | JUDGEMENTS | EXPLORING
_MAX_BODY_BYTES = 8 * 2**20
_MAX_IMAGES = 32


def create_app(misbehaviour: Misbehaviour | None = None) -> Starlette:
    """Build the ASGI application."""
    manners = misbehaviour or Misbehaviour()

    async def chat_completions(request: Request) -> Response:
        retry = request.headers.get("x-stainless-retry-count", "0")
        status, body, misdeed = _answered(await request.body(), retry, manners)
        if misdeed == "slow":
            await asyncio.sleep(manners.slow_s)
        wait = {"Retry-After": f"{manners.retry_after_s:g}"} if misdeed == "rate_limit" else None
        return JSONResponse(body, status, wait)

    def in_batch(raw: bytes, retry: str) -> tuple[int, dict[str, Any]]:
        status, body, _ = _answered(raw, retry, manners)
        return status, body

    chat = Route("/v1/chat/completions", chat_completions, methods=["POST"])
    app = Starlette(routes=[chat, *(desk := BatchDesk(in_batch, manners)).routes()])
    app.state.batches = desk
    return app


def connect(
    settings: LmmSettings | None = None,
    *,
    misbehaviour: Misbehaviour | None = None,
    log: AttemptLog | None = None,
) -> LmmClient:
    """Return the one client of language models, joined to this model within the process."""
    transport = httpx.ASGITransport(app=create_app(misbehaviour))
    return LmmClient(
        settings or local_settings(), log=log, http_client=httpx.AsyncClient(transport=transport)
    )


def client_of(settings: LmmSettings, *, log: AttemptLog | None = None) -> LmmClient:
    """Return the client of any language model; this one is asked within the process."""
    if settings.model == SHAPES_LMM:
        return connect(replace(settings, api_key_env=None), log=log)
    return LmmClient(settings, log=log)


def local_settings() -> LmmSettings:
    """Return settings for this model within the process: no key, no waiting."""
    return LmmSettings(
        model=SHAPES_LMM,
        base_url="http://shapes.invalid/v1",
        api_key_env=None,
        # Known beforehand: what is sent must not depend on what was answered first.
        temperature=0.0,
        structured_output="json_schema",
        backoff_s=0.0,
    )


def _answered(
    raw: bytes, retry: str, manners: Misbehaviour
) -> tuple[int, dict[str, Any], Misdeed | None]:
    """Answer one request: status, body, and in which way it is no good answer."""
    if len(raw) > _MAX_BODY_BYTES:
        return 413, error_body(f"request of {len(raw)} bytes exceeds {_MAX_BODY_BYTES}"), None
    try:
        body = json.loads(raw)
        purpose, content, images = _read(body)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        return 400, error_body(f"not a request that this model understands: {error}"), None
    misdeed = manners.choose(body, retry)
    if misdeed == "rate_limit":
        return 429, error_body("too many requests"), misdeed
    if misdeed == "server_error":
        return 500, error_body("something broke"), misdeed
    try:
        answer = _ANSWERS[purpose](content, images)
    except (ValueError, TypeError, LookupError) as error:
        return 400, error_body(f"{purpose}: {error}"), misdeed
    return 200, _completion(raw, answer, misdeed), misdeed


def _read(body: Any) -> tuple[str, dict[str, Any], list[bytes]]:
    """Read the purpose, the JSON of the user message, and its images."""
    purpose = body["response_format"]["json_schema"]["name"]
    if purpose not in _ANSWERS:
        raise ValueError(f"response format {purpose!r:.80} is none of {', '.join(_ANSWERS)}")
    parts = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    if len(urls) > _MAX_IMAGES:
        raise ValueError(f"{len(urls)} images exceed {_MAX_IMAGES}")
    content = json.loads("".join(part["text"] for part in parts if part["type"] == "text"))
    if not isinstance(content, dict):
        raise ValueError("the user message is no JSON object")
    return purpose, content, [_image(url) for url in urls]


def _image(url: str) -> bytes:
    if not url.lower().startswith("data:"):
        raise ValueError("images are read from data URLs only")
    return from_base64(url)


def _completion(raw: bytes, answer: dict[str, Any], misdeed: Misdeed | None) -> dict[str, Any]:
    text = json.dumps(answer)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    finish_reason = "stop"
    match misdeed:
        case "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        case "content_filter":
            message["content"], finish_reason = None, "content_filter"
        case "truncated":
            message["content"], finish_reason = text[: len(text) // 2], "length"
        case "wrong_json":
            message["content"] = f"Sure! Here it is: {text}"
        case "wrong_schema":
            message["content"] = json.dumps({"result": answer})
        case "contradiction":
            message["content"] = json.dumps(_turned_round(answer))
    # Tokens as a rule of thumb counts them: four bytes make one.
    tokens = {"prompt_tokens": len(raw) // 4, "completion_tokens": len(text) // 4}
    return {
        "id": "chatcmpl-shapes",
        "object": "chat.completion",
        "created": 0,
        "model": SHAPES_LMM,
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
        "usage": {**tokens, "total_tokens": sum(tokens.values())},
    }


def _turned_round(answer: dict[str, Any]) -> dict[str, Any]:
    """Say the opposite, with the same face; what is no judgement stays."""
    if "answers" in answer:
        return {**answer, "answers": [_opposite(one) for one in answer["answers"]]}
    if "verdict" in answer:
        verdict = "revise" if answer["verdict"] == "accept" else "accept"
        # What a refusal needs is there, as if it had been meant.
        needed = ("correction", "instruction", "description")
        said = {name: answer[name] or "look again" for name in needed if name in answer}
        return {**answer, **said, "verdict": verdict}
    if "conflicts" in answer:
        return {**answer, "conflicts": not answer["conflicts"]}
    if "choice" in answer:
        worst = min(answer["drafts"], key=lambda draft: draft["score"])
        return {**answer, "choice": worst["draft"]}
    if "better" in answer:
        other = {"first": "second", "second": "first", "neither": "first"}
        return {**answer, "better": other[answer["better"]]}
    return answer


def _opposite(answer: dict[str, Any]) -> dict[str, Any]:
    """Turn round what is answered to one question: a grade of 1 to 5, or a yes or no."""
    if "grade" in answer:
        return {**answer, "grade": 6 - answer["grade"]}
    return {**answer, "yes": not answer["yes"]}
