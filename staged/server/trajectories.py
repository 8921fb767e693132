"""`/v1/trajectories`: drawing that is watched step by step, and steered."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from staged.server.access import Client
from staged.server.errors import ApiError
from staged.server.job import JobOrder
from staged.server.record import HistoryRecord
from staged.server.routing import ERRORS, EVENTS, Serving
from staged.server.schemas import (
    DrawOptions,
    EditedStep,
    ForkRequest,
    TrajectoryList,
    TrajectoryObject,
    TrajectoryRequest,
    Watching,
)
from staged.server.service import DrawingService
from staged.server.watching import replay, stream
from staged.server.wire import Wire
from staged.trajectory import Inspection, Plan, Refinement, TextStep

_STARTED: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    200: {"description": "Its events, with `stream`.", **EVENTS},
    202: {"description": "What is known of it, without `stream`.", "model": TrajectoryObject},
}

_MAX_ID_CHARS = 80
_Id = Annotated[str, Path(max_length=_MAX_ID_CHARS)]

router = APIRouter(prefix="/v1/trajectories", tags=["trajectories"], responses=ERRORS)


async def _found(id: _Id, client: Client, service: Serving) -> HistoryRecord:
    return await run_in_threadpool(service.record, client, id)


Found = Annotated[HistoryRecord, Depends(_found)]


@router.post("", responses=_STARTED, response_class=Response)
async def draw(body: TrajectoryRequest, client: Client, service: Serving) -> Response:
    """Draw a prompt in stages, and tell every stage as it comes."""

    def read() -> JobOrder:
        inputs = service.reader.from_base64(body.images)
        return service.reader.order(client, body.prompt, inputs=inputs, **_options(body))

    return await _start(service, await run_in_threadpool(read), body)


@router.post("/{id}/fork", responses=_STARTED, response_class=Response)
async def fork(body: ForkRequest, found: Found, service: Serving) -> Response:
    """Go on from one of its steps, with the next one by hand or as the model makes it."""

    def read() -> JobOrder:
        step = None if body.step is None else _step(body.step)
        whole = service.trajectory(found)
        return service.reader.fork(found, whole, at=body.at, step=step, **_options(body))

    return await _start(service, await run_in_threadpool(read), body)


@router.get("")
async def newest(
    client: Client,
    service: Serving,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    words: Annotated[str, Query(max_length=200)] = "",
) -> TrajectoryList:
    """List those that were asked for, newest first."""

    def look() -> list[HistoryRecord]:
        return service.history.newest(client, limit=limit + 1, before_s=before, words=words)

    records = await run_in_threadpool(look)
    shown = [Wire(r.id, service.addresses).summary(r) for r in records[:limit]]
    more = len(records) > limit
    return TrajectoryList.model_validate(
        {"data": shown, "next_before": records[limit - 1].created_s if more else None}
    )


@router.get("/{id}")
async def look_at(found: Found, service: Serving) -> TrajectoryObject:
    """Tell how far it has come."""
    return TrajectoryObject.model_validate(await _shown(service, found))


@router.get("/{id}/events", responses={200: EVENTS}, response_class=Response)
async def events(
    found: Found,
    service: Serving,
    after: Annotated[int, Query(ge=0, le=10**6)] = 0,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """Tell its events from the first, or from behind one that was seen, on."""
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        after = int(last_event_id)
    job = service.job(found.id)
    if job is not None and not job.feed.closed:
        return stream(service, job, after)
    return replay(service, found, await run_in_threadpool(service.events, found, after))


@router.post("/{id}/cancel")
async def cancel(found: Found, service: Serving) -> TrajectoryObject:
    """End it before its time; what is drawn by then stays."""
    await run_in_threadpool(service.cancel, found)
    again = await run_in_threadpool(service.record, found.client, found.id)
    return TrajectoryObject.model_validate(await _shown(service, again))


@router.delete("/{id}", status_code=204)
async def delete(found: Found, service: Serving) -> None:
    """Forget it, with its pictures."""
    await run_in_threadpool(service.delete, found)


@router.get(
    "/{id}/pictures/{name}",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": {"image/png": {}}},
    },
)
async def picture(
    request: Request,
    id: _Id,
    name: Annotated[str, Path(pattern=r"^[0-9a-f]{64}\.(png|webp|jpg)$")],
    service: Serving,
    signature: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Get a picture, by an address that one of its events or answers gave."""
    if not service.addresses.signed(id, name, signature):
        raise ApiError(404, "no picture has this address", code="not_found")
    try:
        data = await run_in_threadpool(service.picture, id, name)
    except ValueError:
        raise ApiError(404, "the picture is gone", code="not_found") from None
    kind = {"png": "image/png", "webp": "image/webp", "jpg": "image/jpeg"}[name.split(".")[1]]
    # Neither it nor the steps before it ever change.
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(data, media_type=kind, headers=headers)


async def _start(service: DrawingService, order: JobOrder, watching: Watching) -> Response:
    order = replace(order, watched=watching.stream)
    [job] = await run_in_threadpool(service.submit, [order])
    if watching.stream:
        return stream(service, job)
    record = await run_in_threadpool(service.record, order.client, job.id)
    return JSONResponse(
        await _shown(service, record),
        status_code=202,
        headers={"Location": f"/v1/trajectories/{job.id}", "X-Trajectory-Id": job.id},
    )


async def _shown(service: DrawingService, record: HistoryRecord) -> dict[str, Any]:
    told = await run_in_threadpool(service.events, record)
    return Wire(record.id, service.addresses).trajectory(record, told)


def _options(body: TrajectoryRequest | ForkRequest) -> dict[str, Any]:
    """Arguments of `DrawingService.order` and `fork` in a request's options."""
    given = body.model_dump(include=set(DrawOptions.model_fields), exclude_none=True)
    options = {name: given.pop(name, None) for name in ("seed", "deadline_s")}
    detached = body.on_disconnect == "continue" or not body.stream
    return {**options, "asked": given, "detached": detached}


def _step(step: EditedStep) -> TextStep:
    fields = step.model_dump(exclude={"step"})
    try:
        match step.step:
            case "plan":
                return Plan(**fields)
            case "inspection":
                return Inspection(**fields)
            case "refinement":
                return Refinement(**fields)
    except ValueError as error:
        raise ApiError(400, f"step: {error}", code="invalid", param="step") from None
