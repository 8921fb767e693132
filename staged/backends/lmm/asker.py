"""A language model for code that waits: roles of a loop, verifiers of a search."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from staged.backends.lmm.attempts import AttemptLog
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.request import Failure, LmmRequest, Reply, T
from staged.backends.lmm.settings import LmmSettings
from staged.jobs.runner import in_turn

Item = TypeVar("Item")


class Asker:
    """Asks many requests at a time and waits for all of them. One thread uses it.

    Args:
        connect: Opens the client, when it is first needed; the client is kept until the asker goes
            away, and with it what it has found out about the endpoint.
        name: Of the model.
    """

    def __init__(self, connect: Callable[[], LmmClient], name: str) -> None:
        """Nothing is sent yet."""
        self._connect, self.name = connect, name
        self._runner = asyncio.Runner()
        self._client: LmmClient | None = None

    def ask(self, requests: Sequence[LmmRequest[T]]) -> list[Reply[T] | Failure]:
        """Ask all.

        Returns:
            What came of each, in order.

        Raises:
            ServiceError: the endpoint refuses everything. A `ValueError`.
            BudgetError: the log's budget is spent.
        """
        return self._runner.run(self._ask(requests)) if requests else []

    async def _ask(self, requests: Sequence[LmmRequest[T]]) -> list[Reply[T] | Failure]:
        if self._client is None:
            self._client = self._connect()
            weakref.finalize(self, _close, self._runner, self._client)
        client = self._client
        replies: dict[int, Reply[T] | Failure] = {}

        async def ask(numbered: tuple[int, LmmRequest[T]]) -> None:
            number, request = numbered
            replies[number] = await client.ask(request)

        await in_turn(enumerate(requests), ask, workers=client.settings.concurrency)
        return [replies[number] for number in range(len(requests))]


def ask_each(
    settings: LmmSettings,
    log: AttemptLog,
    items: Iterable[Item],
    work: Callable[[LmmClient, Item], Awaitable[None]],
) -> None:
    """Work on things with a client opened for them, as many at a time as the settings say.

    Args:
        settings: Of the model.
        log: Where answers are kept; what lies there is not asked again.
        items: The things.
        work: Done for each.

    Raises:
        ServiceError: the endpoint refuses everything. A `ValueError`.
        BudgetError: the log's budget is spent; what was in flight is kept.
    """

    async def all_of_them() -> None:
        async with LmmClient(settings, log=log) as client:
            await in_turn(items, partial(work, client), workers=settings.concurrency)

    asyncio.run(all_of_them())


def _close(runner: asyncio.Runner, client: Any) -> None:
    runner.run(client.__aexit__(None, None, None))
    runner.close()
