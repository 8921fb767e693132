"""What the loop of Idea2Img tells while it runs. `idea` is the index of the idea it is about."""

from __future__ import annotations

from dataclasses import dataclass

from staged.ideas.exploration import (
    Action,
    Draft,
    DraftScore,
    Exploration,
    Feedback,
    PairComparison,
    Place,
)
from staged.scene_graph import Question


@dataclass(frozen=True, kw_only=True)
class ChecklistWritten:
    """The questions that a picture must answer with yes."""

    idea: int
    questions: tuple[Question, ...]


@dataclass(frozen=True, kw_only=True)
class PromptsWritten:
    """The prompts of a round, from 0, and how they will be drawn."""

    idea: int
    round: int
    prompts: tuple[str, ...]
    action: Action


@dataclass(frozen=True, kw_only=True)
class DraftDrawn:
    """A draft was drawn, or could not be: then it says why."""

    idea: int
    place: Place
    draft: Draft


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The best of a round, or, at the end, of all rounds; `scored` has what was said of each."""

    idea: int
    place: Place
    scored: tuple[DraftScore, ...]
    final: bool = False


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two pictures were compared in both orders."""

    idea: int
    comparison: PairComparison


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The checklist was answered about the best picture: question id to whether it holds."""

    idea: int
    round: int
    place: Place
    answers: dict[str, bool]


@dataclass(frozen=True, kw_only=True)
class FeedbackGiven:
    """One thing to improve was found after a round."""

    idea: int
    round: int
    feedback: Feedback


@dataclass(frozen=True, kw_only=True)
class StepRetried:
    """A step failed and is tried again; `attempt` counts its failures."""

    idea: int
    step: str
    reason: str
    detail: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class ControlDrawn:
    """What a person's own prompt gives was drawn."""

    idea: int
    drafts: int


@dataclass(frozen=True, kw_only=True)
class Explored:
    """An exploration is over, complete or not; what broke off has `failure` in its provenance."""

    idea: int
    exploration: Exploration


IdeaEvent = (
    ChecklistWritten
    | PromptsWritten
    | DraftDrawn
    | Chosen
    | Compared
    | Checked
    | FeedbackGiven
    | StepRetried
    | ControlDrawn
    | Explored
)
