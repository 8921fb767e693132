"""One limiter for requests and tokens a minute, shared by everything that calls a service."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Limiter:
    """Limits calls in flight, requests a minute and tokens a minute.

    Both rates are token buckets that hold at most one second's worth of requests (at least one)
    and one minute's worth of tokens. A caller reserves an estimate and settles the true number
    afterwards, so a wrong estimate costs time and never exceeds the quota for long. Callers are
    served in order.

    Args:
        concurrency: Most calls in flight.
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit; input and output together.
        clock: Seconds, monotonic; replaced in tests.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with full buckets."""
        if concurrency < 1:
            raise ValueError(f"concurrency {concurrency}: at least one call must be in flight")
        self._slots = asyncio.Semaphore(concurrency)
        self._turn = asyncio.Lock()
        self._clock = clock
        self._open_at = 0.0
        self._requests = _Bucket(requests_per_minute, burst_s=1.0, clock=clock)
        self._tokens = _Bucket(tokens_per_minute, burst_s=60.0, clock=clock)

    @asynccontextmanager
    async def slot(self, estimated_tokens: int) -> "AsyncIterator[Reservation]":
        """Wait for a turn and hold one call's place, at most until the end of the block."""
        await self._slots.acquire()
        reservation = Reservation(self, estimated_tokens)
        try:
            async with self._turn:
                await self._wait(estimated_tokens)
                self._requests.take(1)
                self._tokens.take(estimated_tokens)
            yield reservation
        finally:
            reservation.release()

    def pause(self, seconds: float) -> None:
        """Let nobody start for a while: the service has asked one caller, and means all."""
        self._open_at = max(self._open_at, self._clock() + seconds)

    def settle(self, estimated_tokens: int, used_tokens: int) -> None:
        """Replace an estimate by what was really used."""
        self._tokens.take(used_tokens - estimated_tokens)

    def free(self) -> None:
        """Let one more call begin."""
        self._slots.release()

    async def _wait(self, estimated_tokens: int) -> None:
        while True:
            delay = max(
                self._open_at - self._clock(),
                self._requests.delay(1),
                self._tokens.delay(estimated_tokens),
            )
            if delay <= 0:
                return
            await asyncio.sleep(delay)


class Reservation:
    """One call's place in the limiter."""

    def __init__(self, limiter: Limiter, estimated_tokens: int) -> None:
        """Remember what was reserved."""
        self._limiter = limiter
        self._estimated_tokens = estimated_tokens
        self._held = True

    def release(self) -> None:
        """Give the place up: the service has replied, whatever is still done with that."""
        if self._held:
            self._held = False
            self._limiter.free()

    def settle(self, used_tokens: int) -> None:
        """State the tokens that the call really used."""
        self._limiter.settle(self._estimated_tokens, used_tokens)
        self._estimated_tokens = used_tokens


class _Bucket:
    """A token bucket; a request larger than the bucket passes once the bucket is full."""

    def __init__(
        self, per_minute: float | None, *, burst_s: float, clock: Callable[[], float]
    ) -> None:
        if per_minute is not None and not per_minute > 0:
            raise ValueError(f"rate {per_minute} a minute: expected a positive number, or None")
        self._rate = None if per_minute is None else per_minute / 60.0
        self._capacity = 0.0 if self._rate is None else max(1.0, self._rate * burst_s)
        self._level = self._capacity
        self._clock = clock
        self._filled_at = clock()

    def delay(self, amount: float) -> float:
        """Seconds until `amount` may be taken."""
        if self._rate is None:
            return 0.0
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        # Rounding in the clock must not leave a wait of a nanosecond, repeated.
        missing = min(amount, self._capacity) - self._level
        return missing / self._rate if missing > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        """Take, going into debt if need be."""
        if self._rate is not None:
            self._level -= amount
