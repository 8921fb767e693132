"""One endpoint that speaks OpenAI's API over HTTP: asked within limits, read within bounds.

It knows nothing of what is asked. A refusal that concerns us, and not the request, stops the job
instead of failing every unit of it; so does one that every request of a kind meets.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn, cast
from urllib.request import getproxies

import httpx
import openai

from staged import proxies
from staged.backends.http.api_key import read_api_key, without_key
from staged.backends.http.bounded import ReplyTooLongError, bound_replies
from staged.backends.http.limiter import Limiter
from staged.backends.http.pools import KEPT_S, Pools
from staged.backends.http.replies import MAX_DETAIL_CHARS, Received, Refused, clean, understand
from staged.jobs.runner import JobStopError

_TOLD = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
"""What the client tells of this machine: no service needs it, and each header costs both sides."""
MAX_REFUSED = 8
"""So many requests of a kind in vain, and not one answered: then it is not the requests."""
MAX_REFUSED_ALIKE = 3
"""The same with the same sentence each time."""
MAX_GIVEN_UP = 3
"""So many requests given up after all their attempts, and none answered meanwhile: it is down."""


class ServiceError(JobStopError, ValueError):
    """The endpoint refuses whatever we ask."""


class Service:
    """An endpoint.

    Args:
        base_url: Address of the API, up to and with its `/v1`.
        model: What is asked for there; for messages.
        api_key_env: Environment variable that holds the key; None for none.
        timeout_s: Longest wait for one reply, to its last byte.
        max_reply_bytes: Longest reply that is read.
        fields: Settings that decide what is sent; for messages.
        limiter: Passed before each call by the caller; paused here when the endpoint says so.
        backoff_s: Wait before a second attempt; doubled for each further one, with jitter.
        max_backoff_s: Longest wait, also where the endpoint asks for more.
        http_client: In place of the network's, for a service in this process; closed with this.

    Raises:
        ValueError: no such address, the environment variable of the key is not set, or that of a
            proxy has none that can be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key_env: str | None,
        timeout_s: float,
        max_reply_bytes: int,
        fields: str,
        limiter: Limiter,
        backoff_s: float = 0.5,
        max_backoff_s: float = 60.0,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        """Open it; nothing is sent yet."""
        self._key = read_api_key(base_url, api_key_env)
        self._base_url, self._model, self._api_key_env = base_url.rstrip("/"), model, api_key_env
        self._timeout_s = timeout_s
        self._backoff_s, self._max_backoff_s = backoff_s, max_backoff_s
        self._fields = fields
        self.limiter = limiter
        http = http_client or _client(base_url, timeout_s)
        bound_replies(http, max_reply_bytes)
        self._openai = openai.AsyncOpenAI(
            base_url=self._base_url,
            api_key=self._key or "none",  # it insists on one
            max_retries=0,  # every attempt is to be admitted, priced and logged by the caller
            timeout=timeout_s,
            default_headers={f"X-Stainless-{name}": cast(str, openai.Omit()) for name in _TOLD},
            # Version 3 names httpx2 as its transport's type and takes httpx as well.
            http_client=cast(Any, http),
        )
        self._stopped: ServiceError | None = None
        self._stop_event = asyncio.Event()
        self._answered: set[str] = set()
        self._refusals: dict[str, Counter[str]] = {}
        self._given_up = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._openai.close()

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        retry: int,
        files: Mapping[str, Any] | None = None,
    ) -> Received | Refused:
        """Send one request.

        Args:
            path: Below the base URL.
            body: Plain JSON data; fields of a form where there are files.
            retry: Attempts made before; told to the endpoint, whose logs may care.
            files: Name of a field -> (file name, bytes, media type), or a list of these.

        Raises:
            ServiceError: a wrong key, address or model, or an exhausted account.
        """
        self.check()
        form = {} if files is None else {"content-type": "multipart/form-data"}
        return self.took(
            _understood(
                await self._exchange(
                    self._openai.post(
                        f"/{path}",
                        cast_to=httpx.Response,
                        body=body,
                        files=None if files is None else _parts(files),
                        options={"headers": self._headers(retry) | form},
                    )
                )
            )
        )

    async def get(self, path: str) -> Received | Refused:
        """Ask for one thing; as `post`, but that it may not be there is the caller's to tell."""
        self.check()
        got = _understood(await self._got(path))
        return got if isinstance(got, Refused) and got.status == 404 else self.took(got)

    async def download(self, path: str) -> bytes | Refused:
        """Ask for a file; otherwise as `get`."""
        self.check()
        got = await self._got(path)
        if isinstance(got, httpx.Response) and got.is_success:
            return got.content
        refused = _understood(got)
        assert isinstance(refused, Refused)
        if refused.status != 404:
            self.took(refused)
        return refused

    def took(self, got: Received | Refused) -> Received | Refused:
        """Take note of what came back, and hand it on.

        Raises:
            ServiceError: it is a refusal that concerns us, and not the request.
        """
        if isinstance(got, Refused):
            # Some servers repeat the key that they refuse.
            got = replace(got, text=self._without_key(got.text))
            if got.kind == "refused":
                self.stop(
                    f"{self._base_url} refuses us: {got.text}; check base_url, model "
                    f"{self._model!r}, and the account and key in api_key_env ({self._api_key_env})"
                )
            self.limiter.pause(min(got.retry_after_s, self._max_backoff_s))
        else:
            self._given_up = 0
        return got

    def check(self) -> None:
        """Let nobody begin what would only be refused.

        Raises:
            ServiceError: the job was stopped.
        """
        if self._stopped is not None:
            raise self._stopped

    def heard(self, purpose: str, refusal: str | None = None) -> None:
        """Take note of how a request of a kind ended, to tell bad requests from a bad endpoint.

        Args:
            purpose: Kind of the request.
            refusal: What is known of one that no repetition cures; None for an answer.

        Raises:
            ServiceError: every request of the kind ended so, often enough.
        """
        if refusal is None:
            self._answered.add(purpose)
        if purpose in self._answered or refusal is None:
            return
        refused = self._refusals.setdefault(purpose, Counter())
        refused[refusal] += 1
        if refused.total() >= MAX_REFUSED or refused[refusal] >= MAX_REFUSED_ALIKE:
            self.stop(
                f"{self._base_url} was asked {refused.total()} times ({purpose}) and gave no "
                f"answer: {refusal}; check what is sent to {self._model!r}: {self._fields}"
            )

    def gave_up(self, failure: str) -> None:
        """Take note of a request that got no answer in all its attempts.

        Args:
            failure: What is known of the last attempt.

        Raises:
            ServiceError: as many others did before it, and nobody got an answer meanwhile.
        """
        self._given_up += 1
        if self._given_up >= MAX_GIVEN_UP:
            self.stop(
                f"{self._base_url} does not answer: {failure}; {self._given_up} requests were "
                "given up one after another. When it does again, run the same command (a data job "
                "with --retry-failed)"
            )

    def backoff_s(self, attempts_made: int) -> float:
        """Return how long to wait before the next attempt."""
        # Jitter decides only when, never what, so it need not be reproducible.
        longest = self._backoff_s * 2.0 ** min(attempts_made - 1, 32)
        return min(longest, self._max_backoff_s) * random.uniform(0.5, 1.0)

    async def rest(self, seconds: float) -> None:
        """Wait, but for no longer than there is something to wait for.

        Raises:
            ServiceError: the job was stopped.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop_event.wait(), seconds)
        self.check()

    def stop(self, message: str) -> NoReturn:
        """Stop the job.

        Args:
            message: Why; the address is said before it where it does not begin with it.

        Raises:
            ServiceError: always.
        """
        if not message.startswith(self._base_url):
            message = f"{self._base_url}: {message}"
        # The first one is the cause.
        self._stopped = self._stopped or ServiceError(message + proxies.blamed(self._base_url))
        self._stop_event.set()
        raise self._stopped

    def _headers(self, retry: int) -> dict[str, Any]:
        return {
            # Compressed, a body could grow a thousandfold between two looks at its length.
            "accept-encoding": "identity",
            "x-stainless-retry-count": str(retry),
            # Without a key of ours there is none to send, whatever the client made up.
            **({} if self._key else {"authorization": openai.Omit()}),
        }

    def _got(self, path: str) -> Awaitable[httpx.Response | Refused]:
        headers = self._headers(0)
        return self._exchange(
            self._openai.get(f"/{path}", cast_to=httpx.Response, options={"headers": headers})
        )

    async def _exchange(self, call: Awaitable[httpx.Response]) -> httpx.Response | Refused:
        try:
            # httpx bounds the wait for each byte; a server may send one now and then for ever.
            async with asyncio.timeout(self._timeout_s):
                return await call
        except openai.APIStatusError as error:
            return cast(httpx.Response, error.response)
        except (TimeoutError, openai.APITimeoutError):
            return Refused(kind="timeout", text=f"no whole reply within {self._timeout_s:g} s")
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, ReplyTooLongError):
                return Refused(kind="invalid_output", text=str(cause), status=cause.status)
            return Refused(kind="connection", text=f"{type(cause).__name__}: {cause}")

    def _without_key(self, text: str) -> str:
        return clean(without_key(text, self._key))[:MAX_DETAIL_CHARS]


def _understood(got: httpx.Response | Refused) -> Received | Refused:
    if isinstance(got, Refused):
        return got
    return understand(got.status_code, got.headers, got.content)


def _parts(files: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The files of a form; several of one name follow one another."""
    return [
        (name, part)
        for name, parts in files.items()
        for part in (parts if isinstance(parts, list) else [parts])
    ]


def _client(base_url: str, timeout_s: float) -> httpx.AsyncClient:
    direct = proxies.is_this_machine(base_url) or not getproxies()
    try:
        return httpx.AsyncClient(
            timeout=timeout_s,
            follow_redirects=True,
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=64, keepalive_expiry=KEPT_S
            ),
            # Of a proxy httpx makes its own transport, unless it is given one.
            transport=Pools.to_the_network() if direct else None,
            trust_env=not direct,
        )
    except (ValueError, ImportError) as error:
        raise ValueError(f"{base_url}: {error}{proxies.blamed(base_url)}") from None
