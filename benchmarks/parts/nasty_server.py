"""A chat-completions server that misbehaves in every way that services are known to, and counts.

Written on bare sockets, since what it does a web framework would not let it do. Which fault a
request meets is a function of its text and its number of retries, so that two runs meet the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final

FAULTS: Final = (
    "rate_limit",
    "rate_limit_seconds",
    "rate_limit_date",
    "server_error",
    "html_error",
    "hang",
    "cut_stream",
    "slow_drip",
    "huge",
    "wrong_json",
    "wrong_schema",
    "empty_choices",
    "null_fields",
    "error_under_200",
    "refusal",
    "fences",
    "thinking",
    "other_model",
)
"""What it does instead of a plain answer."""
ANSWERS: Final = frozenset(("plain", "fences", "thinking", "other_model", "refusal"))
"""Behaviour after which nobody may ask the same again: it is an answer, or final."""
WHOLE: Final = ANSWERS | {"wrong_json", "wrong_schema", "empty_choices", "null_fields"}
"""Behaviour that a server sends a bill for."""
GIVEN_UP: Final = frozenset(("hang", "slow_drip", "cut_stream"))
"""Behaviour to which a caller hears no end."""
_HUGE_BYTES: Final = 20 * 2**20
_MAX_BODY_BYTES: Final = 2**24


class NastyServer:
    """The server.

    Args:
        faults: Share of replies that are faults, in [0, 1].
        stubborn: Share of requests that get a wrong schema however often they are made.
        latency_s: Before every reply.
        hang_s: How long it keeps a caller waiting that it never answers.

    Attributes:
        asked: Replies by behaviour.
        by_request: Text of a request -> behaviours that it met, in order.
        most_at_once: Most requests that were open at a time.
    """

    def __init__(
        self,
        *,
        faults: float = 0.2,
        stubborn: float = 0.0,
        latency_s: float = 0.0,
        hang_s: float = 30.0,
    ) -> None:
        """Serve nobody yet."""
        self.faults, self.stubborn = faults, stubborn
        self.latency_s, self.hang_s = latency_s, hang_s
        self.asked: Counter[str] = Counter()
        self.by_request: dict[str, list[str]] = {}
        self.most_at_once = self._open = 0

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> asyncio.Server:
        """Listen; the caller closes what comes back."""
        return await asyncio.start_server(self._connection, host, port, backlog=1024)

    @property
    def bought_twice(self) -> dict[str, list[str]]:
        """Requests that were made again after an answer that is final, with what they met."""
        return {
            text: met
            for text, met in self.by_request.items()
            if any(behaviour in ANSWERS for behaviour in met[:-1])
        }

    def summary(self) -> dict[str, Any]:
        """What was counted, as plain data."""
        billed = sum(number for name, number in self.asked.items() if name in WHOLE)
        return {
            "requests": self.asked.total(),
            "distinct": len(self.by_request),
            "billed": billed,
            "bought_twice": self.bought_twice,
            "most_at_once": self.most_at_once,
            "by_behaviour": dict(sorted(self.asked.items())),
        }

    def behaviour(self, text: str, retry: str) -> str:
        """Choose what a request meets."""

        def draw(name: str) -> float:
            digest = hashlib.sha256(f"{name}/{text}".encode()).digest()
            return int.from_bytes(digest[:8]) / 2**64

        if draw("stubborn") < self.stubborn:
            return "wrong_schema"
        fault = draw(retry)
        return FAULTS[int(fault / self.faults * len(FAULTS))] if fault < self.faults else "plain"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; say whether the connection can be used again."""
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (entry.partition(":") for entry in lines)
        }
        body = await reader.readexactly(min(int(headers.get("content-length", 0)), _MAX_BODY_BYTES))
        if line.startswith("GET "):
            await _send(writer, 200, json.dumps(self.summary()).encode())
            return True
        text = json.loads(body)["messages"][-1]["content"][0]["text"]
        behaviour = self.behaviour(text, headers.get("x-stainless-retry-count", "0"))
        self.asked[behaviour] += 1
        self.by_request.setdefault(text, []).append(behaviour)
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            return await self._behave(writer, behaviour, text)
        finally:
            self._open -= 1

    async def _behave(self, writer: asyncio.StreamWriter, behaviour: str, text: str) -> bool:
        error = json.dumps({"error": {"message": "try again", "type": "server_error"}}).encode()
        match behaviour:
            case "rate_limit":
                await _send(writer, 429, error)
            case "rate_limit_seconds":
                await _send(writer, 429, error, "Retry-After: 0.05")
            case "rate_limit_date":
                when = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
                await _send(writer, 429, error, f"Retry-After: {when}")
            case "server_error":
                await _send(writer, 500, error)
            case "html_error":
                await _send(writer, 503, b"<html><h1>Service Unavailable</h1></html>")
            case "hang":
                await asyncio.sleep(self.hang_s)
                return False
            case "cut_stream":
                reply = _completion(text, behaviour)
                writer.write(_head(200, len(reply)) + reply[: len(reply) // 2])
                await writer.drain()
                return False
            case "slow_drip":
                reply = _completion(text, behaviour)
                writer.write(_head(200, len(reply)))
                for place in range(len(reply)):
                    writer.write(reply[place : place + 1])
                    await writer.drain()
                    await asyncio.sleep(self.hang_s / len(reply))
            case "huge":
                writer.write(_head(200, _HUGE_BYTES))
                for _ in range(_HUGE_BYTES // 2**16):
                    writer.write(b" " * 2**16)
                    await writer.drain()
                return False
            case "error_under_200":
                await _send(writer, 200, error)
            case _:
                await _send(writer, 200, _completion(text, behaviour))
        return True


def _completion(text: str, behaviour: str) -> bytes:
    said = json.dumps({"echo": text})
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
    reply: dict[str, Any] = {
        "id": "chatcmpl-nasty",
        "object": "chat.completion",
        "created": 0,
        "model": "nasty-1",
        "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }
    match behaviour:
        case "wrong_json":
            message["content"] = said[:-3]
        case "wrong_schema":
            message["content"] = json.dumps({"echo": [text], "more": None})
        case "fences":
            message["content"] = f"Here you are:\n```json\n{said}\n```\n"
        case "thinking":
            message["content"] = f"<think>They want {{an echo}}.</think>\n{said}"
        case "empty_choices":
            reply["choices"] = []
        case "null_fields":
            reply |= {"choices": [{"index": None, "finish_reason": None, "message": None}]}
        case "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        case "other_model":
            reply["model"] = "nasty-1-2026-11-26-quantised"
    return json.dumps(reply).encode()


def _head(status: int, length: int, *more: str) -> bytes:
    lines = (f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", *more)
    return "\r\n".join((*lines, f"Content-Length: {length}", "", "")).encode()


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, *more: str) -> None:
    writer.write(_head(status, len(body), *more) + body)
    await writer.drain()
