"""One client for every OpenAI-compatible language model: a hosted one, vLLM, or our own miniature.

A request carries text and images and the JSON schema of its answer; the result is either a
checked `Reply` or a typed `Failure`, never half of one. Every attempt passes one limiter, is
written to a log with its tokens and price whatever its answer turns out to be, and is never made
again once it was paid for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from staged.backends.http.limiter import Limiter, Reservation
from staged.backends.http.replies import Received, Refused
from staged.backends.http.service import Service, ServiceError
from staged.backends.lmm.attempts import AttemptLog, CallAttempt, MemoryLog, SentBatch
from staged.backends.lmm.batches import Batches
from staged.backends.lmm.dialect import Dialect
from staged.backends.lmm.outcomes import RETRIED, UNANSWERED
from staged.backends.lmm.prices import likely_tokens, most_usd, usd_of
from staged.backends.lmm.request import Failure, LmmRequest, Reply, T
from staged.backends.lmm.request_key import request_key
from staged.backends.lmm.settings import BatchSettings, LmmSettings
from staged.backends.lmm.wire import chat_content, first_token, outcome
from staged.jobs.budget import BudgetError

MAX_REPLY_BYTES = 16 * 2**20
MAX_FILE_BYTES = 2**30
"""Longest file of answers to a batch."""
_MAX_WHY_CHARS = 300


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How an attempt goes.

    Attributes:
        batched: In a batch, and not at once.
        price: What a token costs this way, as a share of its price.
        sent: The batch, where an earlier run has sent it.
        reservation: At once, what the limiter holds for it.
    """

    batched: bool = False
    price: float = 1.0
    sent: SentBatch | None = None
    reservation: Reservation | None = None


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
        opened = partial(
            Service,
            base_url=settings.base_url,
            model=settings.model,
            api_key_env=settings.api_key_env,
            fields="temperature and structured_output (auto finds out), extra_body",
            limiter=Limiter(
                concurrency=settings.concurrency,
                requests_per_minute=settings.requests_per_minute,
                tokens_per_minute=settings.tokens_per_minute,
            ),
            backoff_s=settings.backoff_s,
            max_backoff_s=settings.max_backoff_s,
            http_client=http_client,
        )
        self._service = opened(timeout_s=settings.timeout_s, max_reply_bytes=MAX_REPLY_BYTES)
        # What another run has sent in batches is waited for by one that sends none.
        self._batching = settings.batch or BatchSettings()
        # Files take longer than answers, and are larger.
        self._open_files = partial(
            opened, timeout_s=self._batching.timeout_s, max_reply_bytes=MAX_FILE_BYTES
        )
        self._opened_batches: Batches | None = None
        self._dialect = Dialect(settings)
        self._first = asyncio.Lock()
        self._in_flight: dict[str, asyncio.Task[Sequence[CallAttempt]]] = {}
        self._exchanges: dict[str, asyncio.Task[CallAttempt]] = {}
        self._closing = False

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close its connections. What is being answered is paid for, so it is waited for and kept.

        Not where the user has interrupted: whoever does that does not want to wait.
        """
        self._closing = True
        interrupted = kind is not None and issubclass(kind, asyncio.CancelledError)
        for key, running in self._in_flight.items():
            # The claim of a request that is being answered ends when its answer is kept.
            if interrupted or key not in self._exchanges:
                running.cancel()
        if not interrupted:
            await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
        if self._opened_batches is not None:
            await self._opened_batches.close()
        await self._service.close()

    async def ask(self, request: LmmRequest[T]) -> Reply[T] | Failure:
        """Answer from the log where it can be, and otherwise ask, as often as the settings allow.

        Equal requests that are asked at the same time are sent once.

        Raises:
            ServiceError: the endpoint refuses everything: a wrong key, model, address or field, or
                an account that is used up. A `ValueError`.
        Exception: what the log's `admit` raises to stop the job.
        """
        key = request_key(self.settings, request)
        running = self._in_flight.get(key)
        if running is None:
            running = asyncio.ensure_future(self._settle(key, request))
            self._in_flight[key] = running
            running.add_done_callback(lambda _: self._in_flight.pop(key))
            running.add_done_callback(_seen)
        # One caller that is cancelled must not take the others' answer with it.
        made = await asyncio.shield(running)
        attempt, usd = made[-1], sum(one.usd for one in made)
        if attempt.outcome == "ok":
            value = request.answer.model_validate_json(attempt.text)
            return Reply(value=value, key=key, usd=usd)
        return Failure(kind=attempt.outcome, detail=attempt.text, key=key, usd=usd)

    async def _settle(self, key: str, request: LmmRequest[Any]) -> Sequence[CallAttempt]:
        """Make attempts until one is final, and return all; those of an earlier run count."""
        made = list(self.log.attempts(key))
        if self._is_final(made):
            return made
        async with self.log.claim(key):
            # Another process may have asked until now.
            made = list(self.log.attempts(key))
            while not self._is_final(made):
                if self._closing:
                    raise asyncio.CancelledError
                # After an invalid answer, or without a field, there is nothing to wait for.
                if made and made[-1].outcome not in ("invalid_output", "unsupported"):
                    await self._service.rest(self._service.backoff_s(len(_counted(made))))
                made.append(await self._attempt(key, _told_why(request, made), made))
            self._take_note(request.purpose, made[-1])
        return made

    def _take_note(self, purpose: str, ended: CallAttempt) -> None:
        """Tell a request that failed from an endpoint with which every request would.

        Raises:
            ServiceError: it is the endpoint, or how it is asked.
        """
        if ended.outcome in UNANSWERED:
            self._service.gave_up(ended.text)
        elif ended.outcome == "truncated":
            tokens = self.settings.max_output_tokens
            self._service.heard(
                purpose, f"answers were cut off at max_output_tokens {tokens}; raise it"
            )
        elif ended.outcome in ("bad_request", "invalid_output"):
            self._service.heard(purpose, ended.text)
        else:
            self._service.heard(purpose)

    def _is_final(self, made: Sequence[CallAttempt]) -> bool:
        if not made:
            return False
        return made[-1].outcome not in RETRIED or len(_counted(made)) >= self.settings.max_attempts

    async def _attempt(
        self, key: str, request: LmmRequest[Any], made: Sequence[CallAttempt]
    ) -> CallAttempt:
        if self.log.sent(key) and (sent := await self._batches.sent_before(key)) is not None:
            return await self._collected(key, request, made, sent)
        if (held := self.log.held(key)) is not None:
            # Another run admitted it, and ended before it was sent.
            self.log.withdraw(held, key=key)
        if not self._dialect.known:
            # Also where batches are asked for: thousands shall not fail over one field.
            async with self._first:
                if not self._dialect.known:
                    return await self._in_turn(key, request, made)
        if self.settings.batch is not None:
            return await self._gathered(key, request, made)
        return await self._in_turn(key, request, made)

    @property
    def _batches(self) -> Batches:
        if self._opened_batches is None:
            self._opened_batches = Batches(self._open_files(), self._batching, self.log)
        return self._opened_batches

    async def _in_turn(
        self, key: str, request: LmmRequest[Any], made: Sequence[CallAttempt]
    ) -> CallAttempt:
        async with self._service.limiter.slot(likely_tokens(self.settings, request)) as reservation:
            held_usd = most_usd(self.settings, request, 1.0)
            await self._admit(request, held_usd)
            return await self._begun(key, request, made, held_usd, _Way(reservation=reservation))

    async def _gathered(
        self, key: str, request: LmmRequest[Any], made: Sequence[CallAttempt]
    ) -> CallAttempt:
        way = _Way(batched=True, price=self._batching.price)
        held_usd = most_usd(self.settings, request, way.price)
        await self._admit(request, held_usd, key=key)
        return await self._begun(key, request, made, held_usd, way)

    async def _collected(
        self, key: str, request: LmmRequest[Any], made: Sequence[CallAttempt], sent: SentBatch
    ) -> CallAttempt:
        self._service.check()
        price = self._batching.price if sent.price is None else sent.price
        # What it was counted with when it was sent; an older version's ledger does not say.
        held_usd = self.log.held(key)
        if held_usd is None:
            held_usd = most_usd(self.settings, request, price)
        way = _Way(batched=True, price=price, sent=sent)
        return await self._begun(key, request, made, held_usd, way)

    async def _begun(
        self,
        key: str,
        request: LmmRequest[Any],
        made: Sequence[CallAttempt],
        held_usd: float,
        way: _Way,
    ) -> CallAttempt:
        exchange = asyncio.ensure_future(self._exchange(key, request, made, held_usd, way))
        self._exchanges[key] = exchange
        exchange.add_done_callback(lambda _: self._exchanges.pop(key))
        exchange.add_done_callback(_seen)
        return await asyncio.shield(exchange)

    async def _admit(
        self, request: LmmRequest[Any], held_usd: float, *, key: str | None = None
    ) -> None:
        """Have an attempt counted with the most that it can cost, by its key if it is batched.

        Where money is held for those in flight, wait until it is free.

        Raises:
            BudgetError: It does not fit, and nothing of this process will give money back.
        """
        while True:
            self._service.check()
            try:
                return self.log.admit(request.purpose, usd=held_usd, key=key)
            except BudgetError as error:
                in_flight = list(self._exchanges.values())
                if not (held_usd and error.may_pass and in_flight):
                    raise
                # They are shielded, and looked at by whoever asked for them.
                await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
                if self._closing:
                    raise

    async def _exchange(
        self,
        key: str,
        request: LmmRequest[Any],
        made: Sequence[CallAttempt],
        held_usd: float,
        way: _Way,
    ) -> CallAttempt:
        """Make one attempt. It is in the log, paid for, whatever its interpretation comes to."""
        counted = _counted(made)
        again = bool(counted) and counted[-1].outcome == "invalid_output"
        # A connection that broke is no reason to be answered something else.
        invalid = sum(attempt.outcome == "invalid_output" for attempt in counted)
        try:
            body = self._body(request, invalid, again=again)
        except Exception:
            if way.sent is None:
                self.log.withdraw(held_usd, key=key if way.batched else None)
            raise
        if way.batched:
            got = await self._batches.answer(key, body, sent=way.sent)
        else:
            try:
                got = await self._service.post("chat/completions", body, retry=len(counted))
            except ServiceError:
                # Nobody charges for refusing a key; the next run asks again.
                self.log.free(held_usd)
                raise
        attempt = self._priced(got, way.price)
        if way.reservation is not None:
            way.reservation.settle(attempt.input_tokens + attempt.output_tokens)
            way.reservation.release()  # a disk takes its time, and the service need not wait
        try:
            attempt = self._judged(attempt, got, request, body)
        finally:
            await self.log.record(key, request.purpose, attempt, reserved_usd=held_usd)
        if isinstance(got, Received):
            self._dialect.answered(valid=attempt.outcome == "ok", again=again)
        return attempt

    def _priced(self, got: Received | Refused, price: float) -> CallAttempt:
        input_tokens, output_tokens = got.usage
        return CallAttempt(
            outcome="invalid_output",
            text="its interpretation failed",
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            usd=usd_of(self.settings, input_tokens, output_tokens, price),
        )

    def _judged(
        self,
        attempt: CallAttempt,
        got: Received | Refused,
        request: LmmRequest[Any],
        body: Mapping[str, Any],
    ) -> CallAttempt:
        if isinstance(got, Refused):
            assert got.kind != "refused", "it stops the job"
            unsupported = self._dialect.gives_up(got, body)
            return replace(
                attempt, outcome="unsupported" if unsupported else got.kind, text=got.text
            )
        if request.top_logprobs is None:
            ended, text = outcome(got.body, request.answer)
        else:
            ended, text = first_token(got.body, request.top_logprobs)
        return replace(attempt, outcome=ended, text=text)

    def _body(self, request: LmmRequest[Any], number: int, *, again: bool) -> dict[str, Any]:
        user = chat_content(request.content, max_side_px=self.settings.max_side_px)
        messages: list[dict[str, Any]] = [{"role": "user", "content": user}]
        if instructions := self._dialect.instructions(request, again=again):
            messages.insert(0, {"role": "system", "content": instructions})
        return {
            "model": self.settings.model,
            "messages": messages,
            **self._dialect.fields(request, number),
            **self.settings.extra_body,
        }


def _counted(made: Sequence[CallAttempt]) -> list[CallAttempt]:
    """Leave out attempts that only showed which fields an endpoint takes."""
    return [attempt for attempt in made if attempt.outcome != "unsupported"]


def _told_why(request: LmmRequest[T], made: Sequence[CallAttempt]) -> LmmRequest[T]:
    """Say what made the last invalid answer invalid: at the end, so that what is cached stays so.

    The rules of an answer that no schema holds are known to the model by words alone.
    """
    invalid = [attempt.text for attempt in made if attempt.outcome == "invalid_output"]
    if not invalid or request.top_logprobs is not None:  # a first token is valid, or it is not
        return request
    why = invalid[-1].partition("; in ")[0][:_MAX_WHY_CHARS]
    return replace(
        request,
        instructions=f"{request.instructions}\n\nAn answer to this was not valid ({why}). Give one "
        "that is.",
    )


def _seen(task: asyncio.Task[Any]) -> None:
    """Look at a task's error: whoever waited for it may have been cancelled, and asyncio prints."""
    if not task.cancelled():
        task.exception()
