"""Readers of a trajectory, and what becomes of it when the last of them has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from staged.server.feed import FeedEvent, FeedReader
from staged.server.job import Job
from staged.server.record import HistoryRecord
from staged.server.service import DrawingService
from staged.server.sse import EventStream, feed_messages, sse_message
from staged.server.wire import Wire


def stream(service: DrawingService, job: Job, after: int = 0) -> EventStream:
    """Answer with the events of a trajectory that has not ended, as they come."""
    reader = job.feed.reader(after)
    return EventStream(
        feed_messages(reader, Wire(job.id, service.addresses).event),
        write_timeout_s=service.settings.limits.write_timeout_s,
        on_end=lambda: leave(service, job, reader, service.settings.limits.reconnect_s),
        headers={"X-Trajectory-Id": job.id},
    )


def replay(
    service: DrawingService, record: HistoryRecord, events: Sequence[FeedEvent]
) -> EventStream:
    """Answer with the events of a trajectory that has ended."""
    wire = Wire(record.id, service.addresses)

    async def messages() -> AsyncIterator[bytes]:
        for event in events:
            yield sse_message(event, wire.event(event))

    return EventStream(
        messages(),
        write_timeout_s=service.settings.limits.write_timeout_s,
        on_end=lambda: None,
        headers={"X-Trajectory-Id": record.id},
    )


def leave(service: DrawingService, job: Job, reader: FeedReader, grace_s: float) -> None:
    """Read no more; a trajectory that nobody reads is cancelled, unless it goes on by itself.

    Args:
        service: Who cancels.
        job: The trajectory.
        reader: Who leaves.
        grace_s: For another reader to come.
    """
    reader.close()
    if job.order.detached or job.ended.is_set():
        return

    def look() -> None:
        if not job.feed.num_readers and not job.ended.is_set():
            # In a thread: the end of one that waits is written down.
            loop.run_in_executor(None, service.scheduler.cancel, job, "cancelled")

    loop = asyncio.get_running_loop()
    loop.call_later(grace_s, look)
