"""One client for every OpenAI-compatible language model: a hosted one, vLLM, or our own miniature.

A request carries text and images and the JSON schema of its answer; the result is either a
checked `Reply` or a typed `Failure`, never half of one. The `openai` client's own retries are off:
here every attempt passes one limiter, is written to a log with its tokens and price before its
answer is used, and is never made again once it was paid for.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Mapping
from typing import Any, Self

import openai
from openai.types.chat import ChatCompletion

from staged import strict_json
from staged.backends.api_key import read_api_key, without_key
from staged.backends.limiter import Limiter
from staged.backends.lmm_types import (
    RETRIED,
    Attempt,
    AttemptLog,
    Failure,
    FailureKind,
    LmmRequest,
    LmmSettings,
    MemoryLog,
    Reply,
    T,
)
from staged.backends.lmm_wire import (
    MAX_DETAIL_CHARS,
    data_url,
    first_token,
    outcome,
    wire_schema,
)

_TOKENS_PER_IMAGE = 1000


class LmmClient:
    """Asks one model, within its limits, and keeps every attempt.

    Args:
        settings: Where and how.
        log: Where attempts are kept; in memory when None.
        http_client: An `httpx.AsyncClient` to use instead of the network's, for a model in this
            process. It is closed with the client.

    Raises:
        ValueError: the environment variable of the key is not set.
    """

    def __init__(
        self,
        settings: LmmSettings,
        *,
        log: AttemptLog | None = None,
        http_client: Any | None = None,
    ) -> None:
        """Open the client; nothing is sent yet."""
        self.settings = settings
        self.log: AttemptLog = MemoryLog() if log is None else log
        self._limiter = Limiter(
            concurrency=settings.concurrency,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        )
        self._in_flight: dict[str, asyncio.Future[Attempt]] = {}
        self._key = read_api_key(settings.base_url, settings.api_key_env)
        self._openai = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=settings.base_url,
            timeout=settings.timeout_s,
            max_retries=0,
            http_client=http_client,
        )

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its connections."""
        await self._openai.close()

    def key(self, request: LmmRequest[Any]) -> str:
        """Return the SHA-256 of everything that decides the answer."""
        content = [
            {"image": hashlib.sha256(part).hexdigest()} if isinstance(part, bytes) else part
            for part in request.content
        ]
        canonical = {
            "endpoint": "chat.completions",
            "model": self.settings.model,
            "temperature": self.settings.temperature,
            "max_output_tokens": self.settings.max_output_tokens,
            "max_side_px": self.settings.max_side_px,
            "extra_body": self.settings.extra_body,
            "purpose": request.purpose,
            "prompt_version": request.prompt_version,
            "instructions": request.instructions,
            "content": content,
            "schema": wire_schema(request.answer),
            "seed": request.seed,
        }
        if request.top_logprobs is not None:
            canonical["top_logprobs"] = request.top_logprobs
        return hashlib.sha256(strict_json.dumps(canonical).encode()).hexdigest()

    async def ask(self, request: LmmRequest[T]) -> Reply[T] | Failure:
        """Answer from the log where it can be, and otherwise ask, as often as the settings allow.

        Equal requests that are asked at the same time are sent once.

        Raises:
            ValueError: the endpoint refuses everything: a wrong key, model or address.
        Exception: what the log's `admit` raises to stop the job.
        """
        key = self.key(request)
        running = self._in_flight.get(key)
        if running is None:
            running = asyncio.ensure_future(self._settle(key, request))
            self._in_flight[key] = running
            running.add_done_callback(lambda _: self._in_flight.pop(key, None))
        # One caller that is cancelled must not take the others' answer with it.
        attempt = await asyncio.shield(running)
        usd = sum(a.usd for a in self.log.attempts(key))
        if attempt.outcome == "ok":
            value = request.answer.model_validate_json(attempt.text)
            return Reply(value=value, key=key, usd=usd)
        return Failure(kind=attempt.outcome, detail=attempt.text, key=key, usd=usd)

    async def _settle(self, key: str, request: LmmRequest[Any]) -> Attempt:
        """Make attempts until one is final; those of an earlier run count."""
        made = list(self.log.attempts(key))
        limit = self.settings.max_attempts
        while not made or (made[-1].outcome in RETRIED and len(made) < limit):
            # After an invalid answer there is nothing to wait for.
            if made and made[-1].outcome != "invalid_output":
                await asyncio.sleep(self._backoff_s(len(made)))
            made.append(await self._attempt(key, request, len(made)))
        return made[-1]

    async def _attempt(self, key: str, request: LmmRequest[Any], number: int) -> Attempt:
        body = self._body(request, number)
        estimate = self._estimate(request)
        async with self._limiter.slot(estimate) as reservation:
            self.log.admit(request.purpose)
            attempt = await self._call(body, request, number)
            self.log.record(key, request.purpose, attempt)
            reservation.settle(attempt.input_tokens + attempt.output_tokens)
        return attempt

    async def _call(self, body: dict[str, Any], request: LmmRequest[Any], number: int) -> Attempt:
        try:
            # The client's plain `post`: its typed `create` walks through every argument to
            # transform it, which costs more than all the rest of a call.
            completion = await self._openai.post(
                "/chat/completions",
                body=body,
                cast_to=ChatCompletion,
                # Servers that log retries know this header from the client's own.
                options={"headers": {"x-stainless-retry-count": str(number)}},
            )
        except openai.APITimeoutError as error:
            return self._failed("timeout", error)
        except openai.RateLimitError as error:
            self._limiter.pause(self._retry_after_s(error.response.headers))
            return self._failed("rate_limit", error)
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            # Not this request's fault: every other one would end the same way.
            raise ValueError(
                f"{self.settings.base_url} refuses us ({error.status_code}): "
                f"{self._failed('bad_request', error).text}; check base_url, model "
                f"{self.settings.model!r} and the key in {self.settings.api_key_env}"
            ) from None
        except openai.APIStatusError as error:
            if error.status_code in (408, 409) or error.status_code >= 500:
                self._limiter.pause(self._retry_after_s(error.response.headers))
                return self._failed("server_error", error)
            filtered = error.code == "content_filter"
            return self._failed("content_filter" if filtered else "bad_request", error)
        except openai.APIConnectionError as error:
            return self._failed("connection", error)
        except (openai.APIError, json.JSONDecodeError) as error:
            # The body is no chat completion at all.
            return self._failed("server_error", error)
        return self._judged(completion, request)

    def _judged(self, completion: ChatCompletion, request: LmmRequest[Any]) -> Attempt:
        """Give an answer its type and price."""
        usage = completion.usage if isinstance(completion, ChatCompletion) else None
        input_tokens = usage.prompt_tokens if usage else 0
        output_tokens = usage.completion_tokens if usage else 0
        if request.top_logprobs is None:
            ended, text = outcome(completion, request.answer)
        else:
            ended, text = first_token(completion, request.top_logprobs)
        return Attempt(
            outcome=ended,
            text=text,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            usd=(
                input_tokens * self.settings.usd_per_million_input_tokens
                + output_tokens * self.settings.usd_per_million_output_tokens
            )
            / 1e6,
        )

    def _failed(self, kind: FailureKind, error: Exception) -> Attempt:
        text = without_key(str(error), self._key)
        return Attempt(outcome=kind, text=text[:MAX_DETAIL_CHARS])

    def _body(self, request: LmmRequest[Any], number: int) -> dict[str, Any]:
        user = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {
                "type": "image_url",
                "image_url": {"url": data_url(part, max_side_px=self.settings.max_side_px)},
            }
            for part in request.content
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": user}]
        if request.instructions:
            messages.insert(0, {"role": "system", "content": request.instructions})
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": messages,
            # An answer that was not valid is asked for again under another seed.
            "seed": request.seed + number,
            **self._form(request),
            **self.settings.extra_body,
        }
        if self.settings.temperature is not None:
            body["temperature"] = self.settings.temperature
        return body

    def _form(self, request: LmmRequest[Any]) -> dict[str, Any]:
        """Say what the answer must be: one token and its alternatives, or JSON of a schema."""
        if request.top_logprobs is not None:
            return {
                "max_completion_tokens": 1,
                "logprobs": True,
                "top_logprobs": request.top_logprobs,
            }
        return {
            "max_completion_tokens": self.settings.max_output_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": request.purpose,
                    "schema": wire_schema(request.answer),
                    "strict": True,
                },
            },
        }

    def _estimate(self, request: LmmRequest[Any]) -> int:
        """Guess tokens before they are counted: four characters make one."""
        chars = len(request.instructions) + sum(
            len(part) for part in request.content if isinstance(part, str)
        )
        pictures = sum(isinstance(part, bytes) for part in request.content)
        answered = 1 if request.top_logprobs else self.settings.max_output_tokens // 4
        return chars // 4 + pictures * _TOKENS_PER_IMAGE + answered

    def _backoff_s(self, attempts_made: int) -> float:
        # Jitter decides only when, never what, so it need not be reproducible.
        longest = self.settings.backoff_s * 2.0 ** (attempts_made - 1)
        return min(longest, self.settings.max_backoff_s) * random.uniform(0.5, 1.0)

    def _retry_after_s(self, headers: Mapping[str, str]) -> float:
        """Read how long the service asks to wait; 0 where it does not say."""
        for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
            try:
                seconds = float(headers.get(name, "")) * scale
            except ValueError:
                continue
            if seconds > 0:
                return min(seconds, self.settings.max_backoff_s)
        return 0.0
