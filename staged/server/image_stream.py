"""A picture as a stream of partial ones, as OpenAI's clients read it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from staged import images, strict_json
from staged.data_urls import from_base64, to_base64
from staged.server.errors import told_in_stream
from staged.server.feed import FeedReader
from staged.server.job import Job
from staged.server.service import DrawingService
from staged.server.sse import HEARTBEAT_S, EventStream
from staged.server.waiting import failure_of, has_picture
from staged.server.watching import leave


def image_stream(service: DrawingService, job: Job, *, partial_images: int) -> EventStream:
    """Answer with sketches and previews while they come, and the picture at the end.

    Args:
        service: That draws.
        job: What is drawn.
        partial_images: Sent before the picture, at most.
    """
    reader = job.feed.reader(watches=partial_images > 0)
    return EventStream(
        _messages(service, job, reader, partial_images),
        write_timeout_s=service.settings.limits.write_timeout_s,
        # Nobody can take such a stream up again.
        on_end=lambda: leave(service, job, reader, 0),
        headers={"X-Trajectory-Id": job.id},
    )


async def _messages(
    service: DrawingService, job: Job, reader: FeedReader, partial_images: int
) -> AsyncIterator[bytes]:
    prefix = "image_edit" if job.order.kind == "edit" else "image_generation"
    sent = 0
    while (events := await reader.read(HEARTBEAT_S)) is not None:
        if not events:
            yield b": still here\n\n"
        for event in events:
            if event.name == "preview" and sent < partial_images:
                data = {"partial_image_index": sent}
                yield _message(f"{prefix}.partial_image", from_base64(event.data["image"]), data)
                sent += 1
    if has_picture(job):
        usage = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0)
        png = await asyncio.to_thread(service.picture_of, job)
        yield _message(f"{prefix}.completed", png, {"usage": usage})
    else:
        yield f"event: error\ndata: {told_in_stream(failure_of(job))}\n\n".encode()
    yield b"data: [DONE]\n\n"


def _message(kind: str, png: bytes, more: dict[str, Any]) -> bytes:
    _, width, height = images.probe(png)
    data = {
        "type": kind,
        "b64_json": to_base64(png),
        "created_at": int(time.time()),
        "size": f"{width}x{height}",
        "quality": "auto",
        "background": "opaque",
        "output_format": "png",
        **more,
    }
    return f"event: {kind}\ndata: {strict_json.dumps(data)}\n\n".encode()
