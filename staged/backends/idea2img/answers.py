"""Schemas of what a language model answers in Idea2Img; what breaks a rule is no valid answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from staged import protocol
from staged.ideas.exploration import MAX_SCORE, Action, Aspect, Preferred
from staged.scene_graph.question import Subject

_MAX_QUESTIONS = 32


def _protocol_text(text: str) -> str:
    protocol.check_text(text)
    return text


Text = Annotated[str, Field(max_length=2000), AfterValidator(_protocol_text)]
"""Text that may stand in a trajectory."""
Reason = Annotated[str, Field(max_length=2000)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PromptsAnswer(_Answer):
    """Prompts for the image model, all different."""

    prompts: list[Text]

    @model_validator(mode="after")
    def _different(self) -> PromptsAnswer:
        _check_different(self.prompts)
        return self


class RevisionAnswer(_Answer):
    """Different prompts that draw anew, or instructions that edit the best picture.

    Instructions may be alike: each is drawn with noise of its own.
    """

    prompts: list[Text]
    action: Action

    @model_validator(mode="after")
    def _different(self) -> RevisionAnswer:
        if self.action == "regenerate":
            _check_different(self.prompts)
        return self


class ScoreAnswer(_Answer):
    """A draft's score."""

    draft: Annotated[int, Field(ge=1)]
    justification: Reason
    score: Annotated[int, Field(ge=1, le=MAX_SCORE)]


class SelectionAnswer(_Answer):
    """Scores of all drafts, and which is best: one that none has a higher score than."""

    drafts: list[ScoreAnswer]
    choice: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _consistent(self) -> SelectionAnswer:
        scores = {one.draft: one.score for one in self.drafts}
        if sorted(scores) != list(range(1, len(self.drafts) + 1)):
            raise ValueError("score every draft once, by its number")
        if self.choice not in scores:
            raise ValueError(f"choice: there is no draft {self.choice}")
        best = max(scores, key=lambda draft: scores[draft])
        if scores[self.choice] < scores[best]:
            raise ValueError(
                f"choice: draft {self.choice} has score {scores[self.choice]}, and draft {best} "
                f"has {scores[best]}"
            )
        return self


class ComparisonAnswer(_Answer):
    """Which of two pictures shows the idea better."""

    reason: Reason
    better: Preferred


class FeedbackAnswer(_Answer):
    """One thing to improve."""

    aspect: Aspect
    problem: Text
    change: Text


class AskedAnswer(_Answer):
    """A question of a checklist."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    subject: Subject
    question: Text
    parents: list[str]


class ChecklistAnswer(_Answer):
    """Questions that a picture of the idea answers with yes; parents come before children."""

    questions: Annotated[list[AskedAnswer], Field(min_length=1, max_length=_MAX_QUESTIONS)]

    @model_validator(mode="after")
    def _ordered(self) -> ChecklistAnswer:
        seen: set[str] = set()
        for question in self.questions:
            if question.id in seen:
                raise ValueError(f"two questions are called {question.id!r:.100}")
            for parent in question.parents:
                if parent not in seen:
                    raise ValueError(f"question {question.id!r:.100} comes before {parent!r:.100}")
            seen.add(question.id)
        return self


class CheckedAnswer(_Answer):
    """The answer to one question."""

    id: str
    yes: bool


class CheckAnswer(_Answer):
    """The answers to a checklist."""

    answers: list[CheckedAnswer]


@lru_cache(maxsize=64)
def prompts_answer(number: int, max_words: int) -> type[PromptsAnswer]:
    """Return the schema of exactly so many prompts of at most so many words."""
    return create_model(
        f"PromptsAnswer{number}x{max_words}",
        __base__=PromptsAnswer,
        prompts=(_texts(number, max_words), ...),
    )


@lru_cache(maxsize=64)
def revision_answer(number: int, max_words: int) -> type[RevisionAnswer]:
    """Return the schema of a revision by so many prompts of at most so many words."""
    return create_model(
        f"RevisionAnswer{number}x{max_words}",
        __base__=RevisionAnswer,
        prompts=(_texts(number, max_words), ...),
    )


@lru_cache(maxsize=64)
def selection_answer(number: int) -> type[SelectionAnswer]:
    """Return the schema of the scores of so many drafts."""
    drafts = Annotated[list[ScoreAnswer], Field(min_length=number, max_length=number)]
    return create_model(f"SelectionAnswer{number}", __base__=SelectionAnswer, drafts=(drafts, ...))


@lru_cache(maxsize=256)
def check_answer(ids: tuple[str, ...]) -> type[CheckAnswer]:
    """Return the schema of the answers to some questions: one to each, in their order."""

    def complete(answers: list[CheckedAnswer]) -> list[CheckedAnswer]:
        if (given := tuple(one.id for one in answers)) != ids:
            raise ValueError(f"answers to {', '.join(given):.200}; expected {', '.join(ids):.200}")
        return answers

    number = len(ids)
    answers = Annotated[
        list[CheckedAnswer], Field(min_length=number, max_length=number), AfterValidator(complete)
    ]
    return create_model(f"CheckAnswer{number}", __base__=CheckAnswer, answers=(answers, ...))


def _check_different(prompts: Sequence[str]) -> None:
    if len(set(prompts)) < len(prompts):
        raise ValueError("two prompts are the same")


def _texts(number: int, max_words: int) -> Any:
    text = Annotated[Text, AfterValidator(_at_most(max_words))]
    return Annotated[list[text], Field(min_length=number, max_length=number)]


def _at_most(max_words: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if (words := len(text.split())) > max_words:
            raise ValueError(f"{words} words; at most {max_words}")
        return text

    return check
