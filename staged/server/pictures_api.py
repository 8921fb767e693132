"""`/v1/pictures`: what a picture says of how it was drawn."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from staged.generate.picture_record import record_in
from staged.server.access import Client
from staged.server.errors import ApiError, bad_request
from staged.server.routing import ERRORS, Serving
from staged.server.schemas import DrawOptions, Strict

router = APIRouter(prefix="/v1/pictures", tags=["trajectories"], responses=ERRORS)


class PictureGiven(Strict):
    """A picture that this or another staged drew."""

    image: str = Field(description="A PNG as it was downloaded, as a data URL or plain base64.")


class PictureSaid(BaseModel):
    """How a picture was drawn. It may come from anybody, so this is what it says, no more."""

    prompt: str = Field(description="As the model read it.")
    seed: int
    checkpoint: str = Field(description="Name of the model.")
    settings: dict[str, Any] = Field(description="Those that a request may name.")
    num_inputs: int = Field(description="Images that it was drawn from, which it does not carry.")
    at: int = Field(description="Steps up to it, itself included.")
    trajectory: str | None = Field(description="Its trajectory, if that is one of yours here.")


@router.post("")
async def read(body: PictureGiven, client: Client, service: Serving) -> PictureSaid:
    """Read what a picture says of how it was drawn."""

    def look() -> PictureSaid:
        [image] = service.reader.from_base64([body.image], "image")
        try:
            record = record_in(image)
        except ValueError as error:
            raise bad_request(f"image: {error}", param="image") from None
        options = DrawOptions.model_fields.keys() - {"seed"}
        return PictureSaid(
            prompt=record.trajectory.prompt,
            seed=record.seed,
            checkpoint=record.checkpoint,
            settings={
                name: value
                for name, value in record.settings.items()
                if name in options and value is not None
            },
            num_inputs=len(record.trajectory.inputs),
            at=len(record.trajectory.steps),
            trajectory=_known(record.id),
        )

    def _known(id: str | None) -> str | None:
        if id is None:
            return None
        try:
            return service.record(client, id).id
        except ApiError:
            return None

    return await run_in_threadpool(look)
