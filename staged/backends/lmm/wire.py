"""Between our requests and the bytes of the chat completions API."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ValidationError

from staged import images
from staged.backends.http.replies import MAX_DETAIL_CHARS, clean
from staged.backends.lmm.outcomes import FailureKind
from staged.backends.lmm.request import FirstToken
from staged.data_urls import to_data_url

MAX_ANSWER_CHARS = 1_000_000
_MAX_FENCES = 8


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
    _, width, height = images.probe(image)
    scale = max_side_px / max(width, height)
    if scale < 1 or not images.is_plain(image):
        scale = min(scale, 1)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        scaled = Image.fromarray(images.decode(image)).resize(size, Image.Resampling.LANCZOS)
        image = images.encode_png(np.asarray(scaled))
    return to_data_url(image)


def chat_content(parts: Sequence[str | bytes], *, max_side_px: int) -> list[dict[str, Any]]:
    """The parts of a message, texts and images, as the API has them; see `data_url`."""
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part, max_side_px=max_side_px)}}
        for part in parts
    ]


ReplyOutcome = tuple[Literal["ok"] | FailureKind, str]
"""`ok` with the answer's text, or why there is none with what is known."""


def outcome(body: Mapping[str, Any], answer: type[BaseModel]) -> ReplyOutcome:
    """Judge a reply to a request for a whole answer.

    An answer is the text as it is, what follows a thought, or what stands in a fence; where the
    text holds none, the same in what a server took for reasoning.
    """
    withheld, message, finish = _read(body)
    if withheld:
        return withheld
    text = _text(message.get("content"))
    if finish in ("length", "max_tokens"):
        return "truncated", text[-MAX_DETAIL_CHARS:]
    said = [text, *(_text(message.get(name)) for name in ("reasoning_content", "reasoning"))]
    if any(len(part) > MAX_ANSWER_CHARS for part in said):
        return "invalid_output", f"{max(map(len, said))} characters exceed {MAX_ANSWER_CHARS}"
    problem = ""
    for candidate in (found for part in said if part for found in _candidates(part)):
        try:
            answer.model_validate_json(candidate)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "answer"
            problem = problem or f"{place}: {first['msg']}"
        else:
            return "ok", candidate
    return "invalid_output", f"{problem or 'no text'}; in {text!r}"[:MAX_DETAIL_CHARS]


def first_token(body: Mapping[str, Any], top_logprobs: int) -> ReplyOutcome:
    """Judge a reply to a request for the first token; `ok` comes with a `FirstToken` as JSON."""
    withheld, _, _ = _read(body)
    if withheld:
        return withheld
    logprobs = body["choices"][0].get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    entries = first.get("top_logprobs") if isinstance(first, dict) else None
    if not isinstance(entries, list) or not entries:
        # Not worth another attempt: who does not know the field will not learn it.
        return "bad_request", "no log probabilities; does the endpoint know `top_logprobs`?"
    pairs = [
        (clean(entry.get("token")), float(entry["logprob"]))
        for entry in entries[:top_logprobs]
        if isinstance(entry, dict) and _is_log_prob(entry.get("logprob"))
    ]
    total = math.fsum(math.exp(min(logprob, 1.0)) for _, logprob in pairs)
    if not 0 < total < 1.01:
        return "invalid_output", f"{len(pairs)} probabilities sum to {total:.4g}"
    return "ok", FirstToken(log_probs=tuple(pairs)).model_dump_json()


def _is_log_prob(value: Any) -> bool:
    # An integer of a thousand digits is no float, and no probability.
    return type(value) in (int, float) and abs(value) < 1e6


def _read(body: Mapping[str, Any]) -> tuple[ReplyOutcome | None, Mapping[str, Any], str]:
    """Find the message and why it ends; or why there is none, whatever its text looks like."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return ("invalid_output", "the reply holds no choice with a message"), {}, ""
    finish = choice.get("finish_reason")
    finish = finish.lower() if isinstance(finish, str) else ""
    withheld: ReplyOutcome | None = None
    if refusal := _text(message.get("refusal")):
        withheld = "refusal", refusal[:MAX_DETAIL_CHARS]
    elif finish in ("content_filter", "safety"):
        withheld = "content_filter", _text(message.get("content"))[:MAX_DETAIL_CHARS]
    elif finish == "error":
        # A router's: the model behind it broke off. It was not the answer that was paid for.
        withheld = "server_error", clean(repr(choice.get("error")))[:MAX_DETAIL_CHARS]
    return withheld, message, finish


def _text(content: Any) -> str:
    """Return a message's text; some servers send it in parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return clean(content).strip().removeprefix("\ufeff")


def _candidates(text: str) -> Iterator[str]:
    """Yield what may be the answer: the text, what follows the thought, the last fence in that."""
    yield text
    if text.startswith("<think>") and "</think>" not in text:
        return  # a draft
    spoken = text.rpartition("</think>")[2].strip()
    if spoken != text:
        yield spoken
    yield from reversed(_fenced(spoken)[-_MAX_FENCES:])


def _fenced(text: str) -> list[str]:
    """List what stands in code fences; line by line, which takes no longer for hostile texts."""
    found: list[str] = []
    lines: list[str] | None = None
    for line in text.split("\n"):
        mark = line.strip()
        if mark.startswith("```") and (lines is None or mark != "```"):
            lines = []
        elif lines is not None and mark.endswith("```"):
            found.append("\n".join([*lines, mark.removesuffix("```")]))
            lines = None
        elif lines is not None:
            lines.append(line)
    return found if lines is None else [*found, "\n".join(lines)]
