"""Judging images for WISE with a language model that sees image, prompt and explanation.

The scales are the benchmark's. The words are ours and the answer is structured, so the judge's
name says `staged words` with their version: scores judged by the reference's own script are
another variant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from eval.numbered import no_images, numbered_images
from eval.wise.prompts import WisePrompt
from eval.wise.versions import Version
from staged import images, strict_json
from staged.backends.lmm.asker import ask_each
from staged.backends.lmm.attempts import AttemptLog
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.request import Failure, LmmRequest
from staged.backends.lmm.settings import LmmSettings
from staged.jobs.progress import Progress

PROMPT_VERSION = "1"
"""Raised with every change of the words below."""

_COMMON = (
    "You judge images made from text. You get the PROMPT that the image was made from, an "
    "EXPLANATION of what the prompt means, and the image. Be strict: where you are in doubt, give "
    "the lower score. The prompt often names a thing without saying what it is; the explanation "
    "says what must be seen."
)
_ASPECTS = (
    f"{_COMMON} Give three scores from 0 to 2. consistency: 0 when key elements of the prompt, as "
    "explained, are missing or contradicted; 1 when they are there in part; 2 when every element "
    "and nuance is there. realism: 0 when the image is implausible or plainly artificial; 1 with "
    "smaller flaws of physics, material or space; 2 when it could be a photograph. "
    "aesthetic_quality: 0 when badly composed or unattractive; 1 when acceptable without "
    "distinction; 2 when masterly. A 2 is rare."
)
_BIT = (
    f"{_COMMON} Give one score: 1 when the image shows what the prompt, as explained, asks for, "
    "completely and without contradiction; 0 otherwise. Style and beauty do not matter."
)


class AspectsAnswer(BaseModel):
    """What the judge of the legacy version says."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    consistency: Literal[0, 1, 2]
    realism: Literal[0, 1, 2]
    aesthetic_quality: Literal[0, 1, 2]


class BitAnswer(BaseModel):
    """What the judge of the verified version says."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    score: Literal[0, 1]


def default_settings(version: Version) -> dict[str, Any]:
    """Return how the version's own judge is asked: model, temperature 0, no thinking."""
    settings: dict[str, Any] = {"model": version.judge, "temperature": 0.0}
    if not version.aspects:
        settings["base_url"] = "http://127.0.0.1:8000/v1"
        settings["api_key_env"] = None
        settings["extra_body"] = {"chat_template_kwargs": {"enable_thinking": False}}
    return settings


def judge_name(settings: LmmSettings) -> str:
    """Return what a result says about the judge."""
    return f"{settings.model}, staged words {PROMPT_VERSION}"


def request_of(prompt: WisePrompt, image: bytes, version: Version) -> LmmRequest[Any]:
    """Build the request about one image."""
    answer: type[BaseModel] = AspectsAnswer if version.aspects else BitAnswer
    text = strict_json.dumps({"PROMPT": prompt.text, "EXPLANATION": prompt.explanation})
    return LmmRequest(
        purpose=f"wise_{version.name}",
        prompt_version=PROMPT_VERSION,
        instructions=_ASPECTS if version.aspects else _BIT,
        content=(text, image),
        answer=answer,
    )


def judge_folder(
    folder: Path,
    prompts: Sequence[WisePrompt],
    version: Version,
    settings: LmmSettings,
    log: AttemptLog,
) -> list[dict[str, Any]]:
    """Judge `{prompt_id}.png`, or another kind of image, for every prompt.

    Args:
        folder: Of images.
        prompts: All of the benchmark.
        version: Of the benchmark.
        settings: Who judges.
        log: Where answers are kept; what lies there is not asked again.

    Returns:
        One line for `staged eval wise --judgements` per prompt, in order. Without an image or an
        answer the scores are null, with the reason.

    Raises:
        ValueError: there is no image of any prompt, or the endpoint refuses everything.
        BudgetError: the log's budget is spent.
    """
    found = numbered_images(folder)
    if not any(prompt.prompt_id in found for prompt in prompts):
        raise no_images(folder)
    lines: dict[int, dict[str, Any]] = {}
    progress = Progress("judging", len(prompts))

    async def judge(client: LmmClient, prompt: WisePrompt) -> None:
        path = found.get(prompt.prompt_id)
        lines[prompt.prompt_id] = await _judge(path, prompt, version, client)
        progress.advance()

    ask_each(settings, log, prompts, judge)
    return [lines[prompt.prompt_id] for prompt in prompts]


async def _judge(
    path: Path | None, prompt: WisePrompt, version: Version, client: LmmClient
) -> dict[str, Any]:
    line: dict[str, Any] = {"prompt_id": prompt.prompt_id, "judge": judge_name(client.settings)}
    if path is None:
        return {**line, "score": None, "reason": "no image"}
    line["image"] = path.name
    try:
        image = images.read_file(path)
        line["sha256"] = hashlib.sha256(image).hexdigest()
        images.decode(image)
    except ValueError as error:
        return {**line, "score": None, "reason": "broken image", "detail": str(error)[:500]}
    reply = await client.ask(request_of(prompt, image, version))
    if isinstance(reply, Failure):
        return {**line, "score": None, "reason": reply.kind, "detail": reply.detail[:500]}
    return {**line, **reply.value.model_dump()}
