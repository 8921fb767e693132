"""Any service with OpenAI's images API as a generator.

What a repetition can cure is asked again, by the service's own Retry-After. What is left is a
failure with a reason, or, where every request would end the same way, an error.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from staged import images
from staged.backends.generators.generator import DrawnImage, DrawOutcome, NoImage, Prompted, Request
from staged.backends.generators.settings import EndpointSettings
from staged.backends.http.api_key import read_api_key
from staged.backends.http.limiter import Limiter
from staged.backends.http.replies import Received, Refused
from staged.backends.http.service import Service, ServiceError
from staged.data_urls import from_base64

MAX_REPLY_BYTES = images.MAX_IMAGE_BYTES * 4 // 3 + 2**20
"""Base64 makes four bytes of three."""
_RETRIED = ("rate_limit", "timeout", "connection", "server_error")
_PURPOSE = "images"


class Endpoint:
    """A service that is asked for one image at a time, for several at once.

    Args:
        settings: Where it is, and how it is asked.

    Raises:
        ValueError: no such address, or the environment variable of the key is not set.
    """

    alone = True

    def __init__(self, settings: EndpointSettings) -> None:
        """Check address and key; nothing is opened yet."""
        self.settings = settings
        read_api_key(settings.base_url, settings.api_key_env)

    @property
    def name(self) -> str:
        """The model and where it is."""
        return f"{self.settings.model} at {self.settings.base_url}"

    def identity(self) -> Mapping[str, Any]:
        """What is sent; what the service makes of it cannot be known."""
        names = ("model", "base_url", "size", "seed_field", "extra_body")
        return {name: getattr(self.settings, name) for name in names}

    def draw(self, samples: Sequence[Request]) -> Iterator[tuple[Request, DrawOutcome]]:
        """Ask for each image; answers come in their own order.

        Raises:
            ServiceError: the service refuses everything: a wrong key, address, model or field. A
                `ValueError`; what was being drawn meanwhile has been yielded.
        """
        waiting = iter(samples)
        pending: dict[asyncio.Task[DrawOutcome], Request] = {}
        stopped: ServiceError | None = None
        with asyncio.Runner() as runner:
            service = self._open()
            try:
                while True:
                    # No more are begun than run: a benchmark's images would not fit into memory.
                    room = 0 if stopped else self.settings.concurrency - len(pending)
                    for sample in itertools.islice(waiting, room):
                        asking = self._ask(service, sample)
                        pending[runner.get_loop().create_task(asking)] = sample
                    if not pending:
                        break
                    first = asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in runner.run(first)[0]:
                        sample = pending.pop(task)
                        error = task.exception()
                        if isinstance(error, ServiceError):
                            stopped = error
                        else:
                            yield sample, task.result()
            finally:
                runner.run(service.close())
        if stopped is not None:
            raise stopped

    def _open(self) -> Service:
        settings = self.settings
        return Service(
            base_url=settings.base_url,
            model=settings.model,
            api_key_env=settings.api_key_env,
            timeout_s=settings.timeout_s,
            max_reply_bytes=MAX_REPLY_BYTES,
            fields="size, response_format, seed_field (null leaves a field out), extra_body",
            limiter=Limiter(concurrency=settings.concurrency),
        )

    async def _ask(self, service: Service, sample: Prompted) -> DrawOutcome:
        body = self._body(sample)
        usd = 0.0
        for made in range(self.settings.max_attempts):
            if made:
                await service.rest(service.backoff_s(made))
            async with service.limiter.slot(0):
                got = await service.post("images/generations", body, retry=made)
            usd += self._usd(got)
            if isinstance(got, Received) or got.kind not in _RETRIED:
                break
        cost = {"usd": usd}
        if isinstance(got, Refused):
            if got.kind == "bad_request":
                service.heard(_PURPOSE, got.text)
            if got.kind in _RETRIED:
                service.gave_up(got.text)
            reason = "invalid_reply" if got.kind == "invalid_output" else got.kind
            final = got.kind == "content_filter"
            return NoImage(reason=reason, detail=got.text, final=final, cost=cost)
        service.heard(_PURPOSE)
        return _understood(got.body, cost)

    def _body(self, sample: Prompted) -> dict[str, Any]:
        settings = self.settings
        fields = {"size": settings.size, "response_format": settings.response_format}
        body: dict[str, Any] = {"model": settings.model, "prompt": sample.prompt, "n": 1}
        body |= {name: value for name, value in fields.items() if value is not None}
        if settings.seed_field is not None:
            body[settings.seed_field] = sample.seed % 2**31  # what every service can hold
        return body | settings.extra_body

    def _usd(self, got: Received | Refused) -> float:
        settings = self.settings
        sent, answered = got.usage
        tokens = (
            sent * settings.usd_per_million_input_tokens
            + answered * settings.usd_per_million_output_tokens
        )
        return tokens / 1e6 + (settings.usd_per_image if isinstance(got, Received) else 0.0)


def _understood(reply: Mapping[str, Any], cost: Mapping[str, float]) -> DrawOutcome:
    """Read a reply: one image, in base64."""
    data = reply.get("data")
    image = data[0] if isinstance(data, list) and len(data) == 1 else None
    if not isinstance(image, dict):
        return NoImage(reason="invalid_reply", detail="it does not hold one image", cost=cost)
    encoded = image.get("b64_json")
    url = image.get("url")
    if encoded is None and isinstance(url, str) and url.lower().startswith("data:"):
        encoded = url
    if not isinstance(encoded, str):
        detail = "no b64_json in it; set response_format=b64_json"
        return NoImage(reason="invalid_reply", detail=detail, cost=cost)
    try:
        pixels = images.decode(from_base64(encoded))
    except ValueError as error:
        return NoImage(reason="invalid_image", detail=str(error), cost=cost)
    return DrawnImage(pixels=pixels, cost=cost)
