"""A language model that sees the picture as a verifier: it gives a grade.

Answers are structured, so any OpenAI-compatible endpoint will do, also one that tells no
probabilities of tokens; where it tells them, `vqascore` is finer.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from staged import images, strict_json
from staged.backends.lmm.asker import Asker
from staged.backends.lmm.request import Failure, LmmRequest
from staged.roles import Rated, Rating

PROMPT_VERSION = "1"
"""Raised with every change of the words below."""
MAX_GRADE = 10

_WORDS = (
    "You get the PROMPT that an image was made from, and the image. Grade from 0 to "
    f"{MAX_GRADE} how much of the prompt the image shows: every object in its number, every "
    "attribute, every relation counts alike. 0 when nothing of it is there, "
    f"{MAX_GRADE} when all of it is. Look at what is there, not at what was meant; style and "
    "beauty do not matter. Say first, in one short sentence, what is missing or wrong."
)


class GradeAnswer(BaseModel):
    """What the model says."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    reason: str = Field(max_length=2000)
    grade: int = Field(ge=0, le=MAX_GRADE)


class LmmVerifier:
    """Asks a language model for a grade of each picture, many at a time.

    Args:
        asker: The model.
    """

    def __init__(self, asker: Asker) -> None:
        """Nothing is sent yet."""
        self._asker = asker

    @property
    def name(self) -> str:
        """Model, and whose words it is asked in."""
        return f"{self._asker.name}, staged words {PROMPT_VERSION}"

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        """Rate each by its grade.

        Raises:
            ValueError: the endpoint refuses everything.
            BudgetError: the budget is spent.
        """
        return [
            Rating(value=None, reason=f"{reply.kind}: {reply.detail[:500]}")
            if isinstance(reply, Failure)
            else Rating(value=reply.value.grade / MAX_GRADE)
            for reply in self._asker.ask([_request(picture) for picture in pictures])
        ]


def _request(picture: Rated) -> LmmRequest[GradeAnswer]:
    return LmmRequest(
        purpose="grade_picture",
        prompt_version=PROMPT_VERSION,
        instructions=_WORDS,
        content=(strict_json.dumps({"prompt": picture.prompt}), images.encode_png(picture.pixels)),
        answer=GradeAnswer,
    )
