"""Between our requests and the bytes of the chat completions API."""

import base64
import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from openai.types.chat import ChatCompletion
from PIL import Image
from pydantic import BaseModel, ValidationError

from staged import images
from staged.backends.lmm_types import FailureKind, FirstToken

MAX_ANSWER_CHARS = 1_000_000
MAX_DETAIL_CHARS = 500
"""How much of an answer that is no good is kept."""


def wire_schema(answer: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema to send: only keywords that strict structured output knows.

    Lengths are left out of it (they are checked on the answer), as are titles and defaults. The
    result is shared: do not change it.
    """
    return _wire_schema(answer)


@lru_cache(maxsize=256)
def _wire_schema(answer: type[BaseModel]) -> dict[str, Any]:
    left_out = {"title", "default", "maxLength", "minLength"}

    def cleaned(node: Any) -> Any:
        if isinstance(node, dict):
            # A property may be called `title`; only keywords are left out.
            return {
                key: {name: cleaned(item) for name, item in value.items()}
                if key in ("properties", "$defs")
                else cleaned(value)
                for key, value in node.items()
                if key not in left_out
            }
        return [cleaned(item) for item in node] if isinstance(node, list) else node

    schema: dict[str, Any] = cleaned(answer.model_json_schema())
    return schema


def data_url(image: bytes, *, max_side_px: int) -> str:
    """Encode an image for a request, scaled down (never up) to a longest side.

    It is sent as it is only where no service can take it for another picture than we do.

    Args:
        image: PNG, WebP or JPEG.
        max_side_px: Longest side that is sent.

    Raises:
        ValueError: not such an image.
    """
    extension, width, height = images.probe(image)
    scale = max_side_px / max(width, height)
    if scale < 1 or not images.is_plain(image):
        scale = min(scale, 1)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        scaled = Image.fromarray(images.decode(image)).resize(size, Image.Resampling.LANCZOS)
        image, extension = images.encode_png(np.asarray(scaled)), "png"
    kind = "jpeg" if extension == "jpg" else extension
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


Outcome = tuple[Literal["ok"] | FailureKind, str]
"""`ok` with the answer's text, or why there is none with what is known."""


def outcome(completion: ChatCompletion, answer: type[BaseModel]) -> Outcome:
    """Judge a response to a request for a whole answer."""
    if withheld := _withheld(completion):
        return withheld
    choice = completion.choices[0]
    text = choice.message.content or ""
    if choice.finish_reason == "length":
        return "truncated", text[-MAX_DETAIL_CHARS:]
    if len(text) > MAX_ANSWER_CHARS:
        return "invalid_output", f"{len(text)} characters exceed {MAX_ANSWER_CHARS}"
    try:
        answer.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "answer"
        return "invalid_output", f"{place}: {first['msg']}; in {text!r}"[:MAX_DETAIL_CHARS]
    return "ok", text


def first_token(completion: ChatCompletion, top_logprobs: int) -> Outcome:
    """Judge a response to a request for the first token; `ok` comes with a `FirstToken` as JSON."""
    if withheld := _withheld(completion):
        return withheld
    logprobs = completion.choices[0].logprobs
    if not logprobs or not logprobs.content or not logprobs.content[0].top_logprobs:
        # Not worth another attempt: who does not know the field will not learn it.
        return "bad_request", "no log probabilities; does the endpoint know `top_logprobs`?"
    pairs = [
        # Half a character may be a token, and not every server writes it as text.
        (str(entry.token).encode(errors="replace").decode(), float(entry.logprob))
        for entry in logprobs.content[0].top_logprobs[:top_logprobs]
        if type(entry.logprob) in (int, float) and math.isfinite(entry.logprob)
    ]
    total = math.fsum(math.exp(min(logprob, 1.0)) for _, logprob in pairs)
    if not 0 < total < 1.01:
        return "invalid_output", f"{len(pairs)} probabilities sum to {total:.4g}"
    return "ok", FirstToken(log_probs=tuple(pairs)).model_dump_json()


def _withheld(completion: ChatCompletion) -> Outcome | None:
    """Say that no answer was given; what there is of its text may even look valid."""
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        return "invalid_output", "the response holds no choice"
    choice = completion.choices[0]
    if choice.message.refusal:
        return "refusal", choice.message.refusal[:MAX_DETAIL_CHARS]
    if choice.finish_reason == "content_filter":
        return "content_filter", (choice.message.content or "")[:MAX_DETAIL_CHARS]
    return None
