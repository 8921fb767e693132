"""What a client is told when it gets nothing, in the shape that OpenAI's clients read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from staged import strict_json

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_MAX_CHARS = 2000
_FIELD = re.compile(r"\w+(\[\])?")
"""A part of a place that is a field or a number, and not the kind that a field might have been."""


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str = Field(description="For people: the value, the place, the way out.")
    type: str = Field(description="Kind of error.")
    param: str | None = Field(description="The field that is wrong, where it is one.")
    code: str | None = Field(description="For programs.")


class ErrorBody(BaseModel):
    """The body of every answer whose status is 400 or more."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that is not answered as it would like.

    Attributes:
        status: Of HTTP.
        message: For people.
        code: For programs.
        param: The field that is wrong.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what to say."""
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})


def bad_request(message: str, *, param: str | None = None, code: str = "invalid") -> ApiError:
    """Build the error of a request that is wrong in itself (400)."""
    return ApiError(400, message, code=code, param=param)


def busy(
    message: str, *, status: int = 429, code: str = "queue_full", after_s: int = 5
) -> ApiError:
    """Build the error of a request that may come again."""
    return ApiError(status, message, code=code, headers={"Retry-After": str(after_s)})


def told_in_stream(error: ApiError) -> str:
    """Write an error as data of a stream whose status has gone out already."""
    told = {"message": error.message, "type": "error", "param": None, "code": error.code}
    return strict_json.dumps({"error": told})


def error_response(error: ApiError) -> JSONResponse:
    """Build the answer to a request that failed."""
    kind = _TYPES.get(error.status)
    if kind is None:
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
    detail = {
        "message": error.message[:_MAX_CHARS],
        "type": kind,
        "param": error.param,
        "code": error.code,
    }
    return JSONResponse({"error": detail}, status_code=error.status, headers=error.headers)


def install_error_handlers(app: FastAPI) -> None:
    """Give every error the same shape."""

    @app.exception_handler(ApiError)
    async def told(_: Request, error: ApiError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        said = "the server made a mistake; its log says where"
        return error_response(ApiError(500, said, code="server_error"))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        # As nginx writes it into its log; nobody gets it.
        return Response(status_code=499)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(_of_validation(error))

    @app.exception_handler(HTTPException)
    async def of_framework(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid")
        headers = dict(error.headers or {})
        return error_response(
            ApiError(error.status_code, str(error.detail), code=code, headers=headers)
        )


def _of_validation(error: RequestValidationError) -> ApiError:
    """Say one thing that is wrong, without the value: it may be anything."""
    # Of a field that may be one of several kinds, the kind that came nearest is told of.
    worst: Mapping[str, Any] = max(error.errors(), key=lambda found: len(found["loc"]))
    where, *rest = map(str, worst["loc"])
    param = ".".join(part for part in rest if _FIELD.fullmatch(part)) or None
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    if worst["type"] == "json_invalid":
        return bad_request(f"the body is not valid JSON: {worst['msg']}", code="invalid_json")
    return bad_request(f"{param or where}: {worst['msg']}{more}", param=param)
