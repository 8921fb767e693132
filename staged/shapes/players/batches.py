"""Files and batches, as OpenAI has them, for the miniature world's language model.

A batch that was looked at once is done when it is looked at again. Everything lies in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from staged.shapes.players.misbehaviour import Misbehaviour

_ENDPOINT: Final = "/v1/chat/completions"
_MAX_FILE_BYTES: Final = 200 * 2**20
_TOO_MUCH: Final = "token_limit_exceeded"

Answer = Callable[[bytes, str], tuple[int, dict[str, Any]]]
"""Body of a request and number of times that it was answered before -> status and body."""


class BatchDesk:
    """Takes files, and answers what is in them.

    Args:
        answer: Answers one request.
        manners: How it fails.

    Attributes:
        answered: Key of a request -> times that it was answered, errors included.
    """

    def __init__(self, answer: Answer, manners: Misbehaviour) -> None:
        """Begin without any."""
        self._answer, self._manners = answer, manners
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self.answered: Counter[str] = Counter()

    def routes(self) -> list[Route]:
        """Where it is asked."""
        return [
            Route("/v1/files", self._upload, methods=["POST"]),
            Route("/v1/files/{id}/content", self._content),
            Route("/v1/batches", self._create, methods=["POST"]),
            Route("/v1/batches", self._list),
            Route("/v1/batches/{id}", self._look),
        ]

    async def _upload(self, request: Request) -> Response:
        async with request.form(max_part_size=_MAX_FILE_BYTES) as form:
            file, purpose = form.get("file"), form.get("purpose")
            if purpose != "batch" or file is None or isinstance(file, str):
                return JSONResponse(error_body("expected a file with purpose batch"), 400)
            name = self._keep(await file.read())
        return JSONResponse({"id": name, "object": "file", "purpose": purpose})

    async def _content(self, request: Request) -> Response:
        content = self._files.get(request.path_params["id"])
        if content is None:
            return JSONResponse(error_body("no such file"), 404)
        return Response(content, media_type="application/octet-stream")

    async def _create(self, request: Request) -> Response:
        body = await request.json()
        if body.get("endpoint") != _ENDPOINT or body.get("input_file_id") not in self._files:
            return JSONResponse(error_body("expected a file for chat completions"), 400)
        name = f"batch_{len(self._batches)}"
        self._batches[name] = {
            "id": name,
            "object": "batch",
            "status": "validating",
            "input_file_id": body["input_file_id"],
            "metadata": body.get("metadata"),
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
        }
        return JSONResponse(self._batches[name])

    async def _list(self, request: Request) -> Response:
        limit, after = int(request.query_params.get("limit", 20)), request.query_params.get("after")
        names = list(reversed(self._batches))
        names = names[names.index(after) + 1 if after in names else 0 :]
        page = [self._batches[name] for name in names[:limit]]
        return JSONResponse({"object": "list", "data": page, "has_more": len(names) > limit})

    async def _look(self, request: Request) -> Response:
        batch = self._batches.get(request.path_params["id"])
        if batch is None:
            return JSONResponse(error_body("no such batch"), 404)
        if batch["status"] == "in_progress":
            self._do(batch)
        elif batch["status"] == "validating":
            batch["status"] = "in_progress"
        return JSONResponse(batch)

    def _do(self, batch: dict[str, Any]) -> None:
        number = list(self._batches).index(batch["id"])
        batch["status"] = self._manners.end_of_batch(number)
        lines = self._files[batch["input_file_id"]].rstrip(b"\n").split(b"\n")
        if batch["status"] == "failed":
            errors = [{"code": _TOO_MUCH, "message": "too many tokens are waiting", "line": None}]
            batch["errors"] = {"object": "list", "data": errors}
            return
        done = len(lines) // 2 if batch["status"] == "expired" else len(lines)
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for line in lines[:done]:
            record = json.loads(line)
            key = record["custom_id"]
            raw = json.dumps(record["body"]).encode()
            status, body = self._answer(raw, str(self.answered[key]))
            self.answered[key] += 1
            said = {"custom_id": key, "response": {"status_code": status, "body": body}}
            (good if status == 200 else bad).append({**said, "error": None})
        for line in lines[done:]:
            error = {"code": "batch_expired", "message": "not done within the completion window"}
            key = json.loads(line)["custom_id"]
            bad.append({"custom_id": key, "response": None, "error": error})
        for name, records in (("output_file_id", good), ("error_file_id", bad)):
            if records:
                text = "".join(json.dumps(record) + "\n" for record in reversed(records))
                batch[name] = self._keep(text.encode())

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self._files)}"
        self._files[name] = content
        return name


def error_body(message: str) -> dict[str, Any]:
    """What an error looks like."""
    return {"error": {"message": message, "type": "error", "code": None, "param": None}}
