"""`/v1/images`: drawing and editing, as OpenAI's clients ask for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import Field

from staged import images
from staged.data_urls import to_base64
from staged.server.access import Client
from staged.server.errors import bad_request
from staged.server.image_stream import image_stream
from staged.server.job import Job, JobOrder
from staged.server.models_api import check_model
from staged.server.openai_schemas import ImageDatum, ImageOptions, ImageRequest, ImagesAnswer
from staged.server.routing import ERRORS, EVENTS, Serving
from staged.server.schemas import DrawOptions
from staged.server.service import DrawingService
from staged.server.waiting import failure_of, has_picture, wait_for
from staged.trajectory import ImageRef

_DRAWN: dict[int | str, dict[str, Any]] = {
    200: {"model": ImagesAnswer, "description": "Pictures, or with `stream` events.", **EVENTS}
}

router = APIRouter(prefix="/v1/images", tags=["OpenAI"], responses=ERRORS)


class EditForm(ImageOptions):
    """A picture to change."""

    prompt: str = Field(description="What to change.")
    image: list[UploadFile] = Field(default_factory=list, description="The picture, or several.")
    images: list[UploadFile] = Field(
        default_factory=list, alias="image[]", description="The same, as clients send several."
    )
    mask: UploadFile | None = Field(None, description="Not supported.")
    input_fidelity: str | None = Field(None, max_length=500, description="Has no effect.")


@router.post("/generations", responses=_DRAWN, response_class=Response)
async def generate(
    request: Request, body: ImageRequest, client: Client, service: Serving
) -> Response:
    """Draw a prompt, and answer once the pictures are there."""

    def read() -> list[JobOrder]:
        return _orders(service, client, body, body.prompt, kind="image")

    return await _answer(request, service, body, await run_in_threadpool(read))


@router.post("/edits", responses=_DRAWN, response_class=Response)
async def edit(
    request: Request,
    body: Annotated[EditForm, Form(media_type="multipart/form-data")],
    client: Client,
    service: Serving,
) -> Response:
    """Change a picture by a prompt, and answer once the new ones are there."""
    files = [await file.read() for file in (*body.image, *body.images)]
    if not files:
        raise bad_request("image: give the picture to change", param="image")
    if body.mask is not None:
        raise bad_request("mask: say in the prompt what to change where", param="mask")

    def read() -> list[JobOrder]:
        inputs = service.reader.images(files, "image")
        return _orders(service, client, body, body.prompt, kind="edit", inputs=inputs)

    return await _answer(request, service, body, await run_in_threadpool(read))


def _orders(
    service: DrawingService,
    client: str,
    body: ImageOptions,
    prompt: str,
    *,
    kind: str,
    inputs: Sequence[ImageRef] = (),
) -> list[JobOrder]:
    check_model(service, body.model)
    number, most = body.n or 1, service.settings.limits.max_samples
    if number > most:
        raise bad_request(f"n is {number}; the server's limit is {most}", param="n")
    if body.stream and number > 1:
        raise bad_request("stream: one picture can be streamed; give n 1", param="stream")
    asked = body.model_dump(include=set(DrawOptions.model_fields), exclude_none=True)
    seed, deadline_s = asked.pop("seed", None), asked.pop("deadline_s", None)
    if body.size not in (None, "auto"):
        assert body.size is not None
        width, height = map(int, body.size.split("x"))
        asked |= {"width": width, "height": height}
    if inputs:
        # An edit is one picture drawn onto another; stages are for whoever asks for them.
        asked.setdefault("mode", "one-shot")
    if asked.get("mode") == "answer":
        raise bad_request("mode answer draws nothing; ask /v1/chat/completions", param="mode")
    first = service.reader.order(
        client,
        prompt,
        asked=asked,
        inputs=inputs,
        kind=kind,
        seed=seed,
        deadline_s=deadline_s,
    )
    return [replace(first, seed=first.seed + count) for count in range(number)]


async def _answer(
    request: Request, service: DrawingService, body: ImageOptions, orders: Sequence[JobOrder]
) -> Response:
    if body.stream and body.partial_images:
        orders = [replace(order, watched=True) for order in orders]
    jobs = await run_in_threadpool(service.submit, orders)
    if body.stream:
        return image_stream(service, jobs[0], partial_images=body.partial_images or 0)
    await wait_for(service, request, jobs)
    if not any(map(has_picture, jobs)):
        raise failure_of(jobs[0])
    drawn = [job for job in jobs if has_picture(job)]
    as_url = body.response_format == "url"
    base = (service.settings.public_url or str(request.base_url)).rstrip("/")

    def build() -> dict[str, Any]:
        data = [_datum(service, job, base if as_url else None) for job in drawn]
        answer = ImagesAnswer(created=int(time.time()), data=data, size=_size(drawn[0]))
        return answer.model_dump()

    return JSONResponse(await run_in_threadpool(build))


def _datum(service: DrawingService, job: Job, base: str | None) -> ImageDatum:
    """Describe a picture: in base64, or where it is below an address."""
    if base is None:
        place = {"b64_json": to_base64(service.picture_of(job))}
    else:
        assert job.picture.name is not None
        place = {"url": base + service.addresses.path(job.id, job.picture.name)}
    return ImageDatum(
        **place,
        revised_prompt=job.order.start.prompt,
        seed=job.order.seed,
        trajectory=job.id,
        complete=job.trajectory.complete,
        reason=job.reason,
    )


def _size(job: Job) -> str:
    data = job.picture.png
    assert data is not None
    _, width, height = images.probe(data)
    return f"{width}x{height}"
