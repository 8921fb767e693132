"""What the model is asked, and how its answers are read.

Three questions: rewrite a prompt; score two pictures under a rubric; score such an answer. Answers
are plain text in a fixed form, so that a small model can learn it, and whatever is not in the form
is no answer: nothing is guessed from half of one.

    First: the star is blue. Score: 2. Second: a red star, as asked. Score: 5.
    relevance 4, accuracy 5, objectivity 4, clarity 3, completeness 4
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from train.self_reward.settings import Rubric, WordingName

MAX_SCORE: Final = 5
CRITERIA: Final = ("relevance", "accuracy", "objectivity", "clarity", "completeness")
"""Of the assessment of an answer, each from 1 to 5."""
MAX_PROMPT_CHARS: Final = 4000
_JUDGEMENT: Final = re.compile(
    r"first:(?P<first>.*?)score: *(?P<a>[0-5])\.?\s*second:(?P<second>.*?)score: *(?P<b>[0-5])\.?",
    re.IGNORECASE | re.DOTALL,
)
_ASSESSMENT: Final = re.compile(
    r",?\s*".join(rf"{name}:? *(?P<{name}>[1-5])" for name in CRITERIA) + r"\.?", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class TwoScores:
    """Two pictures scored.

    Attributes:
        scores: Of the first and of the second picture, 0 to 5.
        reasons: Why, for each.
    """

    scores: tuple[int, int]
    reasons: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions in words.

    Attributes:
        rewriting: Asks for a rewrite of `{prompt}`.
        judging: Rubric to the question about two pictures for `{prompt}`.
        assessing: Asks about `{answer}`, given to `{question}`.
    """

    rewriting: str
    judging: Mapping[Rubric, str]
    assessing: str

    def rewrite(self, prompt: str) -> str:
        """Ask for a better prompt."""
        return self.rewriting.replace("{prompt}", prompt)

    def judge(self, rubric: Rubric, prompt: str) -> str:
        """Ask for scores of two pictures, which come before the question."""
        return self.judging[rubric].replace("{prompt}", prompt)

    def assess(self, question: str, answer: str) -> str:
        """Ask for scores of an answer to a question about the same two pictures."""
        # The question first: an answer may hold any words, these too.
        return self.assessing.replace("{question}", question).replace("{answer}", answer)


_FORM: Final = (
    " Look at each picture by itself, then compare. Answer in this form and add nothing:\n"
    "First: <why, in a sentence>. Score: <0-5>. Second: <why, in a sentence>. Score: <0-5>."
)
WORDINGS: Final[Mapping[WordingName, Questions]] = MappingProxyType(
    {
        "full": Questions(
            rewriting="Rewrite this prompt for a text-to-image model so that its picture becomes "
            "clearer and more beautiful. Keep everything that it asks for: what there is, how many "
            "of each, their attributes, and how they relate to one another. Answer with the new "
            "prompt alone.\nPrompt: {prompt}",
            judging=MappingProxyType(
                {
                    "aesthetic": "Two pictures were drawn for the prompt: {prompt}\nScore the "
                    "beauty of each from 0 (ugly) to 5 (outstanding): composition, light, colour, "
                    "detail, and freedom from faults." + _FORM,
                    "preference": "Two pictures were drawn for the prompt: {prompt}\nScore from 0 "
                    "(nobody) to 5 (nearly everybody) how many people who wrote this prompt would "
                    "be pleased with each." + _FORM,
                    "alignment": "Two pictures were drawn for the prompt: {prompt}\nScore from 0 "
                    "(nothing) to 5 (everything) how much of what it asks for each shows: that "
                    "things are there, their number, attributes and relations." + _FORM,
                }
            ),
            assessing="Somebody was asked about these two pictures:\n{question}\n\nThe answer "
            "was:\n{answer}\n\nScore this answer from 1 (poor) to 5 (excellent) under five "
            "criteria. Answer in this form and add nothing:\n"
            + ", ".join(f"{name} <1-5>" for name in CRITERIA),
        ),
        "terse": Questions(
            rewriting="rewrite: {prompt}",
            judging=MappingProxyType(
                {
                    "aesthetic": "beauty: {prompt}",
                    "preference": "liking: {prompt}",
                    "alignment": "fit: {prompt}",
                }
            ),
            assessing="{question} assess: {answer}",
        ),
    }
)
"""By name; `terse` is for models that are taught nothing else."""


def read_rewrite(text: str) -> str | None:
    """Read a rewritten prompt; None for one that is empty, or too long to be one."""
    said = " ".join(text.split()).strip('"').strip()
    said = re.sub(r"^prompt:\s*", "", said, flags=re.IGNORECASE)
    return said if 0 < len(said) <= MAX_PROMPT_CHARS else None


def write_judgement(judgement: TwoScores) -> str:
    """Write a judgement in the form that `read_judgement` reads."""
    first, second = (
        f"{place}: {reason.strip().rstrip('.')}. Score: {score}."
        for place, reason, score in zip(
            ("First", "Second"), judgement.reasons, judgement.scores, strict=True
        )
    )
    return f"{first} {second}"


def read_judgement(text: str) -> TwoScores | None:
    """Read scores of two pictures; None for a text in any other form."""
    found = _JUDGEMENT.fullmatch(text.strip())
    if found is None:
        return None
    reasons = found["first"].strip().rstrip("."), found["second"].strip().rstrip(".")
    if any("score:" in reason.lower() for reason in reasons):
        return None  # a third score somewhere: which one is meant?
    return TwoScores(scores=(int(found["a"]), int(found["b"])), reasons=reasons)


def write_assessment(score: int) -> str:
    """Write an assessment that gives every criterion the same score."""
    return ", ".join(f"{name} {score}" for name in CRITERIA)


def read_assessment(text: str) -> float | None:
    """Read the mean of the five criteria, in [1, 5]; None for a text in any other form."""
    found = _ASSESSMENT.fullmatch(text.strip())
    if found is None:
        return None
    return sum(int(found[name]) for name in CRITERIA) / len(CRITERIA)
