"""Requests that are answered once their trajectories have ended, as OpenAI's clients expect."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from starlette.requests import ClientDisconnect, Request

from staged.server.errors import ApiError, busy
from staged.server.job import Job
from staged.server.service import DrawingService

_LOOK_S: Final = 60.0
_USELESS: Final = ("not_finite", "cancelled")
"""Reasons after which a picture that was drawn before is none to give."""


async def wait_for(service: DrawingService, request: Request, jobs: Sequence[Job]) -> None:
    """Wait until all have ended; where the client goes away they are cancelled at once.

    Raises:
        ClientDisconnect: It went away.
    """
    ending = asyncio.gather(*(_end_of(job) for job in jobs))
    leaving = asyncio.ensure_future(disconnect(request))
    try:
        done, _ = await asyncio.wait((ending, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (ending, leaving):
            task.cancel()
        await asyncio.gather(ending, leaving, return_exceptions=True)
        if any(not job.ended.is_set() for job in jobs):
            await asyncio.to_thread(cancel_all, service, jobs)
    if ending not in done:
        raise ClientDisconnect
    ending.result()


def cancel_all(service: DrawingService, jobs: Sequence[Job]) -> None:
    """Cancel what has not ended."""
    for job in jobs:
        if not job.ended.is_set():
            service.scheduler.cancel(job, "cancelled")


async def disconnect(request: Request) -> None:
    """Wait until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _end_of(job: Job) -> None:
    reader = job.feed.reader(watches=False)
    try:
        while await reader.read(_LOOK_S) is not None:
            pass
    finally:
        reader.close()


def has_picture(job: Job) -> bool:
    """Whether there is a picture to give, if the model came to its end or not."""
    return job.trajectory.last_sketch is not None and job.reason not in _USELESS


def failure_of(job: Job) -> ApiError:
    """Say why a trajectory brought nothing."""
    reason, detail = job.reason or "no sketch", job.detail or ""
    never_retry = {"x-should-retry": "false"}  # the same would come of it
    match reason:
        case "deadline":
            said = f"it was not done within {job.order.deadline_s:g} seconds"
            return ApiError(504, said, code="deadline", headers=never_retry)
        case "shutdown":
            return busy("the server is ending", status=503, code="ending", after_s=10)
        case "server_error" | "storage":
            return ApiError(500, f"{reason}: {detail}", code=reason)
        case "cancelled":
            return ApiError(409, "it was cancelled", code="cancelled", headers=never_retry)
    said = f"the model failed: {reason}"
    said += f": {detail.removeprefix(f'{reason}: ')}" if detail and detail != reason else ""
    return ApiError(422, said, code=reason, headers=never_retry)
