"""What all routes have in common: the service behind them, and the errors that they document."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Depends, Request

from staged.server.errors import ErrorBody
from staged.server.service import DrawingService

_TEXT: Final = {"type": "string"}
EVENTS: Final[dict[str, Any]] = {
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "properties": {"id": _TEXT, "event": _TEXT, "data": _TEXT},
                "required": ["data"],
            }
        }
    }
}
"""Of an answer that is a stream; each event has this form."""

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorBody, "description": words}
    for status, words in {
        400: "The request is wrong; the message says how.",
        401: "No API key, or an unknown one.",
        404: "There is nothing of this name.",
        408: "The body did not arrive in time.",
        409: "Not in this state.",
        413: "The body is too long.",
        422: "The model failed.",
        429: "There is no room; come again after `Retry-After` seconds.",
        500: "The server failed.",
        503: "The server is ending.",
        504: "It was not done by its deadline.",
    }.items()
}


def service_of(request: Request) -> DrawingService:
    """Return the service behind an application."""
    service: DrawingService = request.app.state.service
    return service


Serving = Annotated[DrawingService, Depends(service_of)]
