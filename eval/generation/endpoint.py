"""Any service with OpenAI's images API as a generator.

The `openai` client repeats what a repetition can cure, by the service's own Retry-After. What is
left is a failure with a reason, or, where every request would end the same way, an error.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import openai

from eval.generation.generator import Drawn, Failed, Outcome
from eval.generation.samples import Sample
from eval.generation.settings import EndpointSettings
from staged import images, strict_json
from staged.backends.api_key import read_api_key, without_key

MAX_REPLY_BYTES = images.MAX_IMAGE_BYTES * 4 // 3 + 2**20
"""Base64 makes four bytes of three."""
_MODERATED = ("content_filter", "content_policy_violation", "moderation_blocked")
_MAX_REFUSED = 8
"""So many refused requests, and not one image: then it is not the prompts."""
_BROKEN: tuple[type[Exception], ...] = (
    openai.APIConnectionError,
    *(import_module(name).HTTPError for name in ("httpx", "httpx2") if find_spec(name)),
)
"""What breaks off, also while an answer is read: the transport was httpx, and is httpx2."""


class Endpoint:
    """A service that is asked for one image at a time, for several at once.

    Args:
        settings: Where it is, and how it is asked.

    Raises:
        ValueError: the environment variable of the key is not set.
    """

    alone = True

    def __init__(self, settings: EndpointSettings) -> None:
        """Open the client; nothing is sent yet."""
        self.settings = settings
        self._key = read_api_key(settings.base_url, settings.api_key_env)
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=settings.base_url,
            timeout=settings.timeout_s,
            max_retries=settings.max_attempts - 1,
        )

    @property
    def name(self) -> str:
        """The model and where it is."""
        return f"{self.settings.model} at {self.settings.base_url}"

    def identity(self) -> Mapping[str, Any]:
        """What is sent; what the service makes of it cannot be known."""
        names = ("model", "base_url", "size", "seed_field", "extra_body")
        return {name: getattr(self.settings, name) for name in names}

    def draw(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Outcome]]:
        """Ask for each image; answers come in their own order.

        Raises:
            ValueError: the service refuses everything: a wrong key, address, model or field.
        """
        refused, answered = 0, False
        for sample, outcome in self._ask_all(samples):
            yield sample, outcome
            answered = answered or isinstance(outcome, Drawn)
            refused += isinstance(outcome, Failed) and outcome.reason == "bad_request"
            if refused >= _MAX_REFUSED and not answered:
                raise ValueError(
                    f"{self.name} refused {refused} requests and made no image: "
                    f"{getattr(outcome, 'detail', '')}; check size, response_format, seed_field "
                    "and extra_body (null leaves a field out)"
                )

    def _ask_all(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Outcome]]:
        waiting = iter(samples)
        pending: dict[Future[Outcome], Sample] = {}
        # No more are begun than run: a benchmark's images would not fit into memory.
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            try:
                while True:
                    while len(pending) < self.settings.concurrency:
                        sample = next(waiting, None)
                        if sample is None:
                            break
                        pending[pool.submit(self._ask, sample)] = sample
                    if not pending:
                        return
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        yield pending.pop(future), future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, sample: Sample) -> Outcome:
        settings = self.settings
        fields = {"size": settings.size, "response_format": settings.response_format}
        body: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
        if settings.seed_field is not None:
            body[settings.seed_field] = sample.seed % 2**31  # what every service can hold
        try:
            with self._client.images.with_streaming_response.generate(
                model=settings.model,
                prompt=sample.prompt,
                n=1,
                extra_body=body | settings.extra_body,
            ) as response:
                content = _bounded(response.iter_bytes())
        except openai.APITimeoutError as error:
            return self._failed("timeout", error)
        except openai.RateLimitError as error:
            return self._failed("rate_limit", error)
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            raise ValueError(
                f"{settings.base_url} refuses us: {self._failed('bad_request', error).detail}; "
                f"check base_url, model {settings.model!r} and the key in api_key_env "
                f"({settings.api_key_env})"
            ) from None
        except openai.APIStatusError as error:
            if error.code in _MODERATED:
                return self._failed("content_filter", error, final=True)
            kind = "server_error" if error.status_code >= 500 else "bad_request"
            return self._failed(kind, error)
        except _BROKEN as error:
            return self._failed("connection", error)
        except ValueError as error:
            return self._failed("invalid_reply", error)
        return self._understand(content)

    def _understand(self, content: bytes) -> Outcome:
        """Read an answer: one image, in base64."""
        try:
            reply = strict_json.loads(content, place="reply", max_bytes=MAX_REPLY_BYTES)
            usage = reply.get("usage") or {}
            cost = {"usd": self._usd(usage)}
            [image] = reply["data"]
            encoded = image.get("b64_json")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self._failed("invalid_reply", ValueError(f"not an images reply: {error!r}"))
        if not isinstance(encoded, str):
            detail = "no b64_json in it; set response_format=b64_json"
            return Failed(reason="invalid_reply", detail=detail, cost=cost)
        try:
            pixels = images.decode(base64.b64decode(encoded, validate=True))
        except (ValueError, binascii.Error) as error:
            return Failed(reason="invalid_image", detail=str(error), cost=cost)
        return Drawn(pixels=pixels, cost=cost)

    def _usd(self, usage: Mapping[str, Any]) -> float:
        settings = self.settings
        tokens = (
            int(usage.get("input_tokens") or 0) * settings.usd_per_million_input_tokens
            + int(usage.get("output_tokens") or 0) * settings.usd_per_million_output_tokens
        )
        return settings.usd_per_image + tokens / 1e6

    def _failed(self, reason: str, error: Exception, *, final: bool = False) -> Failed:
        return Failed(reason=reason, detail=without_key(str(error), self._key), final=final)


def _bounded(chunks: Iterable[bytes]) -> bytes:
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_REPLY_BYTES:
            raise ValueError(f"a reply of more than {MAX_REPLY_BYTES} bytes")
    return bytes(content)
