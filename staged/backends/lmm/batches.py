"""Requests that can wait, at a lower price: gathered, uploaded as one file, answered within a day.

The endpoints are OpenAI's: `files` and `batches`. What is sent is in the log before it is sent, and
the batch's number before it is asked about, so that a process that is killed at any instant leaves
what the next one needs to wait for the same batch instead of sending its requests again.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from staged.backends.http.replies import Received, Refused, clean, understand
from staged.backends.http.service import Service
from staged.backends.lmm.attempts import AttemptLog, SentBatch
from staged.backends.lmm.settings import BatchSettings

ENDPOINT: Final = "/v1/chat/completions"
MARK: Final = "staged_batch"
"""Key of a batch's metadata, under which stands what we call it."""
_WAITED_FOR: Final = frozenset(("validating", "in_progress", "finalizing", "cancelling"))
_PASSING: Final = frozenset(("rate_limit", "server_error", "timeout", "connection"))
_MAX_TRIES: Final = 8
"""Times that one of our own calls is made, before the job stops; it goes on where it stopped."""
_PER_LIST: Final = 100
_MAX_LISTS: Final = 100

_Answer = Received | Refused
R = TypeVar("R")


@dataclass
class _Gathering:
    """Requests that are to go together.

    Attributes:
        lines: Key of a request -> its line of the file.
        num_bytes: Of the file.
        full: Set where no further one has room.
        ended: What came of them.
    """

    lines: dict[str, bytes] = field(default_factory=dict)
    num_bytes: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Task[_Ended] | None = None


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """What came of a batch: of each request, or why there is nothing of the rest of them."""

    answers: Mapping[str, _Answer]
    rest: Refused


class Batches:
    """Answers requests by batches.

    Args:
        service: Of the endpoint; its time limit and bound must fit a file.
        settings: How they are gathered.
        log: Where it is kept what was sent; it has admitted the requests.
    """

    def __init__(self, service: Service, settings: BatchSettings, log: AttemptLog) -> None:
        """Send nothing yet."""
        self._service, self._settings, self._log = service, settings, log
        self._open: _Gathering | None = None
        self._found: dict[str, asyncio.Task[str | None]] = {}
        self._polled: dict[str, asyncio.Task[_Ended]] = {}
        self._running: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Wait for nothing more; what was sent is waited for by the next run."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._service.close()

    async def sent_before(self, key: str) -> SentBatch | None:
        """Find the batch in which another run has sent a request that nothing has come of yet.

        Args:
            key: Of the request, claimed in the log.

        Returns:
            The batch, with its number; None where the endpoint has none with it.

        Raises:
            ServiceError: the service refuses us, or is down.
        """
        for sent in self._log.sent(key):
            number = sent.number or await asyncio.shield(self._number_of(sent))
            if number is not None:
                return replace(sent, number=number)
        return None

    async def answer(
        self, key: str, body: Mapping[str, Any], *, sent: SentBatch | None = None
    ) -> _Answer:
        """Send a request with others, or wait for the batch in which it was sent before.

        Args:
            key: Of the request, claimed in the log.
            body: Of the chat completion.
            sent: That batch, if there is one.

        Raises:
            ServiceError: the service refuses us, does not know a batch that was sent, or is down.
        """
        if sent is not None and sent.number is not None:
            ended = self._end_of(sent.number)
        else:
            ended = self._gathered(key, body)
        # One request that is cancelled must not take the others' answers with it.
        all_answers = await asyncio.shield(ended)
        return self._service.took(all_answers.answers.get(key, all_answers.rest))

    def _gathered(self, key: str, body: Mapping[str, Any]) -> asyncio.Task[_Ended]:
        request = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
        line = json.dumps(request).encode() + b"\n"
        waiting = self._open
        if waiting and waiting.num_bytes + len(line) > self._settings.max_mib * 2**20:
            waiting.full.set()
            waiting = None
        if waiting is None:
            waiting = self._open = _Gathering()
            waiting.ended = self._begun(self._send(waiting))
        assert waiting.ended is not None
        waiting.lines[key] = line
        waiting.num_bytes += len(line)
        if len(waiting.lines) >= self._settings.max_requests:
            waiting.full.set()
            self._open = None
        return waiting.ended

    async def _send(self, waiting: _Gathering) -> _Ended:
        with suppress(TimeoutError):
            await asyncio.wait_for(waiting.full.wait(), self._settings.gather_s)
        if self._open is waiting:
            self._open = None
        name, keys = secrets.token_hex(16), list(waiting.lines)
        await self._log.sending(name, keys, price=self._settings.price)
        content = b"".join(waiting.lines.values())
        waiting.lines.clear()  # a file of images takes its room once
        upload = {"file": (f"{name}.jsonl", content, "application/jsonl")}
        got = await self._call("files", {"purpose": "batch"}, files=upload)
        if isinstance(got, Refused):
            return _Ended(answers={}, rest=got)
        wanted = {
            "input_file_id": _text(got, "id"),
            "endpoint": ENDPOINT,
            "completion_window": self._settings.window,
            "metadata": {MARK: name},
        }
        # A call that was heard and not answered is found again by its mark, not made again.
        made = await self._service.post("batches", wanted, retry=0)
        if isinstance(made, Refused):
            number = await self._look_for(name) if made.kind in _PASSING else None
            if number is None:
                return _Ended(answers={}, rest=made)
        else:
            number = _text(made, "id")
        await self._log.sent_as(name, number)
        _tell(f"batch {number}: sent {len(keys)} requests, {len(content) / 2**20:.1f} MiB")
        return await asyncio.shield(self._end_of(number))

    def _number_of(self, sent: SentBatch) -> asyncio.Task[str | None]:
        """Look for a batch whose number a kill kept from the log; once."""
        if sent.name not in self._found:
            self._found[sent.name] = self._begun(self._refound(sent.name))
        return self._found[sent.name]

    async def _refound(self, name: str) -> str | None:
        number = await self._look_for(name)
        if number is not None:
            await self._log.sent_as(name, number)
        return number

    async def _look_for(self, name: str) -> str | None:
        after = ""
        for _ in range(_MAX_LISTS):
            got = await self._call(f"batches?limit={_PER_LIST}{after}")
            if isinstance(got, Refused):
                self._service.stop(
                    f"batches cannot be listed, and one may be ours: {got.text}; use the account "
                    "and address of the run before (where it is gone for good, take the lines of "
                    f"{name} out of the ledger: its requests may then be paid for twice)"
                )
            batches = _records(got.body.get("data"))
            for batch in batches:
                marks = batch.get("metadata")
                if isinstance(marks, dict) and marks.get(MARK) == name:
                    return _text(Received(body=batch), "id")
            if not got.body.get("has_more") or not batches:
                return None
            after = f"&after={_text(Received(body=batches[-1]), 'id')}"
        return None

    def _end_of(self, number: str) -> asyncio.Task[_Ended]:
        if number not in self._polled:
            self._polled[number] = self._begun(self._poll(number))
        return self._polled[number]

    async def _poll(self, number: str) -> _Ended:
        while True:
            got = await self._call(f"batches/{number}")
            if isinstance(got, Refused):
                self._service.stop(
                    f"batch {number}, which this job has sent, is not to be had: {got.text}; use "
                    "the account and address that it was sent with (where it is gone for good, "
                    "take its lines out of the ledger: its requests are then paid for again)"
                )
            status = got.body.get("status")
            if status not in _WAITED_FOR:
                break
            await self._service.rest(self._settings.poll_s)
        answers: dict[str, _Answer] = {}
        for name in ("output_file_id", "error_file_id"):
            file = got.body.get(name)
            if isinstance(file, str) and file:
                answers |= await self._answers_in(file)
        _tell(f"batch {number}: {clean(status)}, {len(answers)} requests have an end")
        return _Ended(answers=answers, rest=_rest(number, status, got.body))

    async def _answers_in(self, file: str) -> dict[str, _Answer]:
        for tried in range(1, _MAX_TRIES + 1):
            content = await self._service.download(f"files/{file}/content")
            if isinstance(content, bytes):
                return dict(filter(None, map(_read_line, content.split(b"\n"))))
            if tried == _MAX_TRIES or content.kind not in _PASSING:
                self._service.stop(f"file {file} of a batch is not to be had: {content.text}")
            await self._service.rest(self._service.backoff_s(tried))
        raise AssertionError("the last try returns or stops")

    async def _call(
        self, path: str, body: Mapping[str, Any] | None = None, *, files: Any = None
    ) -> _Answer:
        """Make one of our own calls, again where that may help."""
        for tried in range(1, _MAX_TRIES + 1):
            if body is None:
                got = await self._service.get(path)
            else:
                got = await self._service.post(path, body, retry=tried - 1, files=files)
            if isinstance(got, Received) or got.kind not in _PASSING:
                return got
            if tried == _MAX_TRIES:
                self._service.stop(f"{path.partition('?')[0]} is not answered: {got.text}")
            await self._service.rest(self._service.backoff_s(tried))
        raise AssertionError("the last try returns or stops")

    def _begun(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task


def _read_line(line: bytes) -> tuple[str, _Answer] | None:
    """Read one line of a file of answers or errors; None where it is of no request."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    key = record.get("custom_id") if isinstance(record, dict) else None
    if not isinstance(key, str):
        return None
    response, error = record.get("response"), record.get("error")
    if isinstance(response, dict):
        status = response.get("status_code")
        content = json.dumps(response.get("body")).encode()
        return key, understand(status if type(status) is int else 200, {}, content)
    if isinstance(error, dict) and error.get("code") in ("batch_expired", "batch_cancelled"):
        return key, Refused(kind="timeout", text=clean(error.get("message")) or error["code"])
    return key, understand(200, {}, json.dumps({"error": error or "no response"}).encode())


def _rest(number: str, status: Any, batch: Mapping[str, Any]) -> Refused:
    """Say what became of requests that no file names."""
    if status in ("expired", "cancelled"):
        return Refused(kind="timeout", text=f"batch {number} was {status} before it was answered")
    if status != "failed":
        return Refused(kind="server_error", text=f"batch {number} ended without an answer to it")
    errors = batch.get("errors")
    first = next(iter(_records(errors.get("data") if isinstance(errors, dict) else None)), {})
    said = understand(200, {}, json.dumps({"error": first or "no reason"}).encode())
    assert isinstance(said, Refused)
    text = f"batch {number} failed: {said.text}"
    # Too much at a time passes; what is wrong with the file does not.
    passing = "limit" in str(first.get("code"))
    kind = said.kind if said.kind != "server_error" else "bad_request"
    return Refused(kind="rate_limit" if passing else kind, text=text)


def _text(got: Received, name: str) -> str:
    value = got.body.get(name)
    if not isinstance(value, str) or not value.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"a reply about batches has no {name}: {got.body!r:.200}")
    return value


def _records(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _tell(words: str) -> None:
    print(words, file=sys.stderr)
