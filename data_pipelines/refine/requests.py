"""What the language model is asked about imported images."""

from pydantic import model_validator

from data_pipelines.answers import StrictAnswer
from data_pipelines.wording import Wording
from staged import protocol
from staged.backends.lmm.inspecting import OptionalText, Text
from staged.backends.lmm.request import LmmRequest
from staged.trajectory import Verdict


class FitJudgement(StrictAnswer):
    """Why an image fits its prompt, or what does not."""

    critique: Text
    verdict: Verdict


class PairJudgement(StrictAnswer):
    """What is wrong with an image, how to put it right, and whether another one is right."""

    critique: Text
    conflicts: bool
    correction: OptionalText
    explanation: OptionalText
    mended: bool

    @model_validator(mode="after")
    def _said(self) -> "PairJudgement":
        for text in (self.correction, self.explanation) if self.conflicts and self.mended else ():
            protocol.check_text(text)
        return self


def fit_request(
    wording: Wording, prompt: str, image: bytes, *, seed: int = 0
) -> LmmRequest[FitJudgement]:
    """Ask why an image fits its prompt, or what does not."""
    return wording.request("explain_image", {"prompt": prompt}, FitJudgement, image, seed=seed)


def pair_request(
    wording: Wording,
    prompt: str,
    bad: bytes,
    good: bytes,
    reflection: str | None,
    *,
    seed: int = 0,
) -> LmmRequest[PairJudgement]:
    """Ask what is wrong with the first of two images, and whether the second mends it.

    Args:
        wording: In which words.
        prompt: What both were made for.
        bad: The first image.
        good: The second image.
        reflection: What somebody said of the first one; None where nobody did.
        seed: See `LmmRequest`.
    """
    content = {"prompt": prompt, "reflection": reflection}
    return wording.request("correct_image", content, PairJudgement, bad, good, seed=seed)
