"""`/v1/chat/completions`: a question about images, as OpenAI's clients ask it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from staged import strict_json
from staged.server.access import Client
from staged.server.errors import bad_request, told_in_stream
from staged.server.feed import FeedReader
from staged.server.job import Job, JobOrder
from staged.server.models_api import check_model
from staged.server.openai_schemas import (
    ChatAnswer,
    ChatAnswerMessage,
    ChatChoice,
    ChatRequest,
    ChatUsage,
)
from staged.server.routing import ERRORS, EVENTS, Serving
from staged.server.service import DrawingService
from staged.server.sse import HEARTBEAT_S, EventStream
from staged.server.waiting import failure_of, wait_for
from staged.server.watching import leave
from staged.trajectory import Answer

_ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {"model": ChatAnswer, "description": "The answer, or with `stream` events.", **EVENTS}
}

router = APIRouter(prefix="/v1/chat", tags=["OpenAI"], responses=ERRORS)


@router.post("/completions", responses=_ANSWERED, response_class=Response)
async def complete(
    request: Request, body: ChatRequest, client: Client, service: Serving
) -> Response:
    """Answer a question about images."""

    def read() -> JobOrder:
        return _order(service, client, body)

    [job] = await run_in_threadpool(service.submit, [await run_in_threadpool(read)])
    if body.stream:
        reader = job.feed.reader()
        return EventStream(
            _messages(service, job, reader),
            write_timeout_s=service.settings.limits.write_timeout_s,
            on_end=lambda: leave(service, job, reader, 0),
            headers={"X-Trajectory-Id": job.id},
        )
    await wait_for(service, request, [job])
    if (text := _answer_of(job)) is None:
        raise failure_of(job)
    words = job.order.start.prompt
    asked, said = await run_in_threadpool(service.model.count_tokens, [words, text])
    answer = ChatAnswer(
        id=job.id,
        created=int(time.time()),
        model=service.settings.name,
        choices=[ChatChoice(message=ChatAnswerMessage(content=text))],
        usage=ChatUsage(prompt_tokens=asked, completion_tokens=said, total_tokens=asked + said),
    )
    return JSONResponse(answer.model_dump())


def _order(service: DrawingService, client: str, body: ChatRequest) -> JobOrder:
    check_model(service, body.model)
    texts: dict[str, list[str]] = {"system": [], "user": []}
    urls: list[str] = []
    for place, message in enumerate(body.messages):
        if message.role == "user" and place != len(body.messages) - 1:
            raise bad_request(
                "messages: one question is answered at a time; give one message of the user, last",
                param="messages",
            )
        said = texts["user" if message.role == "user" else "system"]
        if isinstance(message.content, str):
            said.append(message.content)
            continue
        for part in message.content:
            if part.type == "text" and part.text is not None:
                said.append(part.text)
            elif part.type == "image_url" and part.image_url is not None:
                urls.append(part.image_url.url)
            else:
                raise bad_request(
                    f"messages[{place}]: a part of type {part.type} has no {part.type}",
                    param="messages",
                )
    for url in urls:
        if not url[:5].lower() == "data:":
            raise bad_request(
                "messages: nothing is fetched from elsewhere; give images as data URLs",
                param="messages",
            )
    asked = dict(service.reader.answering())
    if texts["system"]:
        asked["system_prompt"] = "\n".join(texts["system"])
    if body.temperature is not None:
        asked["temperature"] = body.temperature
    if (most := body.max_completion_tokens or body.max_tokens) is not None:
        asked["max_text_tokens"] = min(most, service.settings.limits.max_text_tokens)
    return service.reader.order(
        client,
        "\n".join(texts["user"]),
        asked=asked,
        inputs=service.reader.from_base64(urls, "messages"),
        kind="chat",
        seed=body.seed,
    )


def _answer_of(job: Job) -> str | None:
    return next((step.text for step in job.trajectory.steps if isinstance(step, Answer)), None)


async def _messages(service: DrawingService, job: Job, reader: FeedReader) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        data = {
            "id": job.id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": service.settings.name,
            "choices": [choice],
        }
        return f"data: {strict_json.dumps(data)}\n\n".encode()

    yield chunk({"role": "assistant", "content": ""})
    said = ""
    while (events := await reader.read(HEARTBEAT_S)) is not None:
        if not events:
            yield b": still here\n\n"
        for event in events:
            step = event.data.get("step", {})
            text = step.get("text", "").strip() if step.get("step") == "answer" else ""
            if text.startswith(said) and len(text) > len(said):
                yield chunk({"content": text[len(said) :]})
                said = text
    # An attempt that failed was told in part and cannot be taken back.
    if _answer_of(job) != said:
        yield f"data: {told_in_stream(failure_of(job))}\n\n".encode()
    else:
        yield chunk({}, "stop")
    yield b"data: [DONE]\n\n"
