"""A name for a request: equal where its answer may be the same, so that none is paid for twice."""

from __future__ import annotations

import hashlib
from typing import Any

from staged import strict_json
from staged.backends.lmm.request import LmmRequest
from staged.backends.lmm.settings import LmmSettings
from staged.backends.lmm.wire import wire_schema


def request_key(settings: LmmSettings, request: LmmRequest[Any]) -> str:
    """Return the SHA-256 (hex) of everything that decides the answer."""
    content = [
        {"image": hashlib.sha256(part).hexdigest()} if isinstance(part, bytes) else part
        for part in request.content
    ]
    canonical = {
        "endpoint": "chat.completions",
        "model": settings.model,
        "temperature": 0.0 if settings.temperature == "auto" else settings.temperature,
        "max_output_tokens": settings.max_output_tokens,
        "max_side_px": settings.max_side_px,
        "extra_body": settings.extra_body,
        "purpose": request.purpose,
        "prompt_version": request.prompt_version,
        "instructions": request.instructions,
        "content": content,
        "schema": wire_schema(request.answer),
        "seed": request.seed,
    }
    # Only where they are otherwise than they were before there was a choice: ledgers stay valid.
    if request.top_logprobs is not None:
        canonical["top_logprobs"] = request.top_logprobs
    if settings.structured_output not in ("auto", "json_schema"):
        canonical["structured_output"] = settings.structured_output
    return hashlib.sha256(strict_json.dumps(canonical).encode()).hexdigest()
