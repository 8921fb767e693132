"""Many threads before one thing that can serve only one call at a time, perhaps several a call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")


class Turns(Generic[Request, Result]):
    """Takes requests from any thread, and serves them one call after another, oldest first.

    What has come while a call ran, and is of the same kind as the oldest of it, goes into the next
    call together. Whoever waits first serves the others: there is no thread to start or end.

    Args:
        serve: Called with requests of one kind, never twice at a time; returns a result or an
            error for each.
        size: Most requests a call.
    """

    def __init__(
        self, serve: Callable[[Sequence[Request]], Sequence[Result | Exception]], size: int
    ) -> None:
        """Begin with nobody waiting."""
        self._serve, self._size = serve, size
        self._waiting: list[_Ticket[Request, Result]] = []
        self._queue, self._turn = threading.Lock(), threading.Lock()

    def take(self, kind: Hashable, request: Request) -> Result:
        """Wait for a turn, and return this request's result, or raise its error."""
        ticket: _Ticket[Request, Result] = _Ticket(kind, request)
        with self._queue:
            self._waiting.append(ticket)
        with self._turn:
            while not ticket.served:
                self._next_call()
        [outcome] = ticket.served
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _next_call(self) -> None:
        with self._queue:
            kind = self._waiting[0].kind
            alike = [ticket for ticket in self._waiting if ticket.kind == kind][: self._size]
            self._waiting = [ticket for ticket in self._waiting if ticket not in alike]
        try:
            outcomes = self._serve([ticket.request for ticket in alike])
        except Exception as error:
            outcomes = [error] * len(alike)
        for ticket, outcome in zip(alike, outcomes, strict=True):
            ticket.served.append(outcome)


class _Ticket(Generic[Request, Result]):
    def __init__(self, kind: Hashable, request: Request) -> None:
        self.kind, self.request = kind, request
        self.served: list[Result | Exception] = []
