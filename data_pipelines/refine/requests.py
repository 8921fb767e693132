"""What the language model is asked about imported images."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from staged import protocol, strict_json
from staged.backends.lmm.inspecting import Text
from staged.backends.lmm.types import LmmRequest
from staged.trajectory import Verdict

PROMPT_VERSION = "1"
"""Raised with every change of the words below: answers to other words are not reused."""

_Optional = Annotated[str, Field(max_length=4000)]


class FitJudgement(BaseModel):
    """Why an image fits its prompt, or what does not."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    critique: Text
    verdict: Verdict


class PairJudgement(BaseModel):
    """What is wrong with an image, how to put it right, and whether another one is right."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    critique: Text
    conflicts: bool
    correction: _Optional
    explanation: _Optional
    mended: bool

    @model_validator(mode="after")
    def _said(self) -> "PairJudgement":
        for text in (self.correction, self.explanation) if self.conflicts and self.mended else ():
            protocol.check_text(text)
        return self


_FITS = (
    "Check the image against the prompt. First write the critique, in several sentences: go "
    "through the entities that the prompt names, their number, their attributes, how they stand "
    "to one another, and style, say for each what the image shows, and name whatever is not as "
    "asked for. Judge by looking; do not suppose that the image is right. Then give the verdict: "
    "accept where nothing contradicts the prompt or is missing, revise otherwise."
)
_PAIR = (
    "The two images were made for the prompt below. First write the critique of the first image, "
    "in several sentences: go through the entities that the prompt names, their number, their "
    "attributes, how they stand to one another, and style, and name what contradicts the prompt "
    "or is missing, and where it is seen. Where somebody has said what is wrong with it "
    "(reflection), that is a hint and may be mistaken: keep of it what you see. conflicts says "
    "whether the first image conflicts with the prompt at all. Then write the correction: an "
    "instruction of one or two sentences, in the imperative, that says what to change in the "
    "first image so that it shows what the prompt asks for. Then write the explanation: why the "
    "second image fits the prompt, by the same aspects. mended says whether the second image has "
    "none of the conflicts of the first, and no new ones."
)


def fit_request(prompt: str, image: bytes, *, seed: int = 0) -> LmmRequest[FitJudgement]:
    """Ask why an image fits its prompt, or what does not."""
    return _request("explain_image", _FITS, {"prompt": prompt}, FitJudgement, (image,), seed)


def pair_request(
    prompt: str, bad: bytes, good: bytes, reflection: str | None, *, seed: int = 0
) -> LmmRequest[PairJudgement]:
    """Ask what is wrong with the first of two images, and whether the second mends it.

    Args:
        prompt: What both were made for.
        bad: The first image.
        good: The second image.
        reflection: What somebody said of the first one; None where nobody did.
        seed: See `LmmRequest`.
    """
    content = {"prompt": prompt, "reflection": reflection}
    return _request("correct_image", _PAIR, content, PairJudgement, (bad, good), seed)


def _request(
    purpose: Literal["explain_image", "correct_image"],
    instructions: str,
    content: dict[str, Any],
    answer: type[Any],
    images: tuple[bytes, ...],
    seed: int,
) -> LmmRequest[Any]:
    return LmmRequest(
        purpose=purpose,
        prompt_version=PROMPT_VERSION,
        instructions=instructions,
        content=(strict_json.dumps(content), *images),
        answer=answer,
        seed=seed,
    )
