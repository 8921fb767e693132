"""`/v1/models`: what is served, as OpenAI's clients ask for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from staged.server.access import Client
from staged.server.errors import ApiError
from staged.server.openai_schemas import ModelCard, ModelList
from staged.server.routing import ERRORS, Serving
from staged.server.service import DrawingService

router = APIRouter(prefix="/v1/models", tags=["OpenAI"], responses=ERRORS)


@router.get("")
async def models(_: Client, service: Serving) -> ModelList:
    """Name the model that is served."""
    return ModelList(data=[_card(service)])


@router.get("/{name:path}")
async def model(
    _: Client, service: Serving, name: Annotated[str, Path(max_length=500)]
) -> ModelCard:
    """Say whether a model is served."""
    check_model(service, name)
    return _card(service)


def check_model(service: DrawingService, name: str | None) -> None:
    """Make sure that a request means the model that is served; None does.

    Raises:
        ApiError: It means another (404).
    """
    ours = service.settings.name
    if name is not None and name != ours:
        raise ApiError(
            404,
            f"no model {name[:80]!r} here; this server has {ours!r}",
            code="model_not_found",
            param="model",
        )


def _card(service: DrawingService) -> ModelCard:
    return ModelCard(id=service.settings.name, created=int(service.began_s))
