"""Any service with OpenAI's images API, asked for one image at a time.

What a repetition can cure is asked again, by the service's own Retry-After. What is left is a
failure with a reason, or, where every request would end the same way, an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from staged import images
from staged.backends.generators.generator import DrawnImage, DrawOutcome, NoImage
from staged.backends.generators.settings import ImageServiceSettings
from staged.backends.http.limiter import Limiter
from staged.backends.http.replies import Received, Refused
from staged.backends.http.service import Service
from staged.data_urls import from_base64

MAX_REPLY_BYTES = images.MAX_IMAGE_BYTES * 4 // 3 + 2**20
"""Base64 makes four bytes of three."""
_RETRIED = ("rate_limit", "timeout", "connection", "server_error")
_PURPOSE = "images"


class ImageService:
    """A service, open.

    Args:
        settings: Where it is, and how it is asked.
        usd: What a reply costs.

    Raises:
        ValueError: no such address, or the environment variable of the key is not set.
    """

    def __init__(
        self, settings: ImageServiceSettings, usd: Callable[[Received | Refused], float]
    ) -> None:
        """Open it; nothing is sent yet."""
        self.settings, self._usd = settings, usd
        self._service = Service(
            base_url=settings.base_url,
            model=settings.model,
            api_key_env=settings.api_key_env,
            timeout_s=settings.timeout_s,
            max_reply_bytes=MAX_REPLY_BYTES,
            fields="size, response_format, seed_field (null leaves a field out), extra_body",
            limiter=Limiter(concurrency=settings.concurrency),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._service.close()

    async def draw(
        self, prompt: str, *, seed: int, size: str | None, onto: bytes | None = None
    ) -> DrawOutcome:
        """Ask for one image.

        Args:
            prompt: What it shows, or what is to be changed.
            seed: Sent where the settings say how.
            size: Width and height, such as `512x512`; None leaves them to the service.
            onto: An encoded image to edit; None draws a new one.

        Raises:
            ServiceError: the service refuses everything. A `ValueError`.
        """
        fields = {"size": size, "response_format": self.settings.response_format}
        body: dict[str, Any] = {"model": self.settings.model, "prompt": prompt, "n": 1}
        body |= {name: value for name, value in fields.items() if value is not None}
        if self.settings.seed_field is not None:
            body[self.settings.seed_field] = seed % 2**31  # what every service can hold
        body |= self.settings.extra_body
        files = None
        if onto is not None:
            extension = images.probe(onto)[0]
            files = {"image": (f"image.{extension}", onto, f"image/{extension}")}
        return await self._asked(body, files)

    async def _asked(self, body: Mapping[str, Any], files: Mapping[str, Any] | None) -> DrawOutcome:
        service, usd = self._service, 0.0
        for made in range(self.settings.max_attempts):
            if made:
                await service.rest(service.backoff_s(made))
            async with service.limiter.slot(0):
                path = "images/generations" if files is None else "images/edits"
                got = await service.post(path, body, retry=made, files=files)
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
