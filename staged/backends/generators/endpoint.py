"""Any service with OpenAI's images API as a generator."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from staged.backends.generators.generator import DrawOutcome, Request
from staged.backends.generators.image_service import ImageService
from staged.backends.generators.settings import EndpointSettings
from staged.backends.http.api_key import read_api_key
from staged.backends.http.replies import Received, Refused
from staged.backends.http.service import ServiceError


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
            service = ImageService(self.settings, self._usd)
            try:
                while True:
                    # No more are begun than run: a benchmark's images would not fit into memory.
                    room = 0 if stopped else self.settings.concurrency - len(pending)
                    for sample in itertools.islice(waiting, room):
                        asking = service.draw(
                            sample.prompt, seed=sample.seed, size=self.settings.size
                        )
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

    def _usd(self, got: Received | Refused) -> float:
        settings = self.settings
        sent, answered = got.usage
        tokens = (
            sent * settings.usd_per_million_input_tokens
            + answered * settings.usd_per_million_output_tokens
        )
        return tokens / 1e6 + (settings.usd_per_image if isinstance(got, Received) else 0.0)
